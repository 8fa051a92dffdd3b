"""Times of pieces of device work, taken in turns.

On CUDA a piece is timed by two events, so that neither starting nor reading them is part of it;
on a CPU by the host's clock. Pieces that are compared take turns, and every second round runs
backwards (ABBA), so that a device that warms up or slows down favours none of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch

Key = TypeVar("Key", bound=Hashable)
Work = Callable[[], object]


class Spread(NamedTuple):
    """A median and the quartiles around it.

    Attributes:
        median: Half of the values lie below.
        low: A quarter of the values lie below.
        high: A quarter of the values lie above.
        values: How many values there are.
    """

    median: float
    low: float
    high: float
    values: int

    def scaled(self, factor: float) -> Spread:
        """Return the values multiplied by a positive number."""
        return Spread(self.median * factor, self.low * factor, self.high * factor, self.values)

    def inverse(self, numerator: float) -> Spread:
        """Return a number over the values, such as rates from times."""
        return Spread(
            numerator / self.median, numerator / self.high, numerator / self.low, self.values
        )


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles of some values."""
    low, median, high = (float(each) for each in np.quantile(values, (0.25, 0.5, 0.75)))
    return Spread(median, low, high, len(values))


class Stopwatch(Protocol):
    """Times work on one device."""

    def seconds(self, work: Work, times: int = 1) -> float:
        """Do some work `times` times in a row; return the seconds of one."""


class HostStopwatch:
    """The host's clock, for work that is done when it returns."""

    def seconds(self, work: Work, times: int = 1) -> float:
        """Do some work `times` times in a row; return the seconds of one."""
        begun = time.perf_counter_ns()
        for _ in range(times):
            work()
        return (time.perf_counter_ns() - begun) / times * 1e-9


class CudaStopwatch:
    """Two events around the work; the device is idle before."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)

    def seconds(self, work: Work, times: int = 1) -> float:
        """Do some work `times` times in a row; return the seconds of one."""
        torch.cuda.synchronize(self._device)
        stream = torch.cuda.current_stream(self._device)
        self._begin.record(stream)
        for _ in range(times):
            work()
        self._end.record(stream)
        self._end.synchronize()
        return float(self._begin.elapsed_time(self._end)) / times * 1e-3


def stopwatch(device: torch.device) -> Stopwatch:
    """Return the stopwatch that fits a device."""
    return CudaStopwatch(device) if device.type == "cuda" else HostStopwatch()


def in_turns(measures: Mapping[Key, Callable[[], float]], rounds: int) -> dict[Key, list[float]]:
    """Take every measure once a round, the order flipped in every second round.

    Returns:
        The values of each in the order of the rounds.
    """
    values: dict[Key, list[float]] = {key: [] for key in measures}
    keys = list(measures)
    for number in range(rounds):
        for key in reversed(keys) if number % 2 else keys:
            values[key].append(measures[key]())
    return values
