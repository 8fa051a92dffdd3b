"""Grammar-constrained decoding, by enumeration on token grammars."""

from __future__ import annotations

import pytest

from specbench.clock import CpuClock
from specbench.decoding.loops import constrained
from specbench.decoding.loops.asap import ASAp
from specbench.decoding.loops.awrs import AdaptiveRejection
from specbench.decoding.loops.constrained import Constrained
from specbench.decoding.request import Request, StopTokens
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.rng import Streams
from tests.unit.decoding.constraints.token_answers import (
    SAMPLED,
    TokenAnswers,
    Walk,
    adaptive,
    binary_grammar,
    conditional,
)
from tests.unit.decoding.enumeration import distance, output_law
from tests.unit.decoding.parts import Autoregressive, generate, table_pair

PROMPT = (0, 1)
PENALISED = Law(temperature=0.9, repetition_penalty=1.7)


@pytest.mark.parametrize("law", [SAMPLED, PENALISED])
def test_the_law_is_the_targets_renormalised_over_allowed_tokens_step_by_step(law):
    models, grammar = table_pair(), binary_grammar()
    emitted = output_law(Constrained(grammar), models, law, PROMPT, 8, stop=(2,))
    assert distance(emitted, adaptive(models, law, PROMPT, grammar)) < 1e-12
    assert distance(emitted, conditional(models, law, PROMPT, grammar)) > 1e-3


@pytest.mark.parametrize("seed", range(4))
def test_at_temperature_zero_each_token_is_the_best_allowed_one(seed):
    models, grammar = table_pair(seed=seed), binary_grammar()
    tokens = generate(Constrained(grammar), models, Law(temperature=0.0), PROMPT, stop=(2,)).tokens
    best = adaptive(models, Law(temperature=0.02), PROMPT, grammar)
    assert tokens == max(best, key=best.__getitem__)
    assert tokens in grammar.answers


def test_truncation_never_leaves_a_step_without_a_token():
    models, grammar = table_pair(), TokenAnswers([(0, 0, 0)], vocab=3, stop=2)
    law = Law(temperature=1.0, top_k=1, top_p=0.1)
    tokens = generate(Constrained(grammar), models, law, PROMPT, stop=(2,)).tokens
    assert tokens == (0, 0, 0, 2)


@pytest.mark.parametrize(
    "law", [Law(temperature=0.0), SAMPLED, PENALISED, Law(temperature=1.0, top_k=2, top_p=0.8)]
)
@pytest.mark.parametrize(
    "decoder",
    [Constrained(None), ASAp(None, iterations=3), AdaptiveRejection(None, particles=4)],
    ids=["gcd", "asap", "awrs"],
)
def test_no_grammar_is_plain_decoding(decoder, law):
    for seed in range(3):
        models = table_pair(vocab=5, seed=seed)
        plain = generate(Autoregressive(), models, law, PROMPT, seed=seed, stop=(4,))
        free = generate(decoder, models, law, PROMPT, seed=seed, stop=(4,))
        assert free.tokens == plain.tokens
        assert [each.count for each in free.rounds] == [each.count for each in plain.rounds]


def test_a_model_without_text_is_not_constrained_by_a_text_grammar():
    models = table_pair()
    decoder = Constrained("regex:[0-9]+")
    tokens = generate(decoder, models, SAMPLED, PROMPT).tokens
    assert tokens == generate(Autoregressive(), models, SAMPLED, PROMPT).tokens


def test_the_law_test_catches_a_matcher_that_stays(monkeypatch):
    models, grammar = table_pair(), binary_grammar()
    monkeypatch.setattr(Walk, "advance", lambda self, token: None)
    emitted = output_law(Constrained(grammar), models, SAMPLED, PROMPT, 6, stop=(2,))
    assert distance(emitted, adaptive(models, SAMPLED, PROMPT, grammar)) > 1e-3


def test_a_token_outside_the_grammar_is_a_bug(monkeypatch):
    monkeypatch.setattr(constrained, "masked", lambda logits, matcher: logits)
    with pytest.raises(AssertionError):
        output_law(Constrained(binary_grammar()), table_pair(), SAMPLED, PROMPT, 6, stop=(2,))


@pytest.mark.parametrize("decoder", [ASAp(None, 2), AdaptiveRejection(None, 2)])
def test_methods_about_sampling_refuse_temperature_zero(decoder):
    with pytest.raises(ConfigError, match="temperature 0"):
        decoder.check(Law(temperature=0.0))
    decoder.check(SAMPLED)


def test_a_rebound_grammar_follows_the_model():
    grammar = binary_grammar()
    calls = []
    grammar.bind = lambda models: calls.append(models) or grammar
    decoder, first, second = Constrained(grammar), table_pair(), table_pair(seed=3)
    for models in (first, first, second):
        request = Request(PROMPT, 8, SAMPLED, Streams(0, "x"), StopTokens(frozenset({2})))
        assert decoder.generate(models, request, CpuClock()).tokens in grammar.answers
    assert calls == [first, second]


def test_the_ledger_counts_one_forward_for_each_token():
    generation = generate(Constrained(binary_grammar()), table_pair(), SAMPLED, PROMPT, stop=(2,))
    counts = [each.count for each in generation.rounds]
    assert [(c.emitted, c.target.forwards, c.target.tokens) for c in counts] == [
        (1, 1, 2),
        *[(1, 1, 1)] * (len(generation.tokens) - 1),
    ]
