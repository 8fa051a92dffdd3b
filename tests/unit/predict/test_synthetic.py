"""The speedup of a drafter of set acceptance: by hand, by simulation, and as `predict` has it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from specbench.errors import UsageError
from specbench.predict import RoundSeconds, predict, roofline_seconds, synthetic_speedup
from specbench.predict.roofline import Roofline
from specbench.schema.hardware import Assumed
from tests.unit.predict.worlds import SMALL, chain, device, question

COSTS = RoundSeconds(1.0, 10.0, 12.0, host=2.0, plain_host=0.5)


@pytest.mark.parametrize(
    ("acceptance", "length", "expected"),
    [
        (0.5, 1, 1.5 * 10.5 / (1 + 12 + 2)),
        (0.5, 3, (1 + 0.5 + 0.25 + 0.125) * 10.5 / (3 + 12 + 2)),
        (0.0, 4, 10.5 / (4 + 12 + 2)),
        (1.0, 4, 5 * 10.5 / (4 + 12 + 2)),
    ],
)
def test_the_speedup_by_hand(acceptance: float, length: int, expected: float) -> None:
    assert synthetic_speedup(acceptance, length, COSTS) == pytest.approx(expected)


def test_a_simulated_drafter_gains_as_much() -> None:
    """40,000 rounds: the mean's standard error is 0.3%, and five of them are allowed."""
    acceptance, length, rounds = 0.8, 5, 40_000
    happened = np.random.default_rng(0).random((rounds, length)) < acceptance
    tokens = rounds + np.cumprod(happened, axis=1).sum()
    seconds = rounds * (length * COSTS.draft_forward + COSTS.verification + COSTS.host)
    plain = tokens * (COSTS.plain_forward + COSTS.plain_host)
    assert synthetic_speedup(acceptance, length, COSTS) == pytest.approx(plain / seconds, rel=0.015)


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("length", [1, 4])
def test_a_roofline_gives_what_predict_gives_for_such_a_chain(batch: int, length: int) -> None:
    slow = device(flops=3e5, assumed=Assumed())
    asked = question(slow, batches=(batch,), lengths=(length,), context=64)
    roofline = Roofline(slow, asked.dtype, asked.context)
    costs = roofline_seconds(roofline, SMALL, SMALL, length, batch)
    found = predict(chain(0.8, 4), asked).batches[0].sweep[0].speedup
    assert synthetic_speedup(0.8, length, costs) == pytest.approx(found)
    assert costs.host == pytest.approx(100e-6)


@pytest.mark.parametrize("acceptance", [-0.1, 1.1, math.nan])
def test_an_acceptance_is_a_probability(acceptance: float) -> None:
    with pytest.raises(UsageError, match="acceptance cannot be"):
        synthetic_speedup(acceptance, 4, COSTS)


def test_a_draft_has_a_token() -> None:
    with pytest.raises(UsageError, match="draft_length cannot be 0"):
        synthetic_speedup(0.5, 0, COSTS)


@pytest.mark.parametrize(
    "costs",
    [
        COSTS._replace(host=-1.0),
        COSTS._replace(draft_forward=math.nan),
        COSTS._replace(verification=math.inf),
        RoundSeconds(0.0, 1.0, 0.0),
        RoundSeconds(1.0, 0.0, 1.0),
    ],
)
def test_costs_are_times(costs: RoundSeconds) -> None:
    with pytest.raises(UsageError):
        synthetic_speedup(0.5, 4, costs)
