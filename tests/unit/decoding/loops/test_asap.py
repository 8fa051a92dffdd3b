"""ASAp, against a dense reference of its definition and by its limit."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from specbench.clock import CpuClock
from specbench.decoding.base import Decoder
from specbench.decoding.loops import asap
from specbench.decoding.loops.asap import ASAp
from specbench.decoding.loops.constrained import Constrained
from specbench.decoding.request import Request, StopTokens
from specbench.decoding.session import Session
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.rng import Streams
from tests.unit.decoding.constraints.token_answers import (
    SAMPLED,
    TokenAnswers,
    adaptive,
    adaptive_after,
    binary_grammar,
    conditional,
    mass,
)
from tests.unit.decoding.enumeration import distance, output_law
from tests.unit.decoding.parts import generate, table_pair

PROMPT = (0, 1)
PENALISED = Law(temperature=0.9, repetition_penalty=1.7)


def small_grammar():
    return TokenAnswers([(0, 0), (1,), (1, 0), (1, 1, 1)], vocab=3, stop=2)


class Trained(Decoder):
    """Emits a sample from a trie that has learned of `samples` others; enumerable."""

    def __init__(self, grammar, samples):
        self._grammar = grammar
        self._samples = samples
        self.root = None

    def rounds(self, session):
        if self.root is None:
            trained = replace(session.request, streams=Streams(1, "training"))
            teacher = asap._Sampler(Session(session.models, trained, CpuClock()), self._grammar)
            for index in range(self._samples):
                teacher.discarded(index)
            self.root = teacher._root
        sampler = asap._Sampler(session, self._grammar)
        sampler._root = self.root
        return sampler.emitted()


def divergence(truth, law):
    return sum(p * math.log(p / law[answer]) for answer, p in truth.items() if p > 0)


def law_after(samples, models, grammar, law=SAMPLED):
    """Return the law of the sample that follows `samples` seeded ones, and the root's bound."""
    trained = Trained(grammar, samples)
    request = Request(PROMPT, 8, law, Streams(1, ""), StopTokens(frozenset({2})))
    trained.generate(models, request, CpuClock())
    return output_law(trained, models, law, PROMPT, 8, stop=(2,)), trained.root.expected


@pytest.mark.parametrize("law", [SAMPLED, PENALISED])
def test_the_first_sample_has_the_law_of_gcd(law):
    models, grammar = table_pair(), binary_grammar()
    first = output_law(ASAp(grammar, 1), models, law, PROMPT, 8, stop=(2,))
    masked = output_law(Constrained(grammar), models, law, PROMPT, 8, stop=(2,))
    assert distance(first, masked) < 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_the_first_sample_is_the_sample_of_gcd(seed):
    models, grammar = table_pair(seed=seed), binary_grammar()
    first = generate(ASAp(grammar, 1), models, SAMPLED, PROMPT, seed=seed, stop=(2,))
    masked = generate(Constrained(grammar), models, SAMPLED, PROMPT, seed=seed, stop=(2,))
    assert first.tokens == masked.tokens


@pytest.mark.parametrize("law", [SAMPLED, PENALISED])
@pytest.mark.parametrize("iterations", [2, 3])
def test_later_samples_follow_the_definition(iterations, law):
    models, grammar = table_pair(), small_grammar()
    emitted = output_law(ASAp(grammar, iterations), models, law, PROMPT, 8, stop=(2,))
    truth = adaptive_after(models, law, PROMPT, grammar, iterations - 1)
    assert distance(emitted, truth) < 1e-12
    assert distance(emitted, adaptive(models, law, PROMPT, grammar)) > 1e-4


def test_the_law_converges_to_the_targets_conditioned_on_the_grammar():
    models, grammar = table_pair(seed=2, sharpness=1.5), binary_grammar()
    truth = conditional(models, SAMPLED, PROMPT, grammar)
    first, bound = law_after(0, models, grammar)
    assert bound == 1
    divergences = [divergence(truth, first)]
    for samples in (20, 400):
        law, bound = law_after(samples, models, grammar)
        divergences.append(divergence(truth, law))
    assert divergences[0] > 0.05
    assert divergences[1] < divergences[0]
    assert divergences[2] < 1e-3
    parses = sum(mass(models, SAMPLED, PROMPT, answer) for answer in grammar.answers)
    assert parses <= bound < parses * 1.02


def test_a_backup_of_masked_probabilities_never_learns(monkeypatch):
    models, grammar = table_pair(seed=2, sharpness=1.5), binary_grammar()
    true_step = asap._Sampler._step

    def masked_step(self, token, probabilities, weights):
        step = true_step(self, token, probabilities, weights)
        total = step.mass + step.rest
        return step._replace(mass=step.mass / total, rest=step.rest / total)

    monkeypatch.setattr(asap._Sampler, "_step", masked_step)
    law, _ = law_after(400, models, grammar)
    assert divergence(conditional(models, SAMPLED, PROMPT, grammar), law) > 0.05


def test_a_stale_cache_is_caught(monkeypatch):
    models, grammar = table_pair(), small_grammar()
    true_walk = asap._Sampler.walk

    def stale(self):
        cache = self._session.target.cache
        length = cache.lengths[0]
        walk = true_walk(self)
        cache.lengths = [length]
        return walk

    monkeypatch.setattr(asap._Sampler, "walk", stale)
    emitted = output_law(ASAp(grammar, 2), models, SAMPLED, PROMPT, 8, stop=(2,))
    assert distance(emitted, adaptive_after(models, SAMPLED, PROMPT, grammar, 1)) > 1e-4


def test_a_sample_that_the_limit_cuts_keeps_its_bound():
    models, grammar = table_pair(), binary_grammar()
    emitted = output_law(ASAp(grammar, 2), models, SAMPLED, PROMPT, 1, stop=(2,))
    first = adaptive(models, SAMPLED, PROMPT, grammar)
    zero = sum(p for answer, p in first.items() if answer[0] == 0)
    assert emitted[(0,)] == pytest.approx(zero, abs=1e-12)


def test_a_truncated_law_without_an_allowed_token_falls_back_to_the_mask():
    models, grammar = table_pair(), TokenAnswers([(0, 0, 0), (1, 1, 1)], vocab=3, stop=2)
    law = Law(temperature=1.0, top_k=1)
    for seed in range(4):
        tokens = generate(ASAp(grammar, 3), models, law, PROMPT, seed=seed, stop=(2,)).tokens
        assert tokens in grammar.answers


def test_the_ledger_books_earlier_samples_before_the_first_token():
    models, grammar = table_pair(), TokenAnswers([(0, 0, 0)], vocab=3, stop=2)
    generation = generate(ASAp(grammar, 4), models, SAMPLED, PROMPT, stop=(2,))
    counts = [each.count for each in generation.rounds]
    assert [(c.emitted, c.target.forwards, c.target.tokens) for c in counts] == [
        (1, 1 + 3 * 3, 2 + 3 * 3),
        (1, 1, 1),
        (1, 1, 1),
        (1, 1, 1),
    ]


def test_no_trie_is_carried_from_one_request_to_the_next():
    models, grammar = table_pair(), binary_grammar()
    decoder = ASAp(grammar, 5)
    assert not decoder.carries_state
    once = generate(decoder, models, SAMPLED, PROMPT, stop=(2,))
    for seed in range(5):
        generate(decoder, models, SAMPLED, PROMPT, seed=seed, stop=(2,))
    assert generate(decoder, models, SAMPLED, PROMPT, stop=(2,)).tokens == once.tokens


@pytest.mark.parametrize("iterations", [0, -1, 1.5])
def test_impossible_counts_are_refused(iterations):
    with pytest.raises(ConfigError, match="iterations"):
        ASAp(None, iterations)
