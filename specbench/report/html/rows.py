"""The page's tables of methods: the headline, every quantity, and values by task."""

from __future__ import annotations

from collections.abc import Sequence

from specbench.compare.comparison import Comparison, ComparisonRow
from specbench.report import words
from specbench.report.columns import COLUMNS, SPEEDUP, Cell, Column, Where, columns_of
from specbench.report.figures import class_of, section_name
from specbench.report.html.tables import Line, Table


def headline(comparison: Comparison) -> Table:
    """Return the table that a page begins with: what one looks for first."""
    caption = "All tasks together, fastest first; a click on a heading sorts."
    return _table(caption, comparison.rows, columns_of(comparison, Where.PAGE))


def quantities(comparison: Comparison) -> Table:
    """Return every further quantity of every arm."""
    shown = columns_of(comparison, Where.PAGE)
    columns = [shown[0], *(column for column in COLUMNS if column not in shown)]
    return _table("Further quantities of every arm", comparison.rows, columns)


def breakdown(comparison: Comparison) -> tuple[Table, ...]:
    """Return one table for each of the main values, a column for each section."""
    shown = {column.title: column for column in columns_of(comparison, Where.PAGE)}
    speedup = Column("speedup", _brief_speedup)
    tables = [_by_section("Speedup end to end, with its verdict", comparison, speedup)]
    if "MAL" in shown:
        tables.append(_by_section("Mean acceptance length", comparison, shown["MAL"]))
    if shown["score"].says_something(comparison.rows):
        caption = "Score (difference to the baseline)"
        tables.append(_by_section(caption, comparison, shown["score"]))
    for column in shown.values():
        if column.picture:
            title = f"{column.title} (difference to the baseline, or floor)"
            tables.append(_by_section(title, comparison, column))
    return tuple(tables)


def _table(caption: str, rows: Sequence[ComparisonRow], columns: Sequence[Column]) -> Table:
    """Return a table of rows, without the columns that say nothing."""
    kept = [column for column in columns if column.says_something(rows)]
    lines = tuple(
        Line(tuple(column.read(row) for column in kept), row.label, class_of(row), row.is_baseline)
        for row in rows
    )
    return Table.of(caption, [(c.title, c.tip or c.meaning) for c in kept], lines)


def _by_section(caption: str, comparison: Comparison, column: Column) -> Table:
    found = {(row.section, row.label): row for row in comparison.rows}
    sections = comparison.sections
    known = {row.label: row for row in [*comparison.section(sections[-1]), *comparison.rows]}
    lines = []
    for label, row in known.items():
        cells = [
            column.read(found[name, label]) if (name, label) in found else Cell(words.NOTHING)
            for name in sections
        ]
        lines.append(Line((Cell(label), *cells), label, class_of(row), row.is_baseline))
    heads = ["method", *(section_name(name, sections) for name in sections)]
    return Table.of(caption, heads, lines)


def _brief_speedup(row: ComparisonRow) -> Cell:
    """Return a speedup with the mark of its verdict; its interval is the longer form."""
    cell, found = SPEEDUP.read(row), row.speedup_e2e
    if found is None:
        return cell
    more = f"{cell.text}, {found.verdict}, floor {words.floor(found)}"
    return cell._replace(text=f"{found.value:.2f}x {words.mark(found)}", more=more)
