"""The comparison in a terminal: as many columns as fit, the most telling ones first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from specbench.compare.comparison import OVERALL, Comparison, ComparisonRow
from specbench.report import words
from specbench.report.columns import Column, columns_of, legend
from specbench.report.grid import GAP, grid, sentence, wrapped

_NARROWEST_LABEL = 16
_WIDEST_LABEL = 40
_SPARED = 8  # columns from this rank on are left out rather than that a label is broken


_STYLES = {"good": "bold green", "bad": "bold red", "class-lossy": "yellow"}


def render(comparison: Comparison, width: int = 100) -> RenderableType:
    """Return a comparison as something that a rich console prints.

    Args:
        comparison: What to show.
        width: Columns of the terminal; columns that do not fit are left out, least telling first.
            The exactness always stays, and the score where a method is lossy.

    Returns:
        Banners, a heading, a table for each section, what the columns mean, and warnings. Metrics
        of pictures that do not fit stand in a table of their own below each section's.
    """
    rows = comparison.rows
    shown = _worth_showing(comparison)
    columns, widths = _fitting(shown, rows, width)
    apart: list[Column] = []
    if any(column.picture and column not in columns for column in shown):
        columns, widths = _fitting([c for c in shown if not c.picture], rows, width)
        named = [shown[0], *(column for column in shown if column.picture)]
        apart, widths_apart = _fitting(named, rows, width)
    parts = [sentence("!", banner, "bold red", width) for banner in comparison.banners]
    parts.append(wrapped(words.heading(comparison), width, "bold"))
    for name in comparison.sections:
        of_section = comparison.section(name)
        parts.extend([Text(), _title(name, of_section), _table(of_section, columns, widths)])
        if apart:
            parts.extend([Text(), _table(of_section, apart, widths_apart)])
        parts.extend(wrapped(line, width) for row in of_section if (line := words.pass_at_k(row)))
    seen = [*columns, *apart[1:]]
    below = legend(seen, rows)
    left_out = [column.title for column in shown if column not in seen]
    if left_out:
        below += f" Left out for want of width: {', '.join(left_out)}."
    parts.extend([Text(), wrapped(below, width, "dim")])
    if comparison.warnings:
        parts.append(Text())
    parts.extend(sentence("!", warning, "bold yellow", width) for warning in comparison.warnings)
    return Group(*parts)


def _worth_showing(comparison: Comparison) -> list[Column]:
    """Return the columns with something to say, a lossy method's score among the foremost."""
    rows = comparison.rows
    lossy = any(row.method.exactness == "lossy" for row in rows)
    return [
        replace(column, rank=1) if lossy and column.title == "score" else column
        for column in columns_of(comparison)
        if column.says_something(rows)
    ]


def _fitting(
    columns: Sequence[Column], rows: Sequence[ComparisonRow], width: int
) -> tuple[list[Column], dict[str, int]]:
    """Return the columns that fit, and the width of each: the label gives way first."""
    kept = list(columns)
    natural = {
        column.title: max([cell_len(_text(column, row)) for row in rows] + [cell_len(column.title)])
        for column in kept
    }
    label = min(natural["method"], _WIDEST_LABEL)
    while True:
        others = sum(natural[column.title] + GAP for column in kept) - natural["method"] - GAP
        free = width - others - 1
        last = max(kept, key=_rank)
        needed = label if _rank(last) >= _SPARED else min(label, _NARROWEST_LABEL)
        if free >= needed or not _rank(last):
            break
        kept.remove(last)
    natural["method"] = max(min(label, free), min(label, _NARROWEST_LABEL))
    return kept, natural


def _title(name: str, rows: Sequence[ComparisonRow]) -> Text:
    shown = "all tasks" if name == OVERALL else name
    return Text.assemble((shown, "bold cyan"), (f"  {words.measured(rows)}", "dim"))


def _table(
    rows: Sequence[ComparisonRow], columns: Sequence[Column], widths: dict[str, int]
) -> Table:
    table = grid()
    for column in columns:
        table.add_column(
            column.title,
            justify="left" if column.left else "right",
            no_wrap=column.title != "method",
            overflow="fold",
            width=widths[column.title],
        )
    for row in rows:
        style = "dim" if row.is_baseline else ""
        table.add_row(
            *(
                Text(_text(column, row), style=_STYLES.get(column.read(row).tone, ""))
                for column in columns
            ),
            style=style,
        )
    return table


def _text(column: Column, row: ComparisonRow) -> str:
    cell = column.read(row)
    return cell.brief or cell.text


def _rank(column: Column) -> int:
    return column.rank or 0
