"""Choosing a product by its times, with times that are made up."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from specbench.models.kernels import choose, matmul  # noqa: E402
from specbench.models.kernels.choose import COUNTS, Choice, decide  # noqa: E402
from specbench.models.kernels.matmul import MatmulPlan  # noqa: E402

SMALL, LARGE = MatmulPlan(16, 64, 1, 4, 3), MatmulPlan(64, 64, 2, 4, 3)
NEVER = float("inf")


def timer(times):
    """Times by plan; a number for all counts, or a mapping from counts to numbers."""

    def time(plan, tokens):
        found = times[plan]
        return found if isinstance(found, float) else found[tokens]

    return time


def test_the_fastest_plan_is_kept_for_all_numbers_of_tokens():
    choice = decide([SMALL, LARGE], timer({SMALL: 10.0, LARGE: 9.0, None: 20.0}))
    assert choice.plan == LARGE and choice.library == frozenset()
    assert {choice.plan_for(tokens) for tokens in range(1, 17)} == {LARGE}
    assert choice.plan_for(17) is None


def test_neither_one_token_nor_sixteen_is_favoured():
    uneven = {SMALL: {1: 5.0, 4: 9.0, 8: 14.0, 16: 20.0}, LARGE: 9.0, None: 30.0}
    assert decide([SMALL, LARGE], timer(uneven)).plan == LARGE


def test_the_library_runs_where_it_is_clearly_faster():
    library = {1: 8.0, 4: 9.9, 8: 9.5, 16: 30.0}
    choice = decide([SMALL], timer({SMALL: 10.0, None: library}))
    assert choice.library == {1, 8}
    plans = [choice.plan_for(tokens) for tokens in (1, 2, 4, 5, 8, 9, 16)]
    assert plans == [None, SMALL, SMALL, None, None, SMALL, SMALL]
    assert choice.times == ((10.0, 8.0), (10.0, 9.9), (10.0, 9.5), (10.0, 30.0))


@pytest.mark.parametrize("plans", [[], [SMALL]])
def test_a_weight_that_no_plan_fits_is_the_librarys(plans):
    choice = decide(plans, timer({SMALL: NEVER, None: 5.0}))
    assert choice.plan is None and choice.library == frozenset(COUNTS)
    assert choice.plan_for(1) is None


def test_what_was_not_measured_is_the_librarys():
    weight = torch.ones(24, 40)
    assert choose.plan_of(weight, 1, gated=False) is None


def test_choices_are_kept_by_shape_type_and_gating(monkeypatch):
    asked = []

    def decided(plans, time):
        asked.append(plans)
        return Choice(SMALL, frozenset())

    monkeypatch.setattr(choose, "_choices", {})
    monkeypatch.setattr(choose, "_Bench", lambda weight, gated: None)
    monkeypatch.setattr(choose, "decide", decided)
    weight = torch.ones(128, 256)
    for _ in range(2):
        choose.measured(weight, gated=False)
    assert len(asked) == 1 and choose.plan_of(weight, 3, gated=False) == SMALL
    assert choose.plan_of(weight, 3, gated=True) is None
    assert choose.plan_of(weight.bfloat16(), 3, gated=False) is None
    choose.measured(torch.zeros(128, 256), gated=False)
    assert len(asked) == 1
    choose.measured(weight, gated=True)
    assert len(asked) == 2 and len(choose.chosen()) == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("outputs", "inner"), [(4096, 4096), (28672, 4096), (4096, 14336), (70, 300)]
)
def test_plans_occupy_the_device_and_fit_it(outputs, inner, gated, dtype, monkeypatch):
    monkeypatch.setattr(matmul, "multiprocessors", lambda device: 132)
    monkeypatch.setattr(matmul, "shared_memory", lambda device: 232_448)
    weight = torch.empty(1, dtype=dtype).expand(outputs, inner)
    found = matmul.plans(weight, gated=gated)
    assert found and len(set(found)) == len(found)
    width = outputs // 2 if gated else outputs
    for plan in found:
        assert plan.shared_bytes(dtype.itemsize, gated) <= 232_448
        assert plan.split * plan.inputs <= inner
        programs = -(-width // plan.outputs) * plan.split
        largest = plan.split == 8 or 2 * plan.split * plan.inputs > inner
        assert programs >= 132 or largest
        assert plan.split == 1 or programs <= 2 * max(4 * 132, width // plan.outputs)
