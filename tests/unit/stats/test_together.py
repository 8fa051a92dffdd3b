"""Ratios judged together: the luckiest of many rows is not called, and a clear effect stays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from specbench.stats.together import PooledPasses
from specbench.stats.variance import Components


def row(passes: float, samples: float = 1e-4, cells: float = 0.0, count: int = 2) -> Components:
    return Components(samples, passes, cells, 60, count)


def test_the_variance_of_a_pass_is_pooled_by_degrees_of_freedom():
    pooled = PooledPasses.of([row(0.02), row(0.01, count=4), row(5.0, count=1), None])
    assert pooled.degrees == 1 + 3
    assert pooled.variance == pytest.approx((1 * 2 * 0.02 + 3 * 4 * 0.01) / 4)


def test_a_row_of_lucky_passes_is_judged_by_what_the_others_show():
    lucky = row(1e-9)
    alone = PooledPasses.of([lucky])
    among = PooledPasses.of([lucky, *[row(4e-4)] * 30])
    effect = math.log(1.05)
    assert alone.p_value(effect, lucky) == pytest.approx(lucky.p_value(effect), rel=0.1)
    assert lucky.p_value(effect) < 1e-4 < among.p_value(effect, lucky)
    assert among.p_value(math.log(2), lucky) < 1e-6


def test_quiet_others_never_make_a_row_more_certain():
    wild = row(0.01)
    quiet = PooledPasses.of([wild, *[row(1e-6)] * 30])
    for effect in (0.02, 0.2, 1.0):
        assert quiet.p_value(effect, wild) >= wild.p_value(effect)


def test_one_pass_says_nothing_and_is_judged_alone():
    single = row(0.0, count=1)
    none = PooledPasses.of([single])
    assert none == PooledPasses(0.0, 0)
    among = PooledPasses.of([single, row(0.5)])
    for pooled in (none, among):
        assert pooled.p_value(0.05, single) == single.p_value(0.05)
        assert pooled.bound(0.99, single) == single.bound(0.99)


@pytest.mark.parametrize("passes", [1e-8, 1e-4, 1e-2])
def test_the_bound_is_where_the_p_value_falls_below_the_level(passes):
    mine = row(passes)
    pooled = PooledPasses.of([mine, *[row(1e-4)] * 10])
    for probability in (0.975, 0.999):
        bound = pooled.bound(probability, mine)
        level = 2 * (1 - probability)
        assert pooled.p_value(1.1 * bound, mine) < level < pooled.p_value(0.9 * bound, mine)


def test_pooled_p_values_are_as_small_as_they_should_be_and_no_smaller():
    generator = np.random.default_rng(0)
    below = []
    for _ in range(400):
        moves = generator.normal(0, 0.02, (20, 2))
        rows = [row(float(pair.var(ddof=1)) / 2, samples=0.0) for pair in moves]
        pooled = PooledPasses.of(rows)
        values = [pooled.p_value(float(p.mean()), r) for p, r in zip(moves, rows, strict=True)]
        below.append(min(values) < 0.05 / 20)
    assert np.mean(below) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    own = [row(1e-8, samples=0.0).p_value(0.02)]
    assert own[0] < 0.05  # alone, passes that hardly moved would call it
