"""Tables as plain values: a template draws them, a script sorts and filters them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from specbench.report.columns import Cell


class Head(NamedTuple):
    """The head of one column.

    Attributes:
        title: Its heading.
        numeric: Whether its cells stand flush right.
        meaning: One sentence; empty for none.
    """

    title: str
    numeric: bool
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
    columns: tuple[Head, ...]
    lines: tuple[Line, ...]
    sortable: bool = True

    @classmethod
    def of(
        cls, caption: str, heads: Iterable[str | tuple[str, str]], lines: Iterable[Line]
    ) -> Table:
        """Return a table; columns with a number in any cell stand flush right.

        Args:
            caption: What it shows.
            heads: The columns' headings, or headings with their meanings.
            lines: Its lines.
        """
        known = tuple(lines)
        columns = []
        for place, head in enumerate(heads):
            title, meaning = (head, "") if isinstance(head, str) else head
            numeric = any(line.cells[place].value is not None for line in known)
            columns.append(Head(title, numeric, meaning))
        return cls(caption, tuple(columns), known)
