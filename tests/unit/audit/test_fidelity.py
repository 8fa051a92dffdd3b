"""The four grades of fidelity, each from a divergence made on purpose."""

from __future__ import annotations

import pytest
import torch

from specbench.audit.fidelity import (
    VERSION,
    Fidelity,
    Grade,
    judge,
    logits_by_shape,
    may_cross,
    worst,
)
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.law import Law
from specbench.models.decoder import LeanDecoder
from specbench.models.pair import ModelPair
from specbench.models.random_weights import RandomModel, random_weights
from specbench.models.table import TableModel
from specbench.schema.shape import Shape
from tests.unit.decoding.parts import generate

GREEDY = Law(temperature=0)


class Shaken(TableModel):
    """A table whose logits move with the number of tokens of a forward, as rounding moves them."""

    def __init__(self, logits, moves, dtype=torch.float32):
        values = torch.tensor(logits, dtype=torch.float64)
        super().__init__(lambda context: values, len(logits))
        self.dtype = dtype
        self._moves = torch.tensor(moves, dtype=torch.float64)
        self.fed = 0

    def forward(self, tokens, cache, *view):
        self.fed += tokens.shape[1]
        sign = 1 if tokens.shape[1] == 1 else -1
        return super().forward(tokens, cache, *view) + sign * self._moves


def graded(logits, moves, reference, output, dtype=torch.float32, law=GREEDY, prompt=(0, 3)):
    models = ModelPair("shaken", Shaken(logits, moves, dtype))
    return judge(models, law, prompt, reference, output)


def test_equal_tokens_are_identical_and_cost_no_forward():
    models = ModelPair("shaken", Shaken([1.0, 0.0], [0.0, 0.0]))
    assert judge(models, GREEDY, [0], [0, 0], [0, 0]) == (Grade.IDENTICAL, None, None)
    assert models.target.fed == 0


@pytest.mark.parametrize(
    ("gap", "moves", "grade"),
    [
        (0.001, 0.001, Grade.TIE),  # the sign changes between shapes
        (0.009, 0.001, Grade.TIE),  # 0.007 from zero at least, and moved by 0.004
        (0.011, 0.001, Grade.WRONG),  # 0.009 from zero at least
        (1e-9, 0.0, Grade.TIE),  # below what float32 can hold apart at a logit of 10
        (1e-4, 0.0, Grade.WRONG),
    ],
)
def test_two_tokens_tie_as_near_as_their_difference_moves(gap, moves, grade):
    verdict = graded([10 + gap, 10, -2, -3], [moves, -moves, 5, 0], [0, 0, 0], [0, 1, 0])
    assert verdict.grade is grade and verdict.position == 1
    assert verdict.gap == pytest.approx(gap, abs=2 * moves + 1e-12)


def test_what_other_logits_do_makes_no_tie():
    """A logit far below moves by 3: in version 1 gaps of 12 were ties."""
    verdict = graded([2.0, 1.0, -30, -30], [0, 0, 3, -3], [0, 0], [1, 1], torch.bfloat16)
    assert verdict.grade is Grade.DIVERGED
    assert graded([2.0, 1.0, -30, -30], [0, 0, 3, -3], [0, 0], [1, 1]).grade is Grade.WRONG


@pytest.mark.parametrize("output", [1, 2])
def test_each_of_three_equal_logits_ties_with_each(output):
    """In version 1 only the two that `topk` named first did."""
    for reference in {0, 1, 2} - {output}:
        assert graded([1, 1, 1, 0], [0, 0, 0, 0], [reference], [output]).grade is Grade.TIE
    assert graded([1, 1, 1, 0], [0, 0, 0, 0], [0], [3]).grade is Grade.WRONG


def test_a_token_far_above_plain_decodings_is_no_tie_either():
    assert graded([1, 2, 0, 0], [0, 0, 0, 0], [0], [1]).grade is Grade.WRONG


def test_a_missing_or_extra_token_is_wrong():
    verdict = graded([1.1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0], [0, 0])
    assert verdict == (Grade.WRONG, 2, None)


def test_the_penalty_of_the_law_moves_the_gap():
    law = Law(temperature=0, repetition_penalty=1.1)
    verdict = graded([1.1, 1.0, -2, -3], [0, 0, 0, 0], [1], [0], law=law)
    assert verdict.grade is Grade.TIE and verdict.gap < 1e-12


def test_a_forbidden_token_never_ties():
    assert graded([1, -torch.inf], [0, 0], [0], [1], prompt=(0,)).grade is Grade.WRONG
    assert not may_cross(torch.tensor([torch.nan, 0.0]), 1.0)


def test_the_worst_verdict_wins():
    grades = [Fidelity(Grade.IDENTICAL), Fidelity(Grade.TIE, 3, 0.0), Fidelity(Grade.IDENTICAL)]
    assert worst(grades).grade is Grade.TIE


@pytest.mark.parametrize("length", [1, 2, 6, 16, 17, 40])
def test_every_shape_reads_the_whole_text(length):
    def table(context):
        return torch.tensor([float(len(context)), float(sum(context))], dtype=torch.float64)

    context = list(range(length))
    logits = logits_by_shape(ModelPair("counting", TableModel(table, 2)), context)
    assert logits.tolist() == [[length, sum(context)]] * len(logits)


def test_the_divergence_alone_is_looked_at():
    """A long answer behind the divergence costs nothing, and one before it few forwards."""
    target = Shaken([1, 0, 0, 0], [0, 0, 0, 0])
    judge(ModelPair("shaken", target), GREEDY, [0], [0] * 400, [0] * 30 + [1] * 370)
    assert target.fed < 200


@pytest.fixture(scope="module")
def random_pair():
    shape = Shape("small", "small", 64, 3, 4, 2, 16, 128, 512, tied=False)
    weights = random_weights(RandomModel(shape, 256, torch.device("cpu"), torch.bfloat16))
    return ModelPair("random", LeanDecoder(weights, "random"))


def test_a_decoder_that_takes_the_second_best_token_is_seen_in_bfloat16(random_pair):
    """In version 1 it was graded a tie, four answers of four."""
    ties = 0
    for seed in range(12):
        prompt = [7 * seed + 3, 11, seed + 200, 5]
        first = generate(Autoregressive(), random_pair, GREEDY, prompt=prompt, count=1).tokens
        second = logits_by_shape(random_pair, prompt)[0].topk(2).indices.tolist()
        other = next(token for token in second if token != first[0])
        verdict = judge(random_pair, GREEDY, prompt, first, (other,))
        ties += verdict.grade is Grade.TIE
    assert ties <= 2


def test_the_version_of_the_grades_has_moved():
    assert VERSION == 2
