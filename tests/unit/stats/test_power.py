"""What a run could have found: monotone in all that helps, and silent without a floor."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coverage import NOISES, simulate
from specbench.stats import detectable_ratio, samples_for_ratio


@pytest.fixture(scope="module")
def run():
    return simulate(np.random.default_rng(5), NOISES["prompts"], 1.5, 60, 3, 1)


def test_without_a_floor_or_with_one_sample_nothing_is_detectable(run):
    assert detectable_ratio(*run, None) is None
    assert detectable_ratio(run.baseline[:1], run.method[:1], noise_floor=1.02) is None
    assert detectable_ratio(np.empty((0, 3)), np.empty((0, 3)), noise_floor=1.02) is None
    assert samples_for_ratio(1.05, *run, None) is None


def test_it_lies_beyond_the_floor_and_beyond_the_interval(run):
    assert detectable_ratio(*run, 1.5) > 1.5
    low = detectable_ratio(*run, 1.0)
    assert low > np.exp(1.96 * 0.15 / np.sqrt(60))


def test_more_comparisons_and_more_power_need_a_larger_effect(run):
    plain = detectable_ratio(*run, 1.01)
    assert detectable_ratio(*run, 1.01, comparisons=10) > plain
    assert detectable_ratio(*run, 1.01, power=0.95) > plain


def test_no_number_of_samples_beats_the_floor_or_what_moves_whole_passes(run):
    assert samples_for_ratio(1.02, *run, 1.03) is None
    drifting = simulate(
        np.random.default_rng(1), NOISES["repeats"]._replace(repeats=0.1), 1.0, 60, 3, 1
    )
    assert samples_for_ratio(1.02, *drifting, 1.0) is None


def test_a_smaller_effect_needs_more_samples(run):
    needed = [samples_for_ratio(ratio, *run, 1.005) for ratio in (1.5, 1.2, 1.1, 1.05)]
    assert needed == sorted(needed) and needed[0] >= 2
