"""Cautious next token prediction: its exact law, its neutral value, and its trials' traces."""

from __future__ import annotations

import math
from collections import defaultdict

import pytest
import torch
from scipy.stats import chisquare

from specbench.choices import Choices
from specbench.clock import CpuClock
from specbench.decoding.loops.cntp import CNTP, MARKS
from specbench.decoding.request import Request
from specbench.decoding.session import Session
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel
from specbench.rng import Streams
from tests.unit.decoding.enumeration import distance, output_law
from tests.unit.decoding.loops.references import (
    checkpoint_pair,
    counts,
    entropy_of,
    logits_after,
)
from tests.unit.decoding.parts import Autoregressive, generate, table_pair

MARK = 2
LAWS = [Law(), Law(temperature=0.8, top_p=0.95), Law(repetition_penalty=1.5)]


class OneMark:
    """A tokenizer to which token 2 is every punctuation mark."""

    def encode(self, text, add_special_tokens=True):
        return [MARK] if len(text) == 1 else [0]

    def decode(self, ids):
        return "a"


class TenMarks:
    """A tokenizer in which every ninth token is a punctuation mark."""

    def encode(self, text, add_special_tokens=True):
        return [9 * MARKS.index(text)] if len(text) == 1 else [1]

    def decode(self, ids):
        return "a"


def marked_pair(vocab=3, seed=0, sharpness=1.0):
    models = table_pair(vocab=vocab, seed=seed, sharpness=sharpness)
    models.tokenizer = OneMark()
    return models


@pytest.mark.parametrize("law", [*LAWS, Law(temperature=0)])
@pytest.mark.parametrize("seed", range(3))
def test_one_trial_is_plain_decoding(law, seed):
    models = marked_pair(vocab=5, seed=seed)
    plain = generate(Autoregressive(), models, law, count=50, seed=seed)
    got = generate(CNTP(trials=1), models, law, count=50, seed=seed)
    assert got.tokens == plain.tokens
    assert counts(got) == counts(plain)


@pytest.mark.parametrize("law", LAWS)
def test_certain_steps_are_plain_decoding(law):
    models = marked_pair(vocab=5)
    plain = generate(Autoregressive(), models, law, count=50)
    assert generate(CNTP(10, 5.0, 6.0), models, law, count=50).tokens == plain.tokens


def test_at_temperature_zero_it_is_greedy_decoding():
    models = marked_pair(vocab=5)
    law = Law(temperature=0, repetition_penalty=1.3)
    plain = generate(Autoregressive(), models, law, count=50)
    assert generate(CNTP(10, 0.0, 0.1), models, law, count=50).tokens == plain.tokens


def test_the_number_of_trials_rises_with_the_entropy():
    decoder = CNTP(40, 1.0, 3.0)
    assert [decoder.count(nats) for nats in (0.0, 1.0, 1.04, 1.06, 2.0, 3.0, 9.0)] == [
        1,
        1,
        1,
        2,
        20,
        40,
        40,
    ]


def outcomes(models, law, context, room):
    """Yield (trial, probability, mean surprise) for every trial behind a context."""
    pending = [((), 1.0)]
    while pending:
        trial, weight = pending.pop()
        if trial and (trial[-1] == MARK or len(trial) == room):
            yield trial, weight, -math.log(weight) / len(trial)
            continue
        logits = logits_after(models.target, law, [*context, *trial])
        for token, chance in enumerate(
            Law(law.temperature, law.top_k, law.top_p).probabilities(logits).tolist()
        ):
            if chance > 0:
                pending.append(((*trial, token), weight * chance))


def true_law(decoder, models, law, prompt, count):
    """Return the law of the output in closed form.

    Of n independent trials the smallest mean surprise is s with probability P(S >= s)^n -
    P(S > s)^n; among trials that tie for it, the first is each with its own probability.
    """
    plain = Law(law.temperature, law.top_k, law.top_p)
    result = defaultdict(float)
    pending = [((), 1.0)]
    while pending:
        tokens, weight = pending.pop()
        if len(tokens) == count:
            result[tokens] += weight
            continue
        context = [*prompt, *tokens]
        probabilities = plain.probabilities(logits_after(models.target, law, context))
        trials = decoder.count(entropy_of(probabilities.log()))
        if trials == 1:
            for token, chance in enumerate(probabilities.tolist()):
                pending.append(((*tokens, token), weight * chance))
            continue
        found = list(outcomes(models, law, context, count - len(tokens)))
        for trial, chance, surprise in found:
            tied = sum(p for _, p, s in found if abs(s - surprise) < 1e-12)
            above = sum(p for _, p, s in found if s > surprise + 1e-12)
            selected = (above + tied) ** trials - above**trials
            pending.append(((*tokens, *trial), weight * selected * chance / tied))
    return dict(result)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("trials", "count"),
    [(2, 2), *(pytest.param(*case, marks=pytest.mark.slow) for case in [(2, 3), (3, 2)])],
)
def test_the_output_law_is_that_of_the_least_perplexing_trial(law, trials, count):
    models = marked_pair(seed=3)
    decoder = CNTP(trials, 0.2, 0.6)
    got = output_law(decoder, models, law, (0, 1), count)
    expected = true_law(decoder, models, law, (0, 1), count)
    assert sum(expected.values()) == pytest.approx(1.0)
    assert distance(got, expected) < 1e-12
    plain = output_law(CNTP(1), models, law, (0, 1), count)
    assert distance(got, plain) > 0.01, "the trials changed nothing"


def sampled(decoder, models, prompt, count, runs):
    """Return how often each output appears over independent requests."""
    seen = defaultdict(int)
    for run in range(runs):
        request = Request(prompt, count, Law(), Streams(7, f"cntp/{run}"))
        seen[decoder.generate(models, request, CpuClock()).tokens] += 1
    return seen


def fits(seen, expected, runs):
    """Say whether counts follow a law; a true one fails once in 10,000 times."""
    keys = sorted(expected)
    return (
        chisquare([seen.get(key, 0) for key in keys], [expected[key] * runs for key in keys]).pvalue
        > 1e-4
    )


def test_trials_and_rounds_use_independent_numbers(monkeypatch):
    """With real random numbers, over several rounds.

    Mutation: every trial of a step gets the same number.
    """
    models = marked_pair(seed=3)
    decoder, runs = CNTP(3, 0.2, 0.6), 1500
    expected = true_law(decoder, models, Law(), (0, 1), 3)
    assert fits(sampled(decoder, models, (0, 1), 3, runs), expected, runs)

    numbers = Streams.numbers

    def equal(self, start, count, purpose, offset=0):
        return numbers(self, start, 1, purpose, offset) * count

    monkeypatch.setattr(Streams, "numbers", equal)
    assert not fits(sampled(decoder, models, (0, 1), 3, runs), expected, runs)


@pytest.mark.parametrize(("name", "engine"), [("llama3", "lean"), ("gpt2", "transformers")])
@pytest.mark.parametrize("law", LAWS[:1] + LAWS[2:])
def test_the_kept_trial_is_what_the_cache_holds(tmp_path, name, engine, law, monkeypatch):
    """Every drawn law must be the one that a forward of the whole text gives."""
    models = checkpoint_pair(tmp_path, name, engine)
    models.tokenizer = TenMarks()
    kept, trial_rounds = [], []

    def watched(session):
        kept.append(session.committed[session._closed :])
        trial_rounds.append(session.target.work.forwards > 1)
        return right(session)

    laws = []
    right = Session.close

    class Recorded(Choices):
        def draw(self, probabilities, uniform):
            if not isinstance(uniform, torch.Tensor):
                laws.append(probabilities[0])
            return super().draw(probabilities, uniform)

    monkeypatch.setattr(Session, "close", watched)
    starts = []
    for seed in range(4):
        starts.append(len(kept))
        generate(CNTP(4, 2.0, 4.0), models, law, (3, 5, 9), 40, seed, choices=Recorded())
    assert sum(trial_rounds) >= 6 and len(laws) == len(kept)
    text = []
    for place, (tokens, found) in enumerate(zip(kept, laws, strict=True)):
        text = [3, 5, 9] if place in starts else text
        expected = Law().probabilities(logits_after(models.target, law, text))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
        text += tokens


def test_trials_that_stay_in_the_cache_are_noticed(monkeypatch):
    """Mutation: discarded trials are never forgotten."""
    models = marked_pair(vocab=5)
    monkeypatch.setattr(type(models.target_cache(9)), "keep", lambda self, base, indices: None)
    with pytest.raises(AssertionError):
        generate(CNTP(5, 0.1, 0.5), models, Law(), count=40)


def test_a_trial_ends_at_a_stop_token_and_at_the_limit():
    models = marked_pair(vocab=5, seed=1)
    for seed in range(10):
        got = generate(CNTP(5, 0.1, 0.5), models, Law(), count=9, seed=seed, stop={4})
        assert 4 not in got.tokens[:-1] and len(got.tokens) <= 9
        rounds = counts(got)
        assert rounds[0].emitted == 1 and sum(c.emitted for c in rounds) == len(got.tokens)


def test_the_ledger_counts_every_trial():
    """Nothing is a mark: three trials of four tokens each, the first step from the prompt."""
    target = TableModel(lambda context: torch.zeros(4, dtype=torch.float64), 4)
    got = counts(generate(CNTP(3, 0.1, 0.2), ModelPair("flat", target), Law(), count=4))
    assert [c.emitted for c in got] == [1, 3]
    assert (got[0].target.forwards, got[0].target.tokens) == (1 + 3, 2 + 3 * 3)
    assert (got[1].target.forwards, got[1].target.tokens) == (0, 0)


class Pieces:
    """A tokenizer with another token for a mark that follows a word."""

    _after = {mark: 50 + place for place, mark in enumerate(MARKS)}

    def encode(self, text, add_special_tokens=True):
        if len(text) == 1:
            return [10 + MARKS.index(text)]
        return [1] if text[1] == ")" else [1, self._after[text[1]]]

    def decode(self, ids):
        return {code: mark for mark, code in self._after.items()}.get(ids[0], "a)")


def test_marks_are_looked_up_alone_and_behind_a_word():
    models = table_pair()
    models.tokenizer = Pieces()
    decoder = CNTP(3)
    decoder.prepare(models)
    place = MARKS.index(")")
    assert decoder._marks[1] == {10 + i for i in range(10)} | {
        50 + i for i in range(10) if i != place
    }


def test_bad_input_is_refused():
    for options in ({"trials": 0}, {"trials": 2, "low": -1}, {"trials": 2, "low": 2, "high": 2}):
        with pytest.raises(ConfigError):
            CNTP(**options)
    CNTP(10).check(Law(temperature=0))
