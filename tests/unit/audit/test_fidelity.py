"""The four grades of fidelity, each from a divergence made on purpose."""

from __future__ import annotations

import torch

from specbench.audit.fidelity import Fidelity, Grade, judge, numeric_bound, worst
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel

GREEDY = Law(temperature=0)


def pair_with_gap(gap, dtype=torch.float64):
    def table(context):
        return torch.tensor([1.0 + gap, 1.0, -2.0, -3.0], dtype=torch.float64)

    model = TableModel(table, 4)
    model.dtype = dtype
    return ModelPair("gap", model)


def test_equal_tokens_are_identical():
    assert judge(pair_with_gap(0.1), GREEDY, [0], [0, 0], [0, 0], 0.0) == (
        Grade.IDENTICAL,
        None,
        None,
    )


def test_a_swap_of_two_nearly_equal_logits_is_a_tie():
    verdict = judge(pair_with_gap(1e-6), GREEDY, [0], [0, 0, 0], [0, 1, 0], 1e-5)
    assert verdict.grade is Grade.TIE and verdict.position == 1
    assert abs(verdict.gap - 1e-6) < 1e-9


def test_a_gap_above_the_bound_is_wrong_in_full_precision_and_diverged_below():
    assert judge(pair_with_gap(0.1), GREEDY, [0], [0, 0], [0, 1], 1e-5).grade is Grade.WRONG
    reduced = pair_with_gap(0.1, torch.bfloat16)
    assert judge(reduced, GREEDY, [0], [0, 0], [0, 1], 1e-5).grade is Grade.DIVERGED


def test_a_token_outside_the_top_two_is_never_a_tie():
    assert judge(pair_with_gap(1e-9), GREEDY, [0], [0], [2], 1e-3).grade is Grade.WRONG


def test_a_missing_or_extra_token_is_wrong():
    verdict = judge(pair_with_gap(0.1), GREEDY, [0], [0, 0, 0], [0, 0], 1.0)
    assert verdict.grade is Grade.WRONG and verdict.position == 2


def test_the_penalty_of_the_law_moves_the_gap():
    law = Law(temperature=0, repetition_penalty=1.1)
    verdict = judge(pair_with_gap(0.1), law, [0], [1], [0], 1e-6)
    assert abs(verdict.gap - abs(1.1 / 1.1 - 1.0)) < 1e-6


def test_forbidden_tokens_leave_the_bound_a_number():
    def table(context):
        return torch.tensor([1.0, 0.5, -torch.inf], dtype=torch.float64)

    assert numeric_bound(ModelPair("forbidden", TableModel(table, 3)), [0], [0] * 12) == 0.0


def test_the_bound_of_a_table_is_zero_and_the_worst_verdict_wins():
    assert numeric_bound(pair_with_gap(0.1), [0, 1], [0] * 12) == 0.0
    grades = [Fidelity(Grade.IDENTICAL), Fidelity(Grade.TIE, 3, 0.0), Fidelity(Grade.IDENTICAL)]
    assert worst(grades).grade is Grade.TIE
