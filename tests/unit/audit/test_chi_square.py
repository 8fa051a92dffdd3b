"""The tests keep their false-alarm rates, and find what they say they find."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from specbench.audit.chi_square import (
    CONFIRMATION,
    LEAST_EXPECTED,
    cells_of,
    goodness,
    noncentrality,
    power,
    stage_rate,
)

LAW = {(a, b): p * q for a, p in enumerate((0.6, 0.3, 0.1)) for b, q in enumerate((0.5, 0.3, 0.2))}
ROWS = np.array([[0.7, 0.2, 0.1], [0.05, 0.55, 0.4], [0.34, 0.33, 0.33]])


def one(key: tuple[int, ...]) -> int:
    return 0


def first(key: tuple[int, ...]) -> int:
    return key[0]


def drawn(law: dict[tuple[int, int], float], samples: int, seed: int) -> Counter[tuple[int, int]]:
    keys = list(law)
    counts = np.random.default_rng(seed).multinomial(samples, [law[key] for key in keys])
    return Counter(dict(zip(keys, counts.tolist(), strict=True)))


def chains(rows: np.ndarray, count: int, length: int, seed: int) -> list[Counter[tuple[int, int]]]:
    """Return the transitions of `count` Markov chains that begin in state 0."""
    generator = np.random.default_rng(seed)
    state = np.zeros(count, dtype=np.int64)
    seen = np.zeros((count, 3, 3), dtype=np.int64)
    for _ in range(length):
        after = (generator.random(count)[:, None] > rows[state].cumsum(-1)).sum(-1).clip(max=2)
        np.add.at(seen, (np.arange(count), state, after), 1)
        state = after
    return [Counter({(a, b): int(n[a, b]) for a in range(3) for b in range(3)}) for n in seen]


def transitions(rows: np.ndarray, length: int) -> dict[tuple[int, int], float]:
    place, result = np.array([1.0, 0, 0]), np.zeros((3, 3))
    for _ in range(length):
        result += place[:, None] * rows / length
        place = place @ rows
    return {(a, b): float(result[a, b]) for a in range(3) for b in range(3)}


def holds(p_values: list[float]) -> bool:
    """Say whether small p-values are as frequent as they say, within four deviations."""
    for rate in (0.05, 0.01, 0.001):
        expected = rate * len(p_values)
        alarms = sum(p < rate for p in p_values)
        slack = 4 * math.sqrt(expected)
        if not 0.5 * expected - slack <= alarms <= 1.3 * expected + slack:
            return False
    return True


@pytest.mark.parametrize("samples", [80, 400])
def test_counts_raise_false_alarms_at_the_stated_rate(samples: int) -> None:
    cells = cells_of(LAW, samples, one)
    found = [goodness(drawn(LAW, samples, seed), cells).p_value for seed in range(3000)]
    assert holds(found)
    assert not holds([p / 2 for p in found])


def test_transitions_raise_false_alarms_at_the_stated_rate() -> None:
    length = 400
    cells = cells_of(transitions(ROWS, length), length, first)
    assert holds([goodness(each, cells).p_value for each in chains(ROWS, 4000, length, 1)])


def test_the_stated_power_is_what_a_simulation_finds() -> None:
    biased = {key: 0.5 * p + 0.5 / 9 for key, p in LAW.items()}
    samples, stage, trials = 100, 1e-3, 1000
    cells, more = cells_of(LAW, samples, one), cells_of(LAW, CONFIRMATION * samples, one)
    stated = power(noncentrality(LAW, biased, cells), cells.freedom, samples, stage)
    found = sum(
        goodness(drawn(biased, samples, seed), cells).p_value < stage
        and goodness(drawn(biased, CONFIRMATION * samples, seed + trials), more).p_value < stage
        for seed in range(trials)
    )
    assert 0.1 < stated < 0.9
    assert found / trials == pytest.approx(stated, abs=0.06)


def test_without_a_bias_the_power_is_the_rate_of_both_stages() -> None:
    assert power(0.0, 8, 100, 1e-3) == pytest.approx(1e-6)
    assert power(1.0, 0, 100, 1e-3) == 0.0


def test_the_rates_of_all_tests_add_up() -> None:
    assert 6 * stage_rate(1e-6, 6) ** 2 == pytest.approx(1e-6)


def test_rare_cells_are_pooled_inside_of_their_block() -> None:
    law = {(0, 0): 0.49, (0, 1): 0.005, (0, 2): 0.005, (1, 0): 0.5}
    cells = cells_of(law, 100, first)
    assert cells.groups[0, 1] == cells.groups[0, 2] == cells.groups[0, 0] != cells.groups[1, 0]
    assert cells.freedom == 0 and goodness(Counter({(0, 0): 3}), cells).p_value == 1.0
    finer = cells_of(law, 2000, first)
    assert len(set(finer.groups.values())) == 4 and finer.freedom == 2
    assert finer.probabilities.min() * 2000 >= LEAST_EXPECTED


def test_an_impossible_outcome_is_found_at_once() -> None:
    result = goodness(Counter({(0, 0): 99, (7, 7): 1}), cells_of(LAW, 100, one))
    assert result.p_value == 0.0 and math.isinf(result.statistic)


def test_a_block_that_was_never_met_is_not_tested() -> None:
    cells = cells_of(transitions(ROWS, 400), 400, first)
    result = goodness(Counter({(0, 0): 70, (0, 1): 20, (0, 2): 10}), cells)
    assert result.statistic == pytest.approx(0.0)
