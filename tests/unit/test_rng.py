"""Keyed random streams: pure functions of their key, uniform, and independent."""

from __future__ import annotations

import statistics

from scipy import stats

from specbench.rng import Purpose, Streams


def test_a_number_depends_on_its_key_alone():
    first, second = Streams(1, "a"), Streams(1, "a")
    backwards = [second.uniform(p, Purpose.DRAFT) for p in reversed(range(9))]
    assert [first.uniform(p, Purpose.DRAFT) for p in range(9)] == backwards[::-1]


def test_every_part_of_the_key_matters():
    keys = [
        (Streams(1, "a"), 5, Purpose.DRAFT, 0),
        (Streams(2, "a"), 5, Purpose.DRAFT, 0),
        (Streams(1, "b"), 5, Purpose.DRAFT, 0),
        (Streams(1, "a"), 6, Purpose.DRAFT, 0),
        (Streams(1, "a"), 5, Purpose.ACCEPT, 0),
        (Streams(1, "a"), 5, Purpose.DRAFT, 1),
        (Streams(1, "a"), 5, Purpose.DRAFT, 8),
    ]
    assert len({s.uniform(p, purpose, i) for s, p, purpose, i in keys}) == len(keys)


def test_numbers_are_uniform_and_uncorrelated():
    """Kolmogorov-Smirnov and lag correlation; false alarm rate 1e-4 each, and the seed is fixed."""
    streams = Streams(0, "uniformity")
    numbers = streams.uniforms(0, 20_000, Purpose.ACCEPT)
    assert all(0 <= u < 1 for u in numbers)
    assert stats.kstest(numbers, "uniform").pvalue > 1e-4
    lag = statistics.correlation(numbers[:-1], numbers[1:])
    assert abs(lag) < 4 / 20_000**0.5
    other = streams.uniforms(0, 20_000, Purpose.DRAFT)
    assert abs(statistics.correlation(numbers, other)) < 4 / 20_000**0.5


def test_drafting_a_position_again_uses_fresh_numbers_but_the_targets_draw_is_one():
    streams = Streams(0, "rounds")
    again = streams.uniforms(3, 4, Purpose.ACCEPT), streams.uniforms(4, 3, Purpose.ACCEPT)
    assert set(again[0]).isdisjoint(again[1])
    assert streams.uniforms(3, 4, Purpose.SAMPLE)[1:] == streams.uniforms(4, 3, Purpose.SAMPLE)
