"""A long command tells what it is at, and stops at a limit even where nobody looks at a clock."""

from __future__ import annotations

import signal
import time

import pytest

from specbench.runner import patience as module
from specbench.runner.patience import OutOfTime, Patience, ringing


def spin(seconds):
    """Keep the interpreter busy, as a compiler does, and catch what ordinary code catches."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            sum(range(100))
        except Exception:
            raise AssertionError from None


def test_a_busy_command_tells_what_it_is_at(monkeypatch):
    monkeypatch.setattr(module, "RING", 0.02)
    told = []
    patience = Patience(None, told.append)
    with ringing(patience):
        patience.at("compiling")
        spin(0.2)
    assert told and all(line.startswith("still compiling (") for line in told)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_busy_command_is_stopped_at_its_limit():
    patience = Patience(0.001, lambda line: None)
    began = time.monotonic()
    with pytest.raises(OutOfTime), ringing(patience):
        patience.at("compiling")
        spin(20)
    assert time.monotonic() - began < 15 and patience.over


def test_between_two_things_nothing_is_stopped():
    with ringing(Patience(0.001, lambda line: None)):
        spin(0.2)
