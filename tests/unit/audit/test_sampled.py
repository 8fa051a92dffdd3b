"""The sampled law test: silent for correct decoders, loud for wrong ones, and never surprised."""

from __future__ import annotations

import math

import pytest
import torch

from specbench.audit.alternatives import PLANTED, Context, laws_of, log_ratios
from specbench.audit.control import Mixed, control_check
from specbench.audit.sampled import FALSE_ALARM, Evidence, Plan, check_of, sample_law
from specbench.audit.verdict import CheckOutcome
from specbench.audit.witnesses import NAMES, Sets
from specbench.decoding.base import Decoder
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.decoding.loops.speculative_jacobi import SpeculativeJacobi
from specbench.decoding.verifiers.token_sd import TokenSD
from specbench.law import Law
from tests.unit.audit.wrong import NoResidual
from tests.unit.decoding.parts import generate, table_pair, token_sd

PROMPTS = ((0, 1), (2, 0, 1))
PLAIN = Law()


class AcceptsTooMuch(TokenSD):
    """Accepts with twice the chance."""

    def draft_law(self, scored, target):
        return super().draft_law(scored, target) / 2


class Shaped(Decoder):
    """Plain decoding whose output is bent afterwards."""

    def __init__(self, bend):
        self._bend = bend

    def generate(self, models, request, clock):
        from dataclasses import replace

        done = Autoregressive().generate(models, request, clock)
        return replace(done, tokens=tuple(self._bend(done.tokens)))


def evidence(decoder, law=PLAIN, samples=150, seed=0, positions=6, drafts=True, **options):
    models = table_pair(vocab=5, sharpness=2.0)
    plan = Plan(PROMPTS, law, samples, positions, seed)
    return sample_law(decoder, models, plan, drafts=drafts, **options)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "law", [Law(), Law(temperature=0.7, top_k=3, repetition_penalty=1.3), Law(top_p=0.8)]
)
def test_correct_decoders_pass(law, seed):
    for decoder in (token_sd(3), SpeculativeJacobi(4, "maximal")):
        found = evidence(decoder, law, samples=40, seed=seed)
        assert not found.found() and found.value < 4
        assert check_of(found, "", True).outcome is CheckOutcome.PASS


@pytest.mark.parametrize("verifier", [NoResidual, AcceptsTooMuch])
def test_wrong_verifiers_are_found_and_sampling_ends_early(verifier):
    found = evidence(token_sd(3, verifier()), samples=600)
    assert found.found() and len(found.terms) < 600
    check = check_of(found, "", True)
    assert check.outcome is CheckOutcome.FAIL and check.p_value <= FALSE_ALARM
    assert check_of(found, "", False).outcome is CheckOutcome.MEASURED


def test_a_forbidden_token_is_enough():
    class Raw(Decoder):
        def generate(self, models, request, clock):
            return generate(Autoregressive(), models, Law(), request.prompt, 6, hash(request))

    found = evidence(Raw(), Law(top_k=1))
    assert found.value == math.inf and "probability 0" in found.strongest()
    assert check_of(found, "", True).outcome is CheckOutcome.FAIL


@pytest.mark.parametrize(
    ("bend", "words"),
    [
        (lambda tokens: (*tokens, 0), "7 tokens where 6"),
        (lambda tokens: tokens[:-1], "ends after 5 tokens"),
        (lambda tokens: (), "ends after 0 tokens"),
        (lambda tokens: (*tokens[:-1], 5), "not in the vocabulary"),
    ],
)
def test_an_output_of_another_shape_is_impossible(bend, words):
    found = evidence(Shaped(bend))
    assert words in found.impossible and found.found()


def test_tokens_behind_the_end_of_the_text_are_impossible():
    models = table_pair(vocab=5)
    models.stop_ids = frozenset({0, 1, 2, 3, 4})
    plan = Plan(PROMPTS, Law(), 4, 3)
    correct = sample_law(Autoregressive(), models, plan)
    assert not correct.impossible and len(correct.terms) == 4
    found = sample_law(Shaped(lambda tokens: (*tokens, 1)), models, plan)
    assert "behind the end of the text" in found.impossible


def draws(generator, bias, positions=3, vocab=4):
    """Sets of one random generation; with a bias towards hits and the draft's law."""
    chances = torch.rand(positions, len(NAMES), generator=generator, dtype=torch.float64)
    happened = torch.rand(chances.shape, generator=generator, dtype=torch.float64)
    laws = torch.rand(2, positions, vocab, generator=generator, dtype=torch.float64)
    target, draft = laws / laws.sum(-1, keepdim=True)
    wrong = laws_of(Context(target, draft))
    drawn = ((1 - bias) * target + bias * draft).multinomial(1, generator=generator)
    hits = (happened < chances + bias).double()
    return Sets(hits, chances, log_ratios(wrong, target, drawn))


def test_the_evidence_has_mean_one_under_the_law():
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(100):
        found = Evidence(3)
        for _ in range(15):
            found.add(draws(generator, 0.0))
        values.append(math.exp(found.value))
    assert max(values) < 1 / FALSE_ALARM
    assert 0.5 < sum(values) / len(values) < 1.6


def test_power_grows_with_the_bias_and_is_small_without_one():
    generator = torch.Generator().manual_seed(1)
    powers = []
    for bias in (0.0, 0.05, 0.2):
        found = Evidence(3)
        for _ in range(120):
            found.add(draws(generator, bias))
        powers.append(found.power())
    assert powers[0] < 0.1 < 0.9 < powers[2] and powers[0] <= powers[1] <= powers[2]


@pytest.mark.parametrize("drafts", [True, False])
def test_the_control_is_found_and_names_its_bias(drafts):
    control = Mixed(drafts=drafts)
    found = evidence(control, samples=100, drafts=drafts, whole=True)
    check = control_check(found, control, "", 240)
    assert check.outcome is CheckOutcome.PASS and check.power > 0.8
    assert control.wrong_law in check.detail


def test_a_control_without_bias_leaves_the_audit_inconclusive():
    control = Mixed(share=0.0)
    found = evidence(control, samples=60)
    assert control_check(found, control, "", 60).outcome is CheckOutcome.INCONCLUSIVE
    expected = generate(Autoregressive(), table_pair(vocab=5), Law(), count=20).tokens
    assert generate(control, table_pair(vocab=5), Law(), count=20).tokens == expected


def test_planted_errors_are_found_as_often_as_wrong_decoders_are():
    """What is stated for a correct decoder's own texts is what a wrong verifier meets."""
    right = evidence(token_sd(3), samples=240, planted=True)
    powers = right.powers()
    assert set(powers) == set(PLANTED) and not right.found()
    assert powers["the target's law in place of the residual"] > 0.9
    assert powers["drafts accepted with twice the chance"] > 0.9
    few = evidence(token_sd(3), samples=10, planted=True).powers()
    assert max(few.values()) < 0.6 and few["drafts accepted with 1.1 times the chance"] < 0.1
    for verifier in (NoResidual(), AcceptsTooMuch()):
        assert evidence(token_sd(3, verifier), samples=240).found()


def test_without_planting_no_power_is_stated():
    assert evidence(token_sd(3), samples=5).powers() == {}
    assert check_of(evidence(token_sd(3), samples=5), "", True).powers == {}


def test_the_power_of_a_larger_sample_is_resampled_from_a_smaller_one():
    found = evidence(Mixed(drafts=True), samples=60, whole=True)
    assert found.power(5) < 0.5 < found.power(400)
