"""Simulated runs of known truth: intervals hold it, nothing is called something, and 5% is found.

The seeds are fixed; each bound lies three binomial standard errors from the nominal share.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.coverage import NOISES, called, coverage, simulate
from specbench.compare.build import verdict
from specbench.compare.comparison import BETTER, WORSE, Speedup
from specbench.stats import detectable_ratio, noise_floor, paired_ratio, samples_for_ratio


def lowest(trials: int) -> float:
    """Return the share below which 95% is not what one sees of 95%."""
    return 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials)


def highest_alarm(trials: int) -> float:
    """Return the share of false alarms above which the rate is not 5%."""
    return 0.05 + 3 * math.sqrt(0.95 * 0.05 / trials)


@pytest.mark.parametrize(
    ("kind", "repeats", "processes"),
    [
        ("prompts", 1, 1),
        ("prompts", 3, 1),
        ("cells", 3, 1),
        ("repeats", 3, 1),
        ("repeats", 5, 1),
        ("processes", 1, 3),
        ("processes", 3, 5),
        ("heavy", 3, 1),
    ],
)
def test_intervals_hold_the_truth(kind, repeats, processes):
    held, _ = coverage(NOISES[kind], 80, repeats, processes, trials=300, seed=0)
    assert held >= lowest(300)


def test_intervals_are_not_wider_than_they_need_to_be():
    """Where samples differ most the share is nominal, and five passes are not three."""
    held, wide = coverage(NOISES["prompts"], 80, 5, 1, trials=300, seed=1)
    assert held <= 0.95 + 3 * math.sqrt(0.95 * 0.05 / 300)
    assert wide < 1.15 * 1.96 * 0.15 / math.sqrt(80) * math.sqrt(1.16)  # 1.16: of the sizes


@pytest.mark.parametrize(
    ("kind", "repeats", "processes"), [("cells", 3, 1), ("repeats", 3, 1), ("processes", 1, 5)]
)
def test_plain_decoding_against_itself_is_called_at_most_as_often_as_stated(
    kind, repeats, processes
):
    assert called(NOISES[kind], 1.0, 40, repeats, processes, 100, 0) <= highest_alarm(100)


@pytest.mark.parametrize("repeats", [2, 3])
def test_ten_rows_together_raise_no_more_alarms_than_one(repeats):
    """The chance of any false claim in the whole table stays at 5%, also with two repeats."""
    assert called(NOISES["repeats"], 1.0, 40, repeats, 1, 60, 0, together=10) <= highest_alarm(60)


def test_one_process_cannot_know_how_processes_move():
    """Why several processes: alone, the same noise is claimed to be an effect."""
    alone, _ = coverage(NOISES["processes"], 80, 3, 1, trials=100, seed=0)
    assert alone < 0.7


def test_a_slowdown_of_5_percent_under_5_percent_noise_is_found_with_80_samples():
    assert called(NOISES["cells"], 1 / 1.05, 80, 3, 1, 60, 0) >= 0.8


def test_it_is_found_as_worse_and_its_opposite_as_better():
    run = simulate(np.random.default_rng(0), NOISES["cells"], 1 / 1.05, 80, 3, 1)
    for ratio, wanted in (
        (paired_ratio(run.baseline, run.method), WORSE),
        (paired_ratio(run.method, run.baseline), BETTER),
    ):
        floor = noise_floor(run.baseline)
        judged = Speedup(ratio.value, ratio.interval, ratio.p_value, ratio.p_value, floor, "")
        assert verdict(judged) == wanted


def detectable(kind: str, samples: int, repeats: int, processes: int, runs: int = 40) -> float:
    generator = np.random.default_rng(3)
    found = []
    for _ in range(runs):
        run = simulate(generator, NOISES[kind], 1.0, samples, repeats, processes)
        floor = noise_floor(run.baseline, run.process, resamples=200)
        found.append(detectable_ratio(*run, floor))
    return float(np.median(found))


@pytest.mark.parametrize(
    ("kind", "repeats", "processes"), [("prompts", 3, 1), ("cells", 5, 1), ("repeats", 3, 3)]
)
def test_the_detectable_ratio_is_found_four_times_in_five(kind, repeats, processes):
    least = detectable(kind, 80, repeats, processes)
    power = called(NOISES[kind], least, 80, repeats, processes, 100, 7)
    assert 0.68 <= power <= 0.95  # three standard errors of 100 trials around 80%, and a little
    half = called(NOISES[kind], math.sqrt(least), 80, repeats, processes, 60, 7)
    assert half <= 0.45


def test_the_samples_asked_for_make_the_effect_detectable():
    generator = np.random.default_rng(0)
    few = simulate(generator, NOISES["prompts"], 1.0, 20, 5, 1)
    assert detectable_ratio(*few, 1.01) > 1.05
    needed = samples_for_ratio(1.05, *few, 1.01)
    assert 60 <= needed <= 300
    assert samples_for_ratio(1 / 1.05, *few, 1.01) == needed
    many = simulate(generator, NOISES["prompts"], 1.0, 2 * needed, 5, 1)
    assert detectable_ratio(*many, 1.01) < 1.05


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(NOISES))
@pytest.mark.parametrize(("repeats", "processes"), [(3, 1), (5, 1), (1, 3), (3, 3), (3, 5)])
def test_intervals_hold_the_truth_in_many_runs(kind, repeats, processes):
    if kind == "processes" and processes == 1:
        pytest.skip("one process cannot know how processes move")
    held, _ = coverage(NOISES[kind], 80, repeats, processes, trials=1000, seed=2)
    assert held >= lowest(1000)
