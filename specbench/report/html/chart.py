"""A chart of the page: its drawings, what they say in words, and its numbers as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from specbench.report.html.tables import Table

WIDTH = 860.0
"""Width in pixels of a chart that stands alone."""


class Panel(NamedTuple):
    """One drawing.

    Attributes:
        drawing: The SVG element.
        label: The method that the page's filter knows it by; empty: always shown.
        exactness: That method's class.
    """

    drawing: Markup
    label: str = ""
    exactness: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart, or a group of small ones.

    Attributes:
        key: Id on the page.
        title: What it shows.
        note: How it is to be read, a sentence or two.
        panels: Its drawings; several are small multiples.
        table: The same as numbers; None where the page holds them elsewhere.
        keys: Names of what the colours or shapes mean, each with its class of the style sheet.
    """

    key: str
    title: str
    note: str
    panels: tuple[Panel, ...]
    table: Table | None = None
    keys: tuple[tuple[str, str], ...] = ()
