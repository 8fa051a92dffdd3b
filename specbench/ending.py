"""Ending in order: signals do what Ctrl-C does, and no child outlives its parent.

What was measured is in the journal, and folders of generated programs are removed on the way out.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable
from types import FrameType

from specbench.errors import Ended

ENDING = frozenset(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""The signals that ask a program to end."""

_PATIENCE = 5.0  # seconds in which an orphan ends by itself


def heed(numbers: Iterable[int] = ENDING - {signal.SIGINT}) -> None:
    """Raise `Ended` in the main thread on the first of these signals, and ignore later ones.

    A closed terminal or a service manager sends several; what ends in order shall not be disturbed.
    A signal that the program was started to ignore (`nohup`) stays ignored.

    Args:
        numbers: The signals; those that end a process by default, or Ctrl-C.
    """
    heeded = [n for n in numbers if signal.getsignal(n) != signal.SIG_IGN]

    def end(number: int, frame: FrameType | None) -> None:
        disregard(heeded)
        raise Ended(number)

    for number in heeded:
        signal.signal(number, end)


def disregard(numbers: Iterable[int] = ENDING) -> None:
    """Let these signals pass without effect from now on.

    The handler does nothing, and is not `SIG_IGN`: Python prints an error for a signal that arrived
    before it was ignored and whose turn comes after.
    """
    for number in numbers:
        signal.signal(number, _nothing)


def _nothing(number: int, frame: FrameType | None) -> None:
    pass


def end_with_parent() -> None:
    """End this process, started by `multiprocessing`, when its parent has ended, however it did.

    A thread sleeps until the system closes the parent's end of a pipe; it takes no time of what is
    measured. The process is then ended like by SIGTERM, and after some seconds at once.
    """
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_outlive, args=(parent.sentinel,), daemon=True).start()


def _outlive(sentinel: int) -> None:
    from multiprocessing.connection import wait

    wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE)
    os._exit(128 + signal.SIGTERM)
