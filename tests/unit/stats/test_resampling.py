"""Draws that are kept between rows are those that would be made anew."""

from __future__ import annotations

import numpy as np
import pytest

from specbench.stats import detectable_ratio, log_ratio, noise_floor, paired_ratio, resampling
from specbench.stats.power import samples_for_ratio


def run(samples=30, passes=4):
    """Times of both arms, with a difference that is hard to tell from none."""
    generator = np.random.default_rng(3)
    shape = (samples, passes)
    return generator.normal(1.02, 0.05, shape), generator.normal(1.0, 0.05, shape)


@pytest.mark.parametrize("process", [None, [0, 0, 1, 1]])
def test_kept_draws_change_no_number(monkeypatch, process):
    def found():
        first, second = run()
        floor = noise_floor(first, process)
        return paired_ratio(first, second, process), floor

    kept = [found(), found()]
    monkeypatch.setattr(resampling, "_MOST_KEPT", 0)
    assert kept == [found(), found()]


def test_draws_are_kept_by_shape_and_processes():
    shapes = [(5, [0, 0]), (5, [0, 1]), (6, [0, 0]), (5, [0, 0, 0])]
    for samples, label in shapes * 2:
        (draws,) = resampling.resample_table(samples, np.array(label), 50, 0)
        assert draws.samples.shape == (50, samples) and draws.passes.shape == (50, len(label))
        assert (draws.samples.sum(axis=1) == samples).all()
        assert draws.passes.sum(axis=1) == pytest.approx(len(label))
    two, alone = (
        next(iter(resampling.resample_table(5, np.array(label), 50, 0))).passes
        for label in ([0, 1], [0, 0])
    )
    assert not np.array_equal(two, alone)


def test_several_numbers_of_items_are_drawn_one_after_the_other():
    generator = np.random.default_rng(0)
    wanted = [resampling.resample_counts(generator, n, 20) for n in (3, 3, 7)]
    found = list(resampling.resample_each([3, 3, 7], 20, 0))
    assert all(np.array_equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert not np.array_equal(found[0], found[1])


def test_a_ratio_at_hand_is_not_measured_again():
    times = run()
    measured = log_ratio(*times)
    assert paired_ratio(*times, measured=measured) == paired_ratio(*times)
    for found in (detectable_ratio, lambda *a, **k: samples_for_ratio(1.2, *a, **k)):
        given = found(*times, noise_floor=1.01, measured=measured)
        assert given == found(*times, noise_floor=1.01)
