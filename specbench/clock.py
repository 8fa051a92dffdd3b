"""Clocks that split a generation into draft, target and host time.

A decoder calls `lap(segment)` where one kind of work ends and the next begins: the time since
the last lap belongs to the segment that just ended. On a CUDA device a lap records an event and
never waits for one; the events are resolved after the generation. The host's wall clock runs
beside it, and their difference is the host's own share.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from enum import IntEnum
from typing import Protocol

import torch


class Segment(IntEnum):
    """What the time before a lap was spent on."""

    DRAFT = 0
    TARGET = 1
    HOST = 2


class Clock(Protocol):
    """Times one generation at a time."""

    def start(self) -> None:
        """Begin a generation."""

    def lap(self, segment: Segment) -> None:
        """Give the time since the last lap to `segment`."""

    def mark(self) -> None:
        """Close a round: the laps since the last mark belong to it."""

    def stop(self) -> None:
        """End the generation; waits for the device."""

    @property
    def rounds(self) -> list[tuple[int, int, int]]:
        """Nanoseconds (draft, target, host) of every closed round."""

    @property
    def total_ns(self) -> int:
        """Wall time from start to stop."""

    @property
    def ends_ns(self) -> list[int]:
        """Wall time from start to each mark."""

    @property
    def device_ns(self) -> int | None:
        """Device time from start to stop, or None where there is no device clock."""


class CpuClock:
    """Wall clock of the host, for models that run on the CPU."""

    def __init__(self) -> None:
        self._rounds: list[tuple[int, int, int]] = []
        self._ends: list[int] = []

    def start(self) -> None:
        """Begin a generation."""
        self._rounds = []
        self._ends = []
        self._segments = [0, 0, 0]
        self._total = 0
        self._began = self._last = self._now()

    def lap(self, segment: Segment) -> None:
        """Give the time since the last lap to `segment`."""
        now = self._now()
        self._segments[segment] += now - self._last
        self._last = now

    def mark(self) -> None:
        """Close a round; time since the last lap goes to the host."""
        now = self._now()
        draft, target, host = self._segments
        self._rounds.append((draft, target, host + now - self._last))
        self._ends.append(now - self._began)
        self._segments = [0, 0, 0]
        self._last = now

    def stop(self) -> None:
        """End the generation."""
        self._total = self._now() - self._began

    def _now(self) -> int:
        return time.perf_counter_ns()

    @property
    def rounds(self) -> list[tuple[int, int, int]]:
        """Nanoseconds (draft, target, host) of every closed round."""
        return self._rounds

    @property
    def ends_ns(self) -> list[int]:
        """Wall time from start to each mark, nanoseconds."""
        return self._ends

    @property
    def total_ns(self) -> int:
        """Wall time from start to stop, nanoseconds."""
        return self._total

    @property
    def device_ns(self) -> int | None:
        """None: the host's clock is the only one."""
        return None


class FakeClock(CpuClock):
    """A clock whose time is given, so that tests take none.

    Args:
        ticks: Nanosecond readings, one for each time the clock is read.
    """

    def __init__(self, ticks: Iterator[int]) -> None:
        super().__init__()
        self._ticks = ticks

    def _now(self) -> int:
        return next(self._ticks)


class CudaClock:
    """CUDA events for device time beside the host's wall clock.

    Laps are recorded as events on the current stream, so that a segment is charged with the
    device time of the work that was enqueued in it. `host` is wall time minus device time of
    the round, never below zero.

    Args:
        device: The CUDA device to time.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def start(self) -> None:
        """Begin a generation after the device has finished all earlier work."""
        torch.cuda.synchronize(self._device)
        self._events: list[tuple[Segment | None, torch.cuda.Event]] = []
        self._walls: list[int] = []
        self._total = 0
        self._record(None)
        self._began = time.perf_counter_ns()

    def lap(self, segment: Segment) -> None:
        """Give the device time since the last lap to `segment`."""
        self._record(segment)

    def mark(self) -> None:
        """Close a round."""
        self._walls.append(time.perf_counter_ns() - self._began)
        self._events.append((None, self._events[-1][1]))

    def stop(self) -> None:
        """End the generation after the device has finished."""
        self._record(Segment.HOST)
        torch.cuda.synchronize(self._device)
        self._total = time.perf_counter_ns() - self._began

    def _record(self, segment: Segment | None) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        self._events.append((segment, event))

    @property
    def rounds(self) -> list[tuple[int, int, int]]:
        """Nanoseconds (draft, target, host) of every closed round."""
        result: list[tuple[int, int, int]] = []
        segments = [0, 0, 0]
        before, wall_before = self._events[0][1], 0
        for segment, event in self._events[1:]:
            if segment is None:
                wall = self._walls[len(result)]
                device = segments[Segment.DRAFT] + segments[Segment.TARGET]
                host = max(wall - wall_before - device, 0)
                result.append((segments[Segment.DRAFT], segments[Segment.TARGET], host))
                segments, wall_before = [0, 0, 0], wall
                continue
            segments[segment] += int(before.elapsed_time(event) * 1e6)
            before = event
        return result

    @property
    def ends_ns(self) -> list[int]:
        """Wall time from start to each mark, nanoseconds."""
        return self._walls

    @property
    def total_ns(self) -> int:
        """Wall time from start to stop, nanoseconds."""
        return self._total

    @property
    def device_ns(self) -> int | None:
        """Device time from start to stop, nanoseconds."""
        return int(self._events[0][1].elapsed_time(self._events[-1][1]) * 1e6)


def clock_for(device: torch.device) -> Clock:
    """Return the clock that fits a device."""
    return CudaClock(device) if device.type == "cuda" else CpuClock()
