"""Clocks that split a generation into draft, target, sampling and host time.

A decoder calls `lap(segment)` where one kind of work ends and the next begins: the time since the
last lap belongs to the segment that just ended. `mark()` closes a round; the first round of a
generation is its prefill. On a CUDA device laps are events that nobody waits for. On a CPU there
is one time line, and what is neither draft nor target is the host's: `Segment.SAMPLING` counts as
host there, and a round's `sampling` is None.
"""

from __future__ import annotations

import time
from enum import IntEnum
from typing import NamedTuple, Protocol

import torch


class Segment(IntEnum):
    """What the time before a lap was spent on.

    DRAFT: proposing tokens. TARGET: the target's forwards. SAMPLING: what follows them on the
    device, such as drawing, verification and acceptance. HOST: what a device does not do.
    """

    DRAFT = 0
    TARGET = 1
    HOST = 2
    SAMPLING = 3


class Split(NamedTuple):
    """Nanoseconds of one round by kind of work.

    Attributes:
        draft: In the drafter.
        target: In the target's forwards.
        host: In everything else.
        sampling: On the device between the target and the end of the round; None where the host
            computes and `host` holds it.
        further: In the forwards of models of another role, by its name.
    """

    draft: int
    target: int
    host: int
    sampling: int | None = None
    further: tuple[tuple[str, int], ...] = ()


class Clock(Protocol):
    """Times one generation at a time."""

    def start(self) -> None:
        """Begin a generation."""

    def launch(self) -> None:
        """Say that work for a device is about to be enqueued.

        Where the device has run out of work, the time since the last lap was the host's. Said by
        whoever knows the moment, such as a model before it replays a captured graph.
        """

    def lap(self, segment: Segment | str) -> None:
        """Give the time since the last lap to `segment`, or to a role of another name."""

    def seal(self) -> None:
        """Say that later laps belong to the next round, although this one is not closed yet.

        For work that is enqueued before the host has learned what the open round emitted.
        """

    def mark(self) -> None:
        """Close a round: the laps since the last one belong to it."""

    def stop(self) -> None:
        """End the generation; waits for the device."""

    @property
    def rounds(self) -> list[Split]:
        """The times of every closed round, until the next start."""

    @property
    def ends_ns(self) -> list[int]:
        """Wall time from start to each mark, nanoseconds."""

    @property
    def total_ns(self) -> int:
        """Wall time from start to stop, nanoseconds."""

    @property
    def device_ns(self) -> int | None:
        """Device time from start to stop, or None where there is no device clock."""


class CpuClock:
    """Wall clock of the host, for models that run on the CPU."""

    def start(self) -> None:
        """Begin a generation."""
        self.rounds: list[Split] = []
        self.ends_ns: list[int] = []
        self.total_ns = 0
        self._segments = [0, 0, 0, 0]
        self._further: dict[str, int] = {}
        self._began = self._last = self._now()

    def launch(self) -> None:
        """Nothing: work is done when it is asked for."""

    def lap(self, segment: Segment | str) -> None:
        """Give the time since the last lap to `segment`; sampling is the host's."""
        now = self._now()
        if isinstance(segment, str):
            self._further[segment] = self._further.get(segment, 0) + now - self._last
        else:
            self._segments[segment] += now - self._last
        self._last = now

    def seal(self) -> None:
        """Nothing: no work runs ahead of the host."""

    def mark(self) -> None:
        """Close a round; time since the last lap goes to the host."""
        now = self._now()
        draft, target, host, sampling = self._segments
        further, host = tuple(self._further.items()), host + sampling + now - self._last
        self.rounds.append(Split(draft, target, host, None, further))
        self.ends_ns.append(now - self._began)
        self._segments = [0, 0, 0, 0]
        self._further = {}
        self._last = now

    def stop(self) -> None:
        """End the generation."""
        self.total_ns = self._now() - self._began

    def _now(self) -> int:
        return time.perf_counter_ns()

    @property
    def device_ns(self) -> int | None:
        """None: the host's clock is the only one."""
        return None


class Cuda:
    """What a `CudaClock` asks of CUDA; tests put a simulated device in its place."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def stream(self) -> torch.cuda.Stream:
        """The device's current stream."""
        return torch.cuda.current_stream(self._device)

    def synchronize(self) -> None:
        """Wait for the device."""
        torch.cuda.synchronize(self._device)

    def event(self) -> torch.cuda.Event:
        """A new event with a time."""
        return torch.cuda.Event(enable_timing=True)

    def capturing(self) -> bool:
        """Whether work is being captured into a graph, when a stream must not be asked."""
        return bool(torch.cuda.is_current_stream_capturing())

    def now(self) -> int:
        """The host's monotonic clock."""
        return time.perf_counter_ns()


_ON_DEVICE = (Segment.DRAFT, Segment.TARGET, Segment.SAMPLING)

POOL = 1024
"""Events that a clock holds at first: some three hundred rounds of plain decoding."""


class CudaClock:
    """CUDA events for device time beside the host's wall clock.

    Every lap is an event on the stream that was current at the start. The time from one event to
    the next is the device's: the work enqueued between them, and its waiting for more inside of
    it, such as the gaps between the kernels of an eager forward. Nothing waits between start and
    stop, and events are read after it.

    Whose is what follows the last lap of a round? Where `Segment.SAMPLING` was lapped, the device
    had no more to do for the round, and the rest (waiting for the transfer of its result, reading
    it, bookkeeping) is the host's; otherwise the rest is sampling, that waiting included. A loop
    therefore laps sampling behind the transfer that it enqueued and before it waits for it.
    Transfers to the device are part of the segment in which they are enqueued.

    A round's `host` is its wall time less its device time (draft, target and sampling). Where
    work runs ahead of the host, a round can hold more device time than wall time; the difference
    is taken from the host's time of the rounds after it, so that sums are right.

    Args:
        device: The CUDA device to time.
        cuda: How to reach it; None means through torch.
    """

    def __init__(self, device: torch.device, cuda: Cuda | None = None) -> None:
        self._cuda = Cuda(device) if cuda is None else cuda
        self._pool: list[torch.cuda.Event] = []
        self._ended: list[Segment | str] = []
        self._sealed: list[int] = []
        self._rounds: list[Split] | None = None

    def start(self) -> None:
        """Begin a generation after the device has finished all earlier work."""
        self._stream = self._cuda.stream()
        self._fill_pool()
        self._ended = []
        self._sealed = []
        self.ends_ns: list[int] = []
        self.total_ns = 0
        self._rounds = None
        self._sampled = False
        self._cuda.synchronize()
        self._record(Segment.HOST)
        self._lapped = True
        self._began = self._cuda.now()

    def launch(self) -> None:
        """Give the time since the last lap to the host if the device has run out of work.

        Only the first call after a lap or a mark counts: what later calls could add lies between
        pieces of one segment. The stream is asked, not waited for.
        """
        if self._lapped:
            self._lapped = False
            if not self._cuda.capturing() and self._stream.query():
                self._record(Segment.HOST)

    def lap(self, segment: Segment | str) -> None:
        """Give the device time since the last lap to `segment`."""
        self._record(segment)
        self._lapped = True
        self._sampled = segment == Segment.SAMPLING

    def seal(self) -> None:
        """Let later laps belong to the next round; its mark comes in its turn."""
        if not self._sampled:
            self.lap(Segment.SAMPLING)
        self._sampled = False
        self._sealed.append(len(self._ended))

    def mark(self) -> None:
        """Close the oldest open round."""
        self.ends_ns.append(self._cuda.now() - self._began)
        if len(self._sealed) < len(self.ends_ns):
            self._record(Segment.HOST if self._sampled else Segment.SAMPLING)
            self._sealed.append(len(self._ended))
            self._lapped = True
            self._sampled = False

    def stop(self) -> None:
        """End the generation after the device has finished."""
        self._record(Segment.HOST)
        self._cuda.synchronize()
        self.total_ns = self._cuda.now() - self._began

    def _record(self, segment: Segment | str) -> None:
        """Record the next event of the pool as the end of a segment."""
        place = len(self._ended)
        if place == len(self._pool):
            self._pool.append(self._cuda.event())
        self._pool[place].record(self._stream)
        self._ended.append(segment)

    def _fill_pool(self) -> None:
        """Make events before they are needed: one comes to be when it is first recorded."""
        size = max(POOL, 2 * len(self._ended))
        while len(self._pool) < size:
            event = self._cuda.event()
            event.record(self._stream)
            self._pool.append(event)

    @property
    def rounds(self) -> list[Split]:
        """The times of every closed round; events are read at the first call after `stop`."""
        if self._rounds is None:
            self._rounds = self._split()
        return self._rounds

    def _split(self) -> list[Split]:
        rounds: list[Split] = []
        place, wall_before, lent = 1, 0, 0
        for end, wall in zip(self._sealed, self.ends_ns, strict=False):
            spent: dict[Segment | str, int] = dict.fromkeys(Segment, 0)
            for number in range(place, end):
                whose = self._ended[number]
                spent[whose] = spent.get(whose, 0) + self._elapsed(number - 1, number)
            del spent[Segment.HOST]
            host = wall - wall_before - sum(spent.values()) + lent
            lent = min(host, 0)
            draft, target, sampling = (spent.pop(each) for each in _ON_DEVICE)
            further = tuple((str(role), time) for role, time in spent.items())
            rounds.append(Split(draft, target, max(host, 0), sampling, further))
            place, wall_before = end, wall
        return rounds

    def _elapsed(self, before: int, after: int) -> int:
        milliseconds: float = self._pool[before].elapsed_time(self._pool[after])
        return round(milliseconds * 1e6)

    @property
    def device_ns(self) -> int | None:
        """Device time from start to stop, waiting for work included, nanoseconds."""
        return self._elapsed(0, len(self._ended) - 1)


def clock_for(device: torch.device) -> Clock:
    """Return the clock that fits a device."""
    return CudaClock(device) if device.type == "cuda" else CpuClock()
