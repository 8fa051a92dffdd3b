"""The comparison in a terminal: as many columns as fit, the most telling ones first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from specbench.compare.comparison import BETTER, OVERALL, WORSE, Comparison, ComparisonRow
from specbench.report import words
from specbench.report.grid import GAP, grid

WIDEST_TEXT = 100
"""Columns at which sentences wrap, however wide the terminal is."""

_NARROWEST_LABEL = 16
_WIDEST_LABEL = 40
_SPARED = 8  # columns from this rank on are left out rather than that a label is broken


class _Column(NamedTuple):
    """One column: the higher its rank, the earlier it is left out where the width is short."""

    title: str
    read: Callable[[ComparisonRow], str]
    rank: int
    left: bool = False
    metric: bool = False


_COLUMNS = (
    _Column("method", lambda row: row.label, 0, left=True),
    _Column("class", lambda row: row.method.exactness, 0, left=True),
    _Column("n", lambda row: str(row.samples), 1),
    _Column("speedup", lambda row: _marked(row), 0, left=True),
    _Column("floor", lambda row: words.floor(row.speedup_e2e), 1),
    _Column("NFE", lambda row: words.number(row.quantities.nfe, 1), 2),
    _Column("tok/NFE", lambda row: words.number(row.quantities.step_compression), 2),
    _Column("MAL", lambda row: words.number(row.quantities.mal), 2),
    _Column("tok/s", lambda row: words.rate(row.quantities.tokens_per_second_decode), 3),
    _Column("TTFT", lambda row: words.milliseconds(row.quantities.ttft_ms), 7),
    _Column("score", words.score, 4, left=True),
    _Column("fidelity", words.fidelity, 5),
    _Column("accept", lambda row: words.percent(row.quantities.acceptance_rate), 8),
    _Column("node", words.node_acceptance, 8),
    _Column("decode", lambda row: words.speedup(row, row.speedup_decode), 9, left=True),
    _Column("mean tok/s", lambda row: words.estimate(row.speedup_mean_rate), 1, left=True),
    _Column("pooled tok/s", lambda row: words.estimate(row.speedup_pooled_rate), 1, left=True),
    _Column("detectable", lambda row: words.detectable(row.speedup_e2e), 9),
    _Column("predicted", lambda row: words.ratio(row.predicted_speedup), 10),
    _Column("host", lambda row: words.percent(row.quantities.host_share), 11),
    _Column("failed", lambda row: str(row.failed), 6),
)


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
    shown = _worth_showing(comparison)
    columns, widths = _fitting(shown, comparison.rows, width)
    metrics = [column for column in shown if column.metric]
    apart: list[_Column] = []
    if any(column not in columns for column in metrics):
        columns, widths = _fitting([c for c in shown if not c.metric], comparison.rows, width)
        apart, widths_apart = _fitting([shown[0], *metrics], comparison.rows, width)
    parts = [_sentence(banner, "bold red", width) for banner in comparison.banners]
    parts.append(_wrapped(Text(words.heading(comparison), style="bold"), width))
    for name in comparison.sections:
        rows = comparison.section(name)
        parts.extend([Text(), _title(name, rows), _table(rows, columns, widths)])
        if apart:
            parts.extend([Text(), _table(rows, apart, widths_apart)])
        parts.extend(_wrapped(Text(line), width) for row in rows if (line := words.pass_at_k(row)))
    below = ["pass@k"] if any(row.pass_at_k for row in comparison.rows) else []
    seen = [*columns, *apart[1:]]
    legend = words.legend([*(column.title for column in seen), *below], comparison.rows)
    left_out = [column.title for column in shown if column not in seen]
    if left_out:
        legend += f" Left out for want of width: {', '.join(left_out)}."
    parts.extend([Text(), _wrapped(Text(legend, style="dim"), width)])
    if comparison.warnings:
        parts.append(Text())
    parts.extend(_sentence(warning, "bold yellow", width) for warning in comparison.warnings)
    return Group(*parts)


def _worth_showing(comparison: Comparison) -> list[_Column]:
    """Return the columns with something to say, a lossy method's score among the foremost."""
    rows = comparison.rows
    lossy = any(row.method.exactness == "lossy" for row in rows)
    columns = []
    for column in _possible(comparison):
        silent = ("0", words.NOTHING) if column.title == "failed" else (words.NOTHING,)
        if all(column.read(row) in silent for row in rows):
            continue
        columns.append(column._replace(rank=1) if lossy and column.title == "score" else column)
    return columns


def _possible(comparison: Comparison) -> list[_Column]:
    """Return all columns for what the models generate, metrics of pictures after the ratios."""
    left_out = words.left_out(comparison.setting)
    columns = [column for column in _COLUMNS if column.title not in left_out]
    place = [column.title for column in columns].index("score")
    metrics = [_metric(name) for name in words.metrics_of(comparison.rows)]
    return [*columns[:place], *metrics, *columns[place:]]


def _metric(name: str) -> _Column:
    return _Column(name, lambda row: words.metric(row, name), 3, left=True, metric=True)


def _fitting(
    columns: Sequence[_Column], rows: Sequence[ComparisonRow], width: int
) -> tuple[list[_Column], dict[str, int]]:
    """Return the columns that fit, and the width of each: the label gives way first."""
    kept = list(columns)
    natural = {
        column.title: max([cell_len(column.read(row)) for row in rows] + [cell_len(column.title)])
        for column in kept
    }
    label = min(natural["method"], _WIDEST_LABEL)
    while True:
        others = sum(natural[column.title] + GAP for column in kept) - natural["method"] - GAP
        free = width - others - 1
        last = max(kept, key=lambda column: column.rank)
        needed = label if last.rank >= _SPARED else min(label, _NARROWEST_LABEL)
        if free >= needed or not last.rank:
            break
        kept.remove(last)
    natural["method"] = max(min(label, free), min(label, _NARROWEST_LABEL))
    return kept, natural


def _title(name: str, rows: Sequence[ComparisonRow]) -> Text:
    shown = "all tasks" if name == OVERALL else name
    return Text.assemble((shown, "bold cyan"), (f"  {words.measured(rows)}", "dim"))


def _table(
    rows: Sequence[ComparisonRow], columns: Sequence[_Column], widths: dict[str, int]
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
            *(Text(column.read(row), style=_cell_style(column, row)) for column in columns),
            style=style,
        )
    return table


def _marked(row: ComparisonRow) -> str:
    return f"{words.mark(row.speedup_e2e)} {words.speedup(row, row.speedup_e2e)}"


def _cell_style(column: _Column, row: ComparisonRow) -> str:
    if column.title == "speedup" and row.speedup_e2e is not None:
        return {BETTER: "bold green", WORSE: "bold red"}.get(row.speedup_e2e.verdict, "")
    if column.title == "class" and row.method.exactness == "lossy":
        return "yellow"
    if column.title == "failed" and row.failed:
        return "bold red"
    if column.title == "fidelity" and words.breaks_its_claim(row):
        return "bold red"
    return ""


def _sentence(text: str, style: str, width: int) -> RenderableType:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(Text("!", style=style), Text(text))
    return Constrain(grid, min(width, WIDEST_TEXT))


def _wrapped(text: Text, width: int) -> RenderableType:
    return Constrain(text, min(width, WIDEST_TEXT))
