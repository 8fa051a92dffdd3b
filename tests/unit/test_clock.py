"""Clocks give every nanosecond to one segment of one round."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch

from specbench.clock import POOL, CpuClock, CudaClock, Segment, Split, clock_for

DRAFT, TARGET, HOST, SAMPLING = Segment.DRAFT, Segment.TARGET, Segment.HOST, Segment.SAMPLING


class FakeClock(CpuClock):
    """A clock whose readings are given, so that tests take no time."""

    def __init__(self, ticks: Iterator[int]) -> None:
        super().__init__()
        self._ticks = ticks

    def _now(self) -> int:
        return next(self._ticks)


def test_laps_and_marks_split_the_time():
    clock = FakeClock(iter([0, 10, 30, 35, 100, 160, 170]))
    clock.start()
    clock.lap(DRAFT)
    clock.lap(TARGET)
    clock.mark()
    clock.lap(TARGET)
    clock.mark()
    clock.stop()
    assert clock.rounds == [Split(10, 20, 5), Split(0, 65, 60)]
    assert clock.ends_ns == [35, 160]
    assert clock.total_ns == 170
    assert clock.device_ns is None


def test_a_role_of_another_name_has_a_time_of_its_own():
    clock = FakeClock(iter([0, 10, 30, 60, 62, 70, 80]))
    clock.start()
    clock.lap(DRAFT)
    clock.lap("judge")
    clock.lap("judge")
    clock.mark()
    clock.mark()
    clock.stop()
    assert clock.rounds == [Split(10, 0, 2, None, (("judge", 50),)), Split(0, 0, 8)]


def test_without_a_device_sampling_is_the_hosts():
    clock = FakeClock(iter([0, 10, 30, 37, 40]))
    clock.start()
    clock.launch()
    clock.lap(TARGET)
    clock.lap(SAMPLING)
    clock.seal()
    clock.mark()
    clock.stop()
    assert clock.rounds == [Split(0, 10, 27, None)]


def test_a_clock_starts_anew_for_every_generation():
    clock = FakeClock(itertools.count(step=1).__iter__())
    for _ in range(2):
        clock.start()
        clock.mark()
        clock.stop()
    assert len(clock.rounds) == 1


def test_the_rounds_sum_to_the_last_mark():
    clock = CpuClock()
    clock.start()
    for segment in (DRAFT, TARGET, HOST, SAMPLING) * 3:
        clock.lap(segment)
        clock.mark()
    clock.stop()
    total = sum(split.draft + split.target + split.host for split in clock.rounds)
    assert total == clock.ends_ns[-1] <= clock.total_ns
    assert isinstance(clock_for(torch.device("cpu")), CpuClock)


class SimulatedEvent:
    def __init__(self, device):
        self.device = device
        self.at = None

    def record(self, stream):
        assert stream is self.device, "an event of another stream"
        self.device.recorded += 1
        self.device.created += self.at is None
        self.at = max(self.device.free, self.device.time)

    def elapsed_time(self, end_event):
        assert self.device.waits >= 2, "an event was read before the generation had ended"
        self.device.read += 1
        return (end_event.at - self.at) / 1e6


class SimulatedDevice:
    """A host and a device that each have a time of their own; calls of CUDA take none."""

    def __init__(self):
        self.time = self.free = 0
        self.recorded = self.created = self.read = self.waits = 0
        self.captures = False

    def host(self, nanoseconds):
        self.time += nanoseconds

    def enqueue(self, nanoseconds):
        self.free = max(self.free, self.time) + nanoseconds

    def wait(self):
        self.time = max(self.time, self.free)

    def stream(self):
        return self

    def query(self):
        assert not self.captures, "CUDA forbids to ask a stream that is being captured"
        return self.free <= self.time

    def synchronize(self):
        self.waits += 1
        self.wait()

    def event(self):
        return SimulatedEvent(self)

    def capturing(self):
        return self.captures

    def now(self):
        return self.time


@pytest.fixture
def device():
    return SimulatedDevice()


@pytest.fixture
def clock(device):
    return CudaClock(torch.device("cuda"), device)


def test_what_follows_the_target_on_the_device_is_sampling_and_leaks_into_no_draft(device, clock):
    clock.start()
    for _ in range(2):
        device.enqueue(20)
        clock.lap(DRAFT)
        device.enqueue(300)
        clock.lap(TARGET)
        device.enqueue(50)
        device.wait()
        clock.mark()
    clock.stop()
    assert clock.rounds == [Split(20, 300, 0, 50)] * 2
    assert clock.ends_ns == [370, 740] and clock.total_ns == clock.device_ns == 740


def test_what_the_host_does_behind_the_sampling_is_its_own(device, clock):
    clock.start()
    for _ in range(3):
        clock.launch()
        device.enqueue(300)
        clock.lap(TARGET)
        device.enqueue(50)
        clock.lap(SAMPLING)
        device.wait()
        device.host(40)
        clock.mark()
        device.host(10)
    clock.stop()
    assert clock.rounds == [Split(0, 300, 40, 50), Split(0, 300, 50, 50), Split(0, 300, 50, 50)]
    assert sum(s.host for s in clock.rounds) == clock.ends_ns[-1] - 3 * 350


def test_without_a_launch_the_hosts_preparation_counts_as_the_segment(device, clock):
    clock.start()
    device.host(30)
    device.enqueue(300)
    clock.lap(TARGET)
    device.wait()
    clock.mark()
    device.host(30)
    clock.launch()
    device.enqueue(300)
    clock.lap(TARGET)
    device.wait()
    clock.mark()
    clock.stop()
    assert clock.rounds == [Split(0, 330, 0, 0), Split(0, 300, 30, 0)]


def test_a_launch_behind_unfinished_work_takes_nothing_from_the_device(device, clock):
    clock.start()
    device.enqueue(100)
    clock.lap(DRAFT)
    device.enqueue(7)
    clock.launch()
    device.enqueue(300)
    clock.lap(TARGET)
    device.wait()
    clock.mark()
    clock.stop()
    assert clock.rounds == [Split(100, 307, 0, 0)]


def test_only_the_first_launch_of_a_segment_counts(device, clock):
    clock.start()
    for _ in range(4):
        device.host(5)
        clock.launch()
        device.enqueue(100)
        device.wait()
    clock.lap(DRAFT)
    clock.mark()
    clock.stop()
    assert clock.rounds == [Split(415, 0, 5, 0)]


def test_a_launch_asks_no_stream_that_is_being_captured(device, clock):
    clock.start()
    device.captures = True
    clock.launch()
    device.captures = False
    clock.stop()
    assert clock.rounds == []


def test_work_that_runs_ahead_belongs_to_the_next_round(device, clock):
    """Step t + 1 is enqueued before the host reads the token of step t."""
    clock.start()
    device.enqueue(500)
    clock.lap(TARGET)
    device.enqueue(20)
    clock.lap(SAMPLING)
    clock.seal()
    for _ in range(3):
        read_at = device.free
        device.enqueue(300)
        clock.lap(TARGET)
        device.enqueue(20)
        clock.lap(SAMPLING)
        clock.seal()
        device.time = max(device.time, read_at)
        device.host(10)
        clock.mark()
    clock.stop()
    assert clock.rounds == [Split(0, 500, 10, 20), Split(0, 300, 0, 20), Split(0, 300, 0, 20)]
    assert clock.ends_ns == [530, 850, 1170]
    assert clock.total_ns == clock.device_ns == 1480  # the last step was nobody's


def test_device_time_beyond_a_rounds_wall_time_is_taken_from_the_rounds_after_it(device, clock):
    clock.start()
    device.enqueue(100)
    clock.lap(TARGET)
    clock.lap(SAMPLING)
    device.host(60)
    clock.mark()  # closed before the device is done
    device.wait()
    device.host(90)
    clock.lap(SAMPLING)
    clock.mark()
    clock.stop()
    first, second = clock.rounds
    assert first == Split(0, 100, 0, 0) and clock.ends_ns == [60, 190]
    assert sum(s.draft + s.target + s.host + (s.sampling or 0) for s in clock.rounds) == 190
    assert second.host == 0 and second.sampling == 90


def test_nothing_waits_or_reads_between_start_and_stop(device, clock):
    clock.start()
    assert device.waits == 1
    for _ in range(50):
        clock.launch()
        device.enqueue(10)
        clock.lap(DRAFT)
        clock.lap(TARGET)
        clock.lap(SAMPLING)
        clock.mark()
    assert device.waits == 1 and device.read == 0 and device.time == 0
    clock.stop()
    assert device.waits == 2 and device.read == 0
    assert len(clock.rounds) == 50
    read = device.read
    assert clock.rounds is clock.rounds and device.read == read


def test_events_are_made_before_they_are_needed_and_used_again(device, clock):
    def generation(rounds):
        clock.start()
        created = device.created
        for _ in range(rounds):
            device.enqueue(10)
            clock.lap(TARGET)
            clock.mark()
        clock.stop()
        assert [s.target for s in clock.rounds] == [10] * rounds
        return device.created - created

    assert generation(100) == 0 and device.created == POOL
    assert generation(100) == 0 and device.created == POOL
    assert generation(POOL) > 0
    assert generation(POOL) == 0
    assert generation(POOL + POOL // 2) == 0, "room for longer generations is made beforehand"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_real_device_is_timed_without_waiting():
    device = torch.device("cuda")
    clock = clock_for(device)
    assert isinstance(clock, CudaClock)
    square = torch.randn(2048, 2048, device=device)
    for _ in range(2):
        clock.start()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(20):
                clock.launch()
                square @ square
                clock.lap(TARGET)
                square.sum()
                clock.lap(SAMPLING)
                clock.mark()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        clock.stop()
    assert len(clock.rounds) == 20 and all(s.target > 0 for s in clock.rounds)
    busy = sum(s.draft + s.target + (s.sampling or 0) for s in clock.rounds)
    assert clock.device_ns is not None and busy <= clock.device_ns * 1.01
    assert clock.device_ns <= clock.total_ns * 1.05
