"""Intervals cover, floors hold back false alarms, and little data says little."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats as reference

from specbench.stats import (
    holm,
    mad_outliers,
    mean_interval,
    noise_floor,
    paired_difference,
    paired_ratio,
    student_quantile,
    student_tail,
)


def simulate(generator, samples=40, repeats=3, processes=1, varied=0.15, noise=0.03, drift=0.0):
    """Times of two arms whose true ratio of totals is 1.5, or 1 with `varied` and no effect."""
    passes = repeats * processes
    process = np.repeat(np.arange(processes), repeats)
    size = generator.lognormal(0, 0.4, (samples, 1))
    run = generator.normal(0, drift, processes)[process][None, :]
    baseline = size * np.exp(generator.normal(0, noise, (samples, passes)))
    effect = generator.normal(0, varied, (samples, 1)) - varied**2 / 2
    method = size / 1.5 * np.exp(generator.normal(0, noise, (samples, passes)) + effect + run)
    return baseline, method, process


def coverage(trials: int, **setting) -> float:
    covered = 0
    for trial in range(trials):
        baseline, method, process = simulate(np.random.default_rng(trial), **setting)
        estimate = paired_ratio(baseline, method, process, resamples=400, seed=trial)
        covered += not estimate.interval.excludes(1.5)
    return covered / trials


class TestPairedRatio:
    def test_is_the_ratio_of_totals(self):
        estimate = paired_ratio([[10.0, 20.0], [30.0, 40.0]], [[5.0, 10.0], [15.0, 20.0]])
        assert estimate.value == pytest.approx(2.0)
        assert estimate.n == 2
        assert estimate.interval.low == pytest.approx(2.0)

    def test_a_slow_sample_weighs_more_than_a_quick_one(self):
        assert paired_ratio([[100.0], [1.0]], [[50.0], [1.0]]).value == pytest.approx(101 / 51)

    def test_a_missing_measurement_leaves_both_arms(self):
        whole = paired_ratio([[10.0], [30.0]], [[5.0], [10.0]])
        holed = paired_ratio([[10.0, 99.0], [30.0, 7.0]], [[5.0, np.nan], [10.0, np.nan]])
        assert holed.value == pytest.approx(whole.value)
        assert holed.n == 2

    def test_one_sample_has_a_value_and_no_interval(self):
        estimate = paired_ratio([[10.0, 11.0, 12.0]], [[5.0, 5.0, 5.0]])
        assert estimate.value == pytest.approx(2.2)
        assert estimate.interval is None
        assert estimate.p_value is None

    def test_nothing_in_common_is_nothing(self):
        assert paired_ratio([[np.nan], [1.0]], [[1.0], [np.nan]]) is None
        assert paired_ratio(np.empty((0, 3)), np.empty((0, 3))) is None

    def test_the_same_seed_gives_the_same_interval(self):
        baseline, method, process = simulate(np.random.default_rng(3))
        assert paired_ratio(baseline, method, process) == paired_ratio(baseline, method, process)

    @pytest.mark.parametrize(
        ("setting", "least"),
        [
            # One standard error of 300 trials is 1.3%; the bounds lie two or more below 95%.
            ({}, 0.92),
            ({"samples": 6}, 0.91),
            ({"processes": 4, "drift": 0.04, "varied": 0.05}, 0.88),
        ],
        ids=["samples", "few samples", "processes that drift"],
    )
    def test_the_interval_covers_the_truth(self, setting, least):
        assert coverage(300, **setting) >= least

    def test_it_is_not_far_too_wide(self):
        """Where samples differ much more than repeats, coverage is nominal, not near 1."""
        assert coverage(300, varied=0.3, noise=0.01) <= 0.985

    def test_drift_between_processes_widens_the_interval(self):
        """An interval over prompts alone would be blind to what moves a whole process."""
        baseline, method, process = simulate(
            np.random.default_rng(1), processes=4, varied=0.02, drift=0.08
        )
        seen = paired_ratio(baseline, method, process).interval
        blind = paired_ratio(baseline.sum(1)[:, None], method.sum(1)[:, None]).interval
        assert np.log(seen.high / seen.low) > 3 * np.log(blind.high / blind.low)

    def test_it_is_quick(self):
        """The target is 0.2 s; the bound leaves room for a busy machine."""
        generator = np.random.default_rng(0)
        baseline = generator.lognormal(0, 0.5, (500, 5))
        method = generator.lognormal(0, 0.5, (500, 5))
        start = time.perf_counter()
        paired_ratio(baseline, method)
        assert time.perf_counter() - start < 1.0


class TestNoiseFloor:
    def test_it_needs_two_repeats(self):
        assert noise_floor(np.ones((20, 1))) is None
        assert noise_floor(np.full((20, 3), np.nan)) is None

    def test_identical_repeats_have_no_noise(self):
        assert noise_floor(np.ones((20, 3))) == pytest.approx(1.0)

    def test_a_pass_that_drifts_raises_the_floor_to_its_drift(self):
        """Two runs of one method with equal work, 101.1 and 94.1 tokens per second."""
        generator = np.random.default_rng(0)
        size = generator.lognormal(0, 0.4, (80, 1))
        times = size * np.array([1 / 101.1, 1 / 94.1]) * generator.normal(1, 0.005, (80, 2))
        assert 1.07 < noise_floor(times) < 1.09

    def test_several_processes_are_set_against_each_other(self):
        """A second run is another process: what moves a whole process belongs to the floor."""
        times = np.array([[1.0, 1.0, 2.0, 2.0]] * 10)
        assert noise_floor(times, [0, 0, 1, 1]) == pytest.approx(2.0)
        assert noise_floor(times, [0, 1, 0, 1]) == pytest.approx(2.0)
        assert noise_floor(times[:, :2], [0, 1]) == pytest.approx(1.0)

    def test_repeats_of_one_process_do_not_dilute_what_moves_processes(self):
        times = np.ones((5, 60))
        times[:, 0] = 2.0
        assert noise_floor(times, [0] + [1] * 59) == pytest.approx(2.0)

    def test_processes_of_different_draws_leave_the_repeats_of_each(self):
        times = np.array([[1.0, 1.0, 2.0, 2.0]] * 10)
        draws = np.array([[0, 0, 1, 1]] * 10)
        assert noise_floor(times, [0, 0, 1, 1], draws=draws) == pytest.approx(1.0)

    def test_two_draws_are_never_set_against_each_other(self):
        times = np.array([[1.0, 2.0, 1.0]] * 10)
        draws = np.array([[0, 1, 0]] * 10)
        assert noise_floor(times, draws=draws) == pytest.approx(1.0)
        assert noise_floor(times[:, :2], draws=draws[:, :2]) is None

    @pytest.mark.parametrize("drift", [0.0, 0.03])
    def test_plain_decoding_against_itself_is_not_called_faster(self, drift):
        """False alarms at interval and floor together: nominally at most 5%, here 300 trials."""
        alarms = 0
        for trial in range(300):
            generator = np.random.default_rng(1000 + trial)
            size = generator.lognormal(0, 0.4, (40, 1))
            passes = np.exp(generator.normal(0, drift, 3))[None, :]
            first = size * passes * np.exp(generator.normal(0, 0.03, (40, 3)))
            second = size * passes * np.exp(generator.normal(0, 0.03, (40, 3)))
            estimate = paired_ratio(first, second, resamples=400, seed=trial)
            floor = noise_floor(first, resamples=400, seed=trial)
            effect = max(estimate.value, 1 / estimate.value)
            alarms += estimate.interval.excludes(1.0) and effect > floor
        assert alarms / 300 <= 0.05


class TestDifferencesAndMeans:
    def test_the_difference_is_paired(self):
        baseline = np.array([0.1, 0.5, 0.9, 0.3])
        estimate = paired_difference(baseline, baseline + np.array([0.1, 0.12, 0.08, 0.1]))
        expected = reference.ttest_rel(baseline + [0.1, 0.12, 0.08, 0.1], baseline)
        interval = expected.confidence_interval(0.95)
        assert estimate.value == pytest.approx(0.1)
        assert tuple(estimate.interval) == pytest.approx((interval.low, interval.high))
        assert estimate.p_value == pytest.approx(expected.pvalue, rel=1e-6)

    def test_equal_outcomes_still_leave_what_n_samples_can_hide(self):
        estimate = paired_difference(np.ones(50), np.ones(50))
        assert estimate.value == 0
        assert estimate.interval.high == pytest.approx(1 - 0.05 ** (1 / 50))
        assert estimate.p_value == 1.0

    def test_one_common_sample_has_no_interval(self):
        estimate = paired_difference([1.0, np.nan], [0.0, 1.0])
        assert (estimate.value, estimate.interval, estimate.n) == (-1.0, None, 1)
        assert paired_difference([np.nan], [1.0]) is None

    def test_a_mean_of_scores(self):
        values = [0.2, 0.4, 0.9, 0.5]
        expected = reference.t.interval(0.95, 3, np.mean(values), reference.sem(values))
        assert tuple(mean_interval(values).interval) == pytest.approx(expected)
        assert mean_interval([0.7]).interval is None
        assert mean_interval([]) is None

    @pytest.mark.parametrize(("right", "n"), [(0, 20), (20, 20), (13, 20)])
    def test_a_share_of_right_answers_stays_within_its_range(self, right, n):
        values = [1.0] * right + [0.0] * (n - right)
        expected = reference.binomtest(right, n).proportion_ci(method="wilson")
        assert tuple(mean_interval(values).interval) == pytest.approx(tuple(expected), abs=1e-12)


class TestManyComparisons:
    def test_holm_by_hand(self):
        assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
        assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
        assert holm([]) == []

    def test_holm_keeps_the_chance_of_any_false_claim(self):
        generator = np.random.default_rng(0)
        any_claim = [min(holm(list(generator.random(10)))) < 0.05 for _ in range(2000)]
        assert 0.03 < np.mean(any_claim) < 0.07


class TestOutliers:
    def test_a_value_far_from_the_median_is_marked(self):
        marked = mad_outliers([10.0, 10.2, 9.9, 10.1, 30.0, np.nan])
        assert marked.tolist() == [False, False, False, False, True, False]

    def test_nothing_is_marked_without_a_deviation(self):
        assert not mad_outliers([1.0, 1.0, 1.0, 5.0]).any()
        assert not mad_outliers([np.nan]).any()


class TestStudent:
    @pytest.mark.parametrize("degrees", [1, 1.5, 2, 3, 4.2, 7.5, 30, 99, 200])
    def test_quantile_and_tail_are_the_laws_own(self, degrees):
        assert student_quantile(0.975, degrees) == pytest.approx(reference.t.ppf(0.975, degrees))
        assert student_tail(2.3, degrees) == pytest.approx(2 * reference.t.sf(2.3, degrees))

    def test_many_degrees_have_the_normal_law(self):
        assert student_quantile(0.975, 201) == pytest.approx(reference.norm.ppf(0.975))
