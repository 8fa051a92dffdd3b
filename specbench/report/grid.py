"""The one look of everything in a terminal: tables without a frame, and text of readable width."""

from __future__ import annotations

from rich import box
from rich.console import RenderableType
from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

GAP = 2
"""Spaces between two columns."""

WIDEST_TEXT = 100
"""Columns at which sentences wrap, however wide the terminal is."""


def grid() -> Table:
    """Return an empty table: a rule below the headings and no frame."""
    return Table(
        box=box.SIMPLE_HEAD,
        padding=(0, GAP - 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        header_style="bold",
    )


def wrapped(text: str | Text, width: int, style: str = "") -> RenderableType:
    """Return a text that wraps at the terminal's width, or at `WIDEST_TEXT`."""
    return Constrain(Text(text, style) if isinstance(text, str) else text, min(width, WIDEST_TEXT))


def sentence(mark: str, text: str, style: str, width: int) -> RenderableType:
    """Return a sentence behind a mark of some style."""
    line = Table.grid(padding=(0, 1, 0, 0))
    line.add_row(Text(mark, style=style), Text(text))
    return Constrain(line, min(width, WIDEST_TEXT))
