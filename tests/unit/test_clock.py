"""Clocks give every nanosecond to one segment of one round."""

from __future__ import annotations

import itertools

import torch

from specbench.clock import CpuClock, FakeClock, Segment, clock_for


def test_laps_and_marks_split_the_time():
    clock = FakeClock(iter([0, 10, 30, 35, 100, 160, 170]))
    clock.start()
    clock.lap(Segment.DRAFT)
    clock.lap(Segment.TARGET)
    clock.mark()
    clock.lap(Segment.TARGET)
    clock.mark()
    clock.stop()
    assert clock.rounds == [(10, 20, 5), (0, 65, 60)]
    assert clock.ends_ns == [35, 160]
    assert clock.total_ns == 170
    assert clock.device_ns is None


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
    for segment in (Segment.DRAFT, Segment.TARGET, Segment.HOST) * 3:
        clock.lap(segment)
        clock.mark()
    clock.stop()
    assert sum(map(sum, clock.rounds)) == clock.ends_ns[-1] <= clock.total_ns
    assert isinstance(clock_for(torch.device("cpu")), CpuClock)
