"""Token identity: four grades, a wider type that settles doubt, and the oracle's sharp eye."""

from __future__ import annotations

import pytest
import torch

from specbench.audit.fidelity import Fidelity, Grade
from specbench.audit.identity import ReadyDecoder, compare_tokens, identity_check, judge_greedy
from specbench.audit.oracle import judge_coupled, oracle_of
from specbench.audit.verdict import CheckOutcome, Kind
from specbench.decoding.base import Decoder
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.decoding.request import Request
from specbench.law import History, Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel
from specbench.rng import Streams
from tests.unit.decoding.parts import generate, table_pair, token_sd

GREEDY = Law(temperature=0)


class Second(Decoder):
    """Emits token 1 where plain decoding emits token 0."""

    def generate(self, models, request, clock):
        from dataclasses import replace

        done = Autoregressive().generate(models, request, clock)
        return replace(done, tokens=tuple(max(token, 1) for token in done.tokens))


def gap_pair(gap, dtype=torch.float64):
    logits = torch.tensor([1.0 + gap, 1.0, -2.0], dtype=torch.float64)
    model = TableModel(lambda context: logits, 3)
    model.dtype = dtype
    return ModelPair("gap", model)


def request(law=GREEDY, seed=0, count=8):
    return Request((0, 1), count, law, Streams(seed, "test"))


def grade(decoder, models, wider=None):
    def widened():
        return None if wider is None else ReadyDecoder(*wider)

    (verdict,) = compare_tokens(ReadyDecoder(decoder, models), [request()], judge_greedy, widened)
    return verdict.grade


def test_a_correct_decoder_is_identical_and_never_asks_for_a_wider_type():
    def widened():
        raise AssertionError("asked")

    arm = ReadyDecoder(token_sd(3), table_pair())
    grades = compare_tokens(arm, [request()], judge_greedy, widened)
    assert grades == [Fidelity(Grade.IDENTICAL)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_wider_type_tells_rounding_from_error(dtype):
    narrow, wide = gap_pair(0.1, dtype), gap_pair(0.1)
    assert grade(Second(), narrow, (Autoregressive(), wide)) is Grade.DIVERGED
    assert grade(Second(), narrow, (Second(), wide)) is Grade.WRONG
    alone = Grade.DIVERGED if dtype is torch.bfloat16 else Grade.WRONG
    assert grade(Second(), narrow) is alone


@pytest.mark.parametrize(
    ("grades", "wider", "outcome"),
    [
        ([Grade.IDENTICAL, Grade.TIE], False, CheckOutcome.PASS),
        ([Grade.IDENTICAL, Grade.DIVERGED], True, CheckOutcome.PASS),
        ([Grade.IDENTICAL, Grade.DIVERGED], False, CheckOutcome.INCONCLUSIVE),
        ([Grade.IDENTICAL, Grade.WRONG], True, CheckOutcome.FAIL),
    ],
)
def test_the_grades_decide_the_outcome(grades, wider, outcome):
    verdicts = [Fidelity(grade, 4 if grade is not Grade.IDENTICAL else None) for grade in grades]
    check = identity_check(verdicts, "", Kind.GREEDY_IDENTITY, True, wider)
    assert check.outcome is outcome and check.samples == 2
    assert ("token 5" in check.detail) == (grades[1] in (Grade.DIVERGED, Grade.WRONG))
    shown = identity_check(verdicts, "", Kind.GREEDY_IDENTITY, False, wider)
    assert shown.outcome is CheckOutcome.MEASURED


SJD = {
    "_target_": "specbench.decoding.loops.speculative_jacobi.SpeculativeJacobi",
    "window": 5,
    "coupling": "gumbel",
}
TOKEN_SD = {
    "_target_": "specbench.decoding.draft_verify.DraftVerify",
    "drafter": {"_target_": "specbench.decoding.drafters.model.ModelDrafter"},
    "topology": {"_target_": "specbench.decoding.topologies.chain.Chain"},
    "length": {"_target_": "specbench.decoding.lengths.constant.Constant", "draft_length": 3},
    "verifier": {"_target_": "specbench.decoding.verifiers.token_sd.TokenSD"},
}
JACOBI = {"_target_": "specbench.decoding.loops.jacobi.Jacobi", "window": 4}
PENALISED = Law(temperature=0.8, repetition_penalty=8.0)


def oracle_grades(node):
    models = table_pair(vocab=24, order=1, sharpness=2.0)
    requests = [request(PENALISED, seed, 24) for seed in range(6)]
    return [
        v.grade
        for v in compare_tokens(ReadyDecoder(oracle_of(node), models), requests, judge_coupled)
    ]


@pytest.mark.parametrize("node", [SJD, TOKEN_SD, JACOBI])
def test_the_oracle_is_identical_and_sees_a_history_that_stands_still(node, monkeypatch):
    assert oracle_grades(node) == [Grade.IDENTICAL] * 6
    along = History.along

    def at_the_begin_of_the_round(self, tokens, ancestors):
        seen = along(self, tokens, ancestors)
        return None if seen is None else seen[:, :1].expand_as(seen)

    monkeypatch.setattr(History, "along", at_the_begin_of_the_round)
    assert Grade.WRONG in oracle_grades(node)


def test_a_decoder_of_another_kind_has_no_oracle():
    assert oracle_of({"_target_": "specbench.decoding.loops.autoregressive.Autoregressive"}) is None


def test_coupled_tokens_tie_at_the_border_of_their_stretches_only():
    number = Streams(0, "test").uniform(2, 0)
    for apart, expected in ((1e-12, Grade.TIE), (1e-3, Grade.WRONG)):
        law = torch.tensor([number + apart, 1 - number - apart], dtype=torch.float64)
        models = ModelPair("border", TableModel(lambda context, law=law: law.log(), 2))
        asked = request(Law(), count=1)
        assert generate(Autoregressive(), models, Law(), count=1).tokens == (0,)
        models.target.forward = shaken(models.target.forward)
        assert judge_coupled(models, asked, (0,), (1,)).grade is expected


def shaken(forward):
    """Return a forward whose logits depend a little on its shape."""

    def shape_dependent(tokens, cache, *view):
        return forward(tokens, cache, *view) + 1e-9 * tokens.shape[1] * torch.arange(2)

    return shape_dependent
