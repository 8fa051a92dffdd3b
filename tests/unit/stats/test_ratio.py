"""Quotients over samples, and how a run's variance is told apart by its sources."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as reference

from specbench.stats import mean_ratio, paired_ratio, paired_total_ratio, ratio_of_totals
from specbench.stats.ratio import LINEAR_SAMPLES, log_ratio
from specbench.stats.variance import components, two_sided_p_value


class TestRatioOfTotals:
    def test_is_pooled_and_no_mean_of_quotients(self):
        found = ratio_of_totals([10, 30], [5, 10])
        assert found.value == pytest.approx(40 / 15) and found.p_value is None and found.n == 2

    def test_equal_quotients_have_no_width(self):
        low, high = ratio_of_totals([2, 4, 8], [1, 2, 4]).interval
        assert low == pytest.approx(2) and high == pytest.approx(2)

    def test_too_little_has_no_interval_or_no_value(self):
        assert ratio_of_totals([], []) is None
        assert ratio_of_totals([1, 2], [0, 0]) is None
        assert ratio_of_totals([3], [2]).interval is None
        assert ratio_of_totals([0, 0], [2, 3]) == (0.0, None, None, 2)
        assert ratio_of_totals([1, np.nan], [2, 4]).n == 1

    def test_the_interval_covers(self):
        generator = np.random.default_rng(0)
        held = 0
        for _ in range(400):
            rounds = generator.integers(10, 40, 30)
            tokens = rounds * generator.gamma(9, 3 / 9, 30)
            held += not ratio_of_totals(tokens, rounds).interval.excludes(3.0)
        assert 0.92 <= held / 400 <= 0.985


class TestPairedTotalRatio:
    def test_compares_two_quotients(self):
        found = paired_total_ratio([10, 30], [5, 10], [20, 60], [5, 10])
        assert found.value == pytest.approx(2) and found.interval.low == pytest.approx(2)
        assert found.p_value == 0.0

    def test_no_change_is_no_change(self):
        found = paired_total_ratio([10, 30, 7], [5, 10, 3], [10, 30, 7], [5, 10, 3])
        assert found.value == 1 and found.interval == (1.0, 1.0) and found.p_value == 1.0

    def test_pairing_takes_out_what_samples_share(self):
        generator = np.random.default_rng(1)
        rounds = generator.integers(10, 40, 50)
        shared = generator.gamma(4, 1, 50)
        first, second = rounds * shared, rounds * shared * generator.normal(1.02, 0.01, 50)
        paired = paired_total_ratio(first, rounds, second, rounds)
        alone = ratio_of_totals(first, rounds)
        assert paired.interval.low > 1.01
        assert math.log(alone.interval.high / alone.interval.low) > 20 * math.log(
            paired.interval.high / paired.interval.low
        )

    def test_a_total_of_nothing_has_no_ratio(self):
        assert paired_total_ratio([0, 0], [1, 1], [1, 1], [1, 1]) is None
        assert paired_total_ratio([1], [1], [2], [1]).interval is None


class TestMeanRatio:
    def test_is_the_quotient_of_the_means_and_no_ratio_of_times(self):
        rates = np.array([10.0, 30.0]), np.array([20.0, 30.0])
        assert mean_ratio(*rates).value == pytest.approx(50 / 40)
        times = 1 / rates[0][:, None], 1 / rates[1][:, None]
        assert paired_ratio(*times).value != pytest.approx(50 / 40)

    def test_its_interval_is_that_of_resampled_samples(self):
        generator = np.random.default_rng(2)
        slow = generator.normal(30, 4, 80)
        fast = slow * generator.normal(1.65, 0.25, 80)
        drawn = generator.integers(0, 80, (4000, 80))
        plain = np.quantile(fast[drawn].sum(1) / slow[drawn].sum(1), [0.025, 0.975])
        assert mean_ratio(slow, fast).interval == pytest.approx(plain, rel=0.01)


class TestComponents:
    def test_the_noise_of_cells_is_counted_once(self):
        generator = np.random.default_rng(0)
        n, m, sigma = 60, 5, 0.1
        totals = []
        for _ in range(200):
            noise = generator.normal(0, sigma, (n, m))
            totals.append(components((noise - noise.mean()) / (n * m), np.zeros(m, int)).total)
        # drift is cut off at 0, which leaves a little more than the true variance
        assert 1.0 <= np.mean(totals) / (sigma**2 / (n * m)) <= 1.5

    def test_one_pass_tells_of_samples_alone(self):
        parts = components(np.array([[0.1], [-0.1]]), np.zeros(1, int))
        assert parts.passes == parts.cells == 0 and parts.reach(0.975) > 0

    def test_processes_are_the_units_where_there_are_several(self):
        influence = np.repeat(np.array([[0.1, -0.1]]), 20, axis=0).repeat(4, axis=1) / 20
        parts = components(influence, np.repeat([0, 1], 4))
        assert parts.pass_count == 2
        assert parts.reach(0.975) == pytest.approx(
            reference.t.ppf(0.975, 1) * math.sqrt(parts.passes), rel=1e-6
        )

    def test_more_samples_shrink_all_but_the_drift(self):
        generator = np.random.default_rng(0)
        table = generator.normal(0, 1, (30, 3)) + 3 * generator.normal(0, 1, (1, 3))
        parts = components((table - table.mean()) / 90, np.zeros(3, int))
        larger = parts.with_samples(3000)
        assert larger.samples == pytest.approx(parts.samples / 100)
        assert larger.drift == pytest.approx(parts.drift)

    def test_the_p_value_is_where_the_interval_ends(self):
        assert two_sided_p_value(2.0, lambda p: reference.norm.ppf(p)) == pytest.approx(
            0.0455, abs=1e-3
        )
        assert two_sided_p_value(0.0, lambda p: 1.0) == 1.0
        assert two_sided_p_value(1.0, lambda p: 0.0) == 0.0

    def test_p_value_and_interval_agree_on_every_run(self):
        generator = np.random.default_rng(0)
        seen = set()
        for _ in range(40):
            first = generator.lognormal(0, 0.2, (10, 3))
            second = first * generator.lognormal(0.05, 0.1, (10, 3))
            found = paired_ratio(first, second, resamples=100)
            seen.add(found.interval.excludes(1.0))
            # the p-value's levels share one quantile, so near 0.05 the interval may be wider
            assert not found.interval.excludes(1.0) or found.p_value < 0.06
        assert seen == {True, False}


def test_many_samples_are_not_resampled():
    """Above some number a log ratio is linear: the interval hardly moves where that begins."""
    generator = np.random.default_rng(0)
    first = generator.lognormal(0, 0.4, (LINEAR_SAMPLES + 1, 3))
    second = first * generator.lognormal(0, 0.1, first.shape)
    linear = log_ratio(first, second).components
    drawn = log_ratio(first[:-1], second[:-1]).components
    assert linear.reach(0.975) == pytest.approx(drawn.reach(0.975), rel=0.05)
    assert log_ratio(first, second, seed=1).components == linear
