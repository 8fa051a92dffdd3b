"""Adaptive weighted rejection sampling with particles."""

from __future__ import annotations

import math
from collections import defaultdict

import pytest
import torch

from specbench.clock import CpuClock
from specbench.decoding.constraints import rejection
from specbench.decoding.constraints.base import DeadEnd
from specbench.decoding.loops.awrs import AdaptiveRejection
from specbench.decoding.request import Request
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel
from specbench.rng import Streams
from tests.unit.decoding.constraints.token_answers import (
    SAMPLED,
    TokenAnswers,
    adaptive,
    binary_grammar,
    conditional,
    mass,
)
from tests.unit.decoding.enumeration import GuessedScript, distance, output_law
from tests.unit.decoding.parts import generate, table_pair

PROMPT = (0, 1)
PENALISED = Law(temperature=0.9, repetition_penalty=1.7)


class Recorded(AdaptiveRejection):
    """Remembers the estimate of the allowed mass after the last step."""

    evidence = math.nan

    def _resampled(self, particles, request, position):
        result = super()._resampled(particles, request, position)
        self.evidence = sum(math.exp(each.weight) for each in result) / len(result)
        return result


def weighted_law(decoder, models, law, count):
    """Return {tokens: E[evidence 1{tokens}]} of a decoder, exactly."""
    result = defaultdict(float)
    pending = [[]]
    while pending:
        script = GuessedScript(pending.pop())
        request = Request(PROMPT, count, law, Streams(0, "enumeration"), choices=script)
        generation = decoder.generate(models, request, CpuClock())
        result[generation.tokens] += script.weight * decoder.evidence
        pending += script.branches
    return result


@pytest.fixture
def one_draw_at_a_time(monkeypatch):
    monkeypatch.setattr(rejection, "_FIRST_DRAWS", 1)


@pytest.mark.parametrize("law", [SAMPLED, PENALISED])
@pytest.mark.parametrize("sharpness", [0.2, 1.0])
def test_one_particle_has_the_law_of_gcd(one_draw_at_a_time, monkeypatch, sharpness, law):
    monkeypatch.setattr(rejection, "phantoms", lambda left, uniform: 0)  # no bearing on the token
    models = table_pair(sharpness=sharpness)
    grammar = TokenAnswers([(0, 1), (1, 0), (1, 1)], vocab=3)
    emitted = output_law(AdaptiveRejection(grammar, 1), models, law, PROMPT, 2)
    assert distance(emitted, adaptive(models, law, PROMPT, grammar)) < 1e-12


@pytest.mark.parametrize("threshold", [0.0, 0.9, 1.0])
def test_two_particles_are_weighted_without_bias(one_draw_at_a_time, threshold):
    models = table_pair(vocab=2, sharpness=0.25)
    grammar = TokenAnswers([(0, 1), (1, 0), (1, 1)], vocab=2)
    decoder = Recorded(grammar, 2, ess_threshold=threshold)
    weighted = weighted_law(decoder, models, SAMPLED, 2)
    assert set(weighted) <= grammar.answers
    for answer in grammar.answers:
        assert weighted[answer] == pytest.approx(mass(models, SAMPLED, PROMPT, answer), abs=1e-12)


def test_two_particles_come_closer_to_the_conditional_law(one_draw_at_a_time):
    models = table_pair(vocab=2, sharpness=0.25)
    grammar = TokenAnswers([(0, 1), (1, 0), (1, 1)], vocab=2)
    truth = conditional(models, SAMPLED, PROMPT, grammar)
    one, two = (
        output_law(AdaptiveRejection(grammar, count, 0.9), models, SAMPLED, PROMPT, 2)
        for count in (1, 2)
    )
    assert distance(two, truth) < 0.8 * distance(one, truth)


@pytest.mark.parametrize("trap", ["weights ignored", "weights kept after resampling"])
def test_wrong_weights_are_caught(one_draw_at_a_time, monkeypatch, trap):
    models = table_pair(vocab=2, sharpness=0.25)
    grammar = TokenAnswers([(0, 1), (1, 0), (1, 1)], vocab=2)
    decoder = Recorded(grammar, 2, ess_threshold=0.9)
    if trap == "weights ignored":
        true_draw = AdaptiveRejection._draw
        monkeypatch.setattr(
            AdaptiveRejection,
            "_draw",
            lambda self, *a: [each._replace(weight=1.0) for each in true_draw(self, *a)],
        )
    else:
        true_resampled = AdaptiveRejection._resampled

        def kept(self, particles, request, position):
            result = true_resampled(self, particles, request, position)
            for particle in result:
                twins = [p for p in particles if p.tokens == particle.tokens]
                particle.weight = max(p.weight for p in twins)
            return result

        monkeypatch.setattr(AdaptiveRejection, "_resampled", kept)
    weighted = weighted_law(decoder, models, SAMPLED, 2)
    wrong = [abs(weighted[a] - mass(models, SAMPLED, PROMPT, a)) for a in grammar.answers]
    assert max(wrong) > 1e-3


@pytest.mark.parametrize("law", [SAMPLED, pytest.param(PENALISED, marks=pytest.mark.slow)])
def test_many_particles_approach_the_conditional_law(law):
    """The share of 00000 within five standard errors, and 0.02 for the finite number."""
    models, grammar, seeds = table_pair(seed=5), binary_grammar(), 150
    truth = conditional(models, law, PROMPT, grammar)[(0,) * 5 + (2,)]
    masked = adaptive(models, law, PROMPT, grammar)[(0,) * 5 + (2,)]
    decoder = AdaptiveRejection(grammar, 16)
    hits = 0
    for seed in range(seeds):
        tokens = generate(decoder, models, law, PROMPT, seed=seed, stop=(2,)).tokens
        assert tokens in grammar.answers
        hits += tokens[0] == 0
    error = 5 * math.sqrt(truth * (1 - truth) / seeds) + 0.02
    assert abs(hits / seeds - truth) < error < abs(masked - truth)


def test_particles_whose_answers_are_equal_are_fed_once():
    def sure(context):
        logits = torch.full((3,), -60.0, dtype=torch.float64)
        logits[len(context) % 2] = 0.0
        return logits

    models = ModelPair("sure", TableModel(sure, 3))
    grammar = TokenAnswers([(0, 1, 0, 1)], vocab=3)
    generation = generate(AdaptiveRejection(grammar, 8), models, SAMPLED, PROMPT, count=4)
    counts = [each.count for each in generation.rounds]
    assert generation.tokens == (0, 1, 0, 1)
    assert [(c.emitted, c.target.forwards, c.target.tokens) for c in counts] == [
        (1, 1, 2),
        (1, 1, 1),
        (1, 1, 1),
        (1, 1, 1),
    ]


@pytest.mark.parametrize("seed", range(6))
def test_the_ledger_adds_up_where_particles_disagree(seed):
    models, grammar = table_pair(seed=seed), binary_grammar()
    generation = generate(AdaptiveRejection(grammar, 5), models, SAMPLED, PROMPT, stop=(2,))
    counts = [each.count for each in generation.rounds]
    assert sum(each.emitted for each in counts) == len(generation.tokens)
    forwards = sum(each.target.forwards for each in counts)
    assert forwards == 6 or generation.tokens[-1] == 2
    fed = sum(each.target.tokens for each in counts)
    assert len(PROMPT) + forwards - 1 <= fed <= len(PROMPT) + 5 * (forwards - 1)


def test_a_law_without_an_allowed_token_is_one_clear_error():
    models, grammar = table_pair(), TokenAnswers([(0, 0, 0), (1, 1, 1)], vocab=3, stop=2)
    with pytest.raises(DeadEnd, match="after . tokens"):
        for seed in range(20):
            law = Law(temperature=1.0, top_k=1)
            generate(AdaptiveRejection(grammar, 2), models, law, PROMPT, seed=seed, stop=(2,))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("particles", {"particles": 0}),
        ("particles", {"particles": 2.5}),
        ("ess_threshold", {"particles": 2, "ess_threshold": 1.5}),
        ("max_accepts", {"particles": 2, "max_accepts": 1}),
    ],
)
def test_impossible_numbers_are_refused(name, values):
    with pytest.raises(ConfigError, match=name):
        AdaptiveRejection(None, **values)
