"""A long command tells what it is at, and stops at a limit.

An alarm of the operating system rings in the main thread, between two steps of the interpreter:
nothing runs beside what is timed, and a compiler that is busy for minutes is reached all the same.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

RING = 30.0
"""Seconds between two signs of life."""


class OutOfTime(BaseException):
    """The limit of a command was reached; no handler of ordinary errors takes it for one."""


class Patience:
    """What a command is at, and how long it may go on.

    Args:
        minutes: The limit; None for none.
        tell: Told every half a minute what the command is still at.
    """

    def __init__(self, minutes: float | None, tell: Callable[[str], None]) -> None:
        self.minutes = minutes
        self.activity = ""
        self._tell = tell
        self._began = self._since = time.monotonic()

    def at(self, activity: str) -> None:
        """Note what begins now."""
        self.activity = activity
        self._since = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether the limit is reached."""
        return self.minutes is not None and time.monotonic() - self._began >= 60 * self.minutes

    def ring(self) -> None:
        """Tell what the command is still at; nothing where it is between two things.

        Raises:
            OutOfTime: If the limit is reached.
        """
        if self.activity:
            if self.over:
                raise OutOfTime
            seconds = time.monotonic() - self._since
            self._tell(f"still {self.activity} ({seconds:.0f} s)")


@contextmanager
def ringing(patience: Patience) -> Iterator[None]:
    """Ring every half a minute and at the limit, in the main thread of a POSIX system."""
    able = hasattr(signal, "setitimer")
    if not able or threading.current_thread() is not threading.main_thread():
        yield
        return
    every = RING if patience.minutes is None else min(RING, max(0.01, 60 * patience.minutes))
    before = signal.signal(signal.SIGALRM, lambda number, frame: patience.ring())
    signal.setitimer(signal.ITIMER_REAL, every, every)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
