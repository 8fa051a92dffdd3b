"""The one door to a terminal: no text of a file or a user gives it orders."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from specbench.errors import printable


class Terminal(Console):
    """A console that shows control characters instead of sending them.

    Escape sequences could set a window's title, clear what stands above, or make a link. Colours
    and cursor movements are the console's own and stand apart from texts.
    """

    def __init__(self, **options: Any) -> None:
        """Make a console that reads no text as markup or emoji."""
        super().__init__(**{"markup": False, "highlight": False, "emoji": False, **options})

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render as a console does, every text printable."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)
