"""How far a training is: a bar with the time that is left on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from specbench.report.terminal import Terminal

_LINE_EVERY = 30.0
"""Seconds between two lines where there is no terminal."""


class Told:
    """What a training tells of itself on stderr.

    Args:
        enabled: Whether anything is shown.
    """

    def __init__(self, enabled: bool) -> None:
        self._console = Terminal(stderr=True)
        self._enabled = enabled
        live = enabled and sys.stderr.isatty()
        self._live = live
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not live,
        )
        self._task = self._bar.add_task("", total=None, loss="")
        self._said = time.monotonic()
        self._what, self._total = "", 0
        self._begun, self._first = time.monotonic(), 0

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove it."""
        with suppress(OSError):  # the terminal may be gone
            self._bar.stop()

    def note(self, line: str) -> None:
        """Print a line that stays."""
        if self._enabled:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def about(self, what: str, done: int, total: int) -> None:
        """Show what is done before the first step."""
        self._move(what, done, total, "")

    def begin(self, what: str, done: int, total: int) -> None:
        """Begin the steps of a recipe."""
        self._what, self._total = what, total
        self._begun, self._first = time.monotonic(), done
        self._bar.reset(self._task, total=total, completed=done, description=what)
        if done == total:
            self.note(f"{what}: all {total:,} steps are done already")
        elif done:
            self.note(f"{what}: going on after step {done:,} of {total:,}")

    def step(self, done: int, loss: float) -> None:
        """Count a step."""
        self._move(self._what, done, self._total, f"loss {loss:.4f}")

    def check(self, step: int, sampled: Sequence[float], greedy: Sequence[float]) -> None:
        """Say how often held-out drafts would be accepted, depth by depth."""
        words = [" ".join(f"{share:.3f}" for share in shares) for shares in (sampled, greedy)]
        self.note(
            f"{self._what} step {step:,}/{self._total:,}: acceptance on held-out prompts "
            f"{words[0]} sampled, {words[1]} greedy"
        )

    def _move(self, what: str, done: int, total: int, loss: str) -> None:
        self._bar.update(self._task, description=what, completed=done, total=total, loss=loss)
        now = time.monotonic()
        if not self._live and (now - self._said >= _LINE_EVERY or (done == total and not loss)):
            self._said = now
            parts = [f"{what} {done:,}/{total:,}", loss]
            if loss and done > self._first:
                left = (now - self._begun) / (done - self._first) * (total - done) / 60
                parts.append(f"{left:.0f} min left")
            self.note("  ".join(filter(None, parts)))
