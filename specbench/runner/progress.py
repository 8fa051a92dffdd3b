"""Progress on a terminal: drawn between measurements, never inside one."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Protocol, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from specbench.report.terminal import Terminal


class Progress(Protocol):
    """What a running job tells of itself, wherever it is shown."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(self, *exception: object) -> None:
        """End it."""

    def say(self, activity: str) -> None:
        """Show what happens beside the measurements."""

    def warn(self, line: str) -> None:
        """Print a warning that stays."""

    def note(self, line: str) -> None:
        """Print a line that stays."""

    def advance(self, measurements: int, tokens: int, seconds: float) -> None:
        """Count finished measurements."""


class JobProgress:
    """A bar with rate and remaining time on a TTY, and lines that stay.

    The bar has no refresh thread: it is drawn when a measurement has ended.

    Args:
        label: What is measured.
        total: Number of measurements.
        done: How many a resumed run already has.
        enabled: Whether to show anything.
    """

    def __init__(self, label: str, total: int, done: int, enabled: bool = True) -> None:
        console = Terminal(stderr=True)
        self._console = console
        self._enabled = enabled
        self._live = enabled and sys.stderr.isatty()
        self._progress = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not self._live,
        )
        self._task = self._progress.add_task(label, total=total, completed=done, rate="")
        self._tokens = 0
        self._seconds = 0.0
        if done:
            self.note(f"{label}: {done:,} of {total:,} measurements are done already")

    def __enter__(self) -> Self:
        """Show the bar."""
        self._progress.start()
        self._progress.refresh()
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the bar."""
        with suppress(OSError):  # the terminal may be gone
            self._progress.stop()

    def say(self, activity: str) -> None:
        """Show what happens before the first measurement."""
        self._progress.update(self._task, rate=activity)
        self._progress.refresh()

    def warn(self, line: str) -> None:
        """Print a line above the bar."""
        self.note(f"warning: {line}")

    def note(self, line: str) -> None:
        """Print a line above the bar."""
        if self._enabled:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def advance(self, measurements: int, tokens: int, seconds: float) -> None:
        """Count finished measurements and draw."""
        self._tokens += tokens
        self._seconds += seconds
        rate = f"{self._tokens / self._seconds:,.0f} tok/s" if self._seconds else ""
        self._progress.update(self._task, advance=measurements, rate=rate)
        self._progress.refresh()
