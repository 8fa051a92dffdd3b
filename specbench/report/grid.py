"""The one look of every table in a terminal: a rule below the headings and no frame."""

from __future__ import annotations

from rich import box
from rich.table import Table

GAP = 2
"""Spaces between two columns."""


def grid() -> Table:
    """Return an empty table."""
    return Table(
        box=box.SIMPLE_HEAD,
        padding=(0, GAP - 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        header_style="bold",
    )
