"""Tables as plain values: a template draws them, a script sorts and filters them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from specbench.compare.comparison import ComparisonRow
from specbench.report.figures import class_of


class Cell(NamedTuple):
    """One cell.

    Attributes:
        text: What it shows.
        sort: The number by which its column is sorted; None sorts by the text.
        style: Class of the style sheet; empty for none.
        title: A longer form of the text; empty for none.
    """

    text: str
    sort: float | None = None
    style: str = ""
    title: str = ""


class Column(NamedTuple):
    """One column.

    Attributes:
        title: Its heading.
        numeric: Whether its cells stand flush right.
        meaning: One sentence; empty for none.
    """

    title: str
    numeric: bool = True
    meaning: str = ""


class Line(NamedTuple):
    """One line of a table.

    Attributes:
        cells: A cell for each column; the first one is the line's heading.
        label: The method that the page's filter knows the line by; empty: always shown.
        exactness: That method's class.
        is_baseline: Whether the line is plain decoding.
    """

    cells: tuple[Cell, ...]
    label: str = ""
    exactness: str = ""
    is_baseline: bool = False


@dataclass(frozen=True)
class Table:
    """A table with its caption.

    Attributes:
        caption: What it shows.
        columns: Its columns; the first names the lines.
        lines: Its lines.
        sortable: Whether a click on a heading may order the lines anew.
    """

    caption: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    sortable: bool = True


Reader = Callable[[ComparisonRow], Cell]


def table_of(
    caption: str, rows: Iterable[ComparisonRow], columns: Sequence[tuple[Column, Reader]]
) -> Table:
    """Return a table of a comparison's rows, without the columns that say nothing.

    Args:
        caption: What it shows.
        rows: The rows.
        columns: Each column with what reads its cell from a row.
    """
    known = list(rows)
    cells = [[read(row) for row in known] for _, read in columns]
    kept = [
        place
        for place, column in enumerate(cells)
        if place == 0 or any(cell.text not in ("", "–") for cell in column)
    ]
    lines = tuple(
        Line(
            tuple(cells[place][index] for place in kept),
            row.label,
            class_of(row),
            row.is_baseline,
        )
        for index, row in enumerate(known)
    )
    return Table(caption, tuple(columns[place][0] for place in kept), lines)
