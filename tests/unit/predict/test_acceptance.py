"""Acceptance by position, against rounds counted by hand and formulas in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from specbench.predict.acceptance import (
    EVIDENCE,
    Acceptance,
    expected_accepted,
    expected_proposed,
    expected_tokens,
    extended,
    operations_factor,
    rates_of,
    tail_rate,
    walltime_factor,
)
from tests.unit.predict.worlds import rounds_of


def test_rates_of_four_rounds_by_hand() -> None:
    rates = rates_of(np.array([4, 4, 4, 2]), np.array([4, 1, 0, 2]))
    assert rates.accepted == pytest.approx((3 / 4, 2 / 3, 1, 1))
    assert rates.reached == pytest.approx((1, 1, 1 / 2, 1))
    assert rates.proposed == pytest.approx((1, 1, 3 / 4, 3 / 4))
    assert rates.tested == (4, 3, 1, 1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("length", [1, 2, 5, 6])
def test_a_cut_draft_yields_what_the_rounds_would_have_yielded(seed: int, length: int) -> None:
    proposed, accepted = rounds_of(seed)
    rates = rates_of(proposed, accepted)
    assert expected_accepted(rates, length) == pytest.approx(np.minimum(accepted, length).mean())
    assert expected_proposed(rates, length) == pytest.approx(np.minimum(proposed, length).mean())


@pytest.mark.parametrize("length", [1, 3, 4, 7, 16])
def test_independent_acceptance_is_the_formula_also_beyond_what_was_measured(length: int) -> None:
    rates = Acceptance((0.7,) * 4, (1.0,) * 4, (1.0,) * 4, (100,) * 4)
    assert 1 + expected_accepted(rates, length) == pytest.approx(expected_tokens(0.7, length))
    assert expected_proposed(rates, length) == pytest.approx(length)


def test_extrapolation_pools_the_last_three_well_tested_positions() -> None:
    tested = (1000, 400, 200, 100, EVIDENCE - 1)
    rates = Acceptance((0.9, 0.5, 0.6, 0.8, 0.1), (1.0,) * 5, (1.0,) * 5, tested)
    pooled = (0.5 * 400 + 0.6 * 200 + 0.8 * 100) / 700
    assert tail_rate(rates) == pytest.approx(pooled)
    longer = extended(rates, 7)
    assert longer.accepted == pytest.approx((0.9, 0.5, 0.6, 0.8, 0.1, pooled, pooled))
    assert longer.tested[5:] == (0, 0)


def test_a_draft_that_ends_by_itself_keeps_its_habit_beyond_the_longest() -> None:
    # half of the drafts of each length go on, and a third of the rounds find nothing to copy
    rates = Acceptance((1.0, 1.0), (2 / 3, 0.5), (2 / 3, 1 / 3), (60, 60))
    assert extended(rates, 4).proposed == pytest.approx((2 / 3, 1 / 3, 1 / 6, 1 / 12))
    assert expected_accepted(rates, 4) == pytest.approx(2 / 3 * (1 + 1 / 2 + 1 / 4 + 1 / 8))


def test_formulas_of_leviathan_et_al() -> None:
    assert expected_tokens(0.8, 4) == pytest.approx(1 + 0.8 + 0.64 + 0.512 + 0.4096)
    assert expected_tokens(1.0, 4) == 5
    assert expected_tokens(0.0, 4) == 1
    assert walltime_factor(0.8, 5, 0.1) == pytest.approx(3.68928 / 1.5)
    assert operations_factor(0.8, 4, 0.1) == pytest.approx((0.4 + 5) / 3.3616)
    assert operations_factor(0.0, 4, 0.0) == 5
