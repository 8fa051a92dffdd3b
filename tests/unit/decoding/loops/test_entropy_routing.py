"""Entropy adaptive decoding: its two extremes, its rule, and the catch-up of caches."""

from __future__ import annotations

import math

import pytest
import torch

from specbench.decoding.loops.entropy_routing import EntropyRouting
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel
from tests.unit.decoding.loops.references import (
    checkpoint_pair,
    counts,
    entropy_of,
    logits_after,
)
from tests.unit.decoding.parts import Autoregressive, generate, table_pair

LAWS = [
    Law(temperature=0),
    Law(temperature=0, repetition_penalty=1.5),
    Law(temperature=0.8, top_p=0.9, repetition_penalty=1.2),
]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("seed", range(3))
def test_threshold_zero_is_plain_decoding_of_the_target(law, seed):
    models = table_pair(vocab=5, seed=seed)
    plain = generate(Autoregressive(), models, law, seed=seed)
    got = generate(EntropyRouting(tau=0), models, law, seed=seed)
    assert got.tokens == plain.tokens
    assert counts(got) == counts(plain)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("seed", range(3))
def test_threshold_infinity_is_plain_decoding_of_the_draft(law, seed):
    models = table_pair(vocab=5, seed=seed)
    plain = generate(Autoregressive(), ModelPair("draft", models.draft), law, seed=seed)
    got = generate(EntropyRouting(tau=math.inf), models, law, seed=seed)
    assert got.tokens == plain.tokens
    assert sum(c.target.forwards + c.target.tokens for c in counts(got)) == 0
    assert [c.draft.tokens for c in counts(got)] == [c.target.tokens for c in counts(plain)]


def reference(models, law, prompt, count, tau, window, dwell):
    """Return the greedy tokens and who wrote each, without a cache."""
    text, writers, recent = list(prompt), [], []
    large, stay = True, 0
    for _ in range(count):
        model = models.target if large else models.draft
        logits = logits_after(model, law, text)
        text.append(int(logits.argmax()))
        writers.append(large)
        raw = logits_after(model, Law(), text[:-1])
        recent.append(entropy_of(raw) / math.log(2))
        stay += 1
        mean = sum(recent[-window:]) / len(recent[-window:])
        if (mean > tau) is not large and stay >= dwell:
            large, recent, stay = not large, [], 0
    return text[len(prompt) :], writers


def written_by_large(generation):
    return [c.target.forwards == 1 for c in counts(generation)]


@pytest.mark.parametrize("law", LAWS[:2])
@pytest.mark.parametrize(("window", "dwell"), [(1, 1), (3, 1), (2, 4)])
def test_the_rule_on_tables(law, window, dwell):
    switches = 0
    for seed in range(4):
        models = table_pair(vocab=5, seed=seed, sharpness=2.0)
        tokens, writers = reference(models, law, (0, 1), 40, 1.3, window, dwell)
        got = generate(EntropyRouting(1.3, window, dwell), models, law, count=40)
        assert list(got.tokens) == tokens
        assert written_by_large(got) == writers
        switches += sum(a != b for a, b in zip(writers, writers[1:], strict=False))
    assert switches > 5, "the case would have shown nothing"


@pytest.mark.parametrize(("tau", "large"), [(1.9, True), (2.1, False)])
def test_the_threshold_is_in_bits(tau, large):
    """A law of four equal tokens has two bits, and 1.39 nats."""
    even = TableModel(lambda context: torch.zeros(4, dtype=torch.float64), 4)
    got = generate(EntropyRouting(tau, 1, 1), ModelPair("even", even, even), Law(), count=6)
    assert written_by_large(got) == [True, *[large] * 5]


def test_a_model_stays_for_the_least_time():
    models = table_pair(vocab=5, seed=1, sharpness=2.0)
    writers = written_by_large(generate(EntropyRouting(1.3, 1, 4), models, Law(), count=200))
    turns = [i for i in range(1, 200) if writers[i] != writers[i - 1]]
    stays = [b - a for a, b in zip([0, *turns], turns, strict=False)]
    assert len(stays) > 5 and min(stays) >= 4


def test_catch_up_is_fed_once_and_counted(tmp_path):
    models = checkpoint_pair(tmp_path, "llama", noise=0.1)
    law = Law(temperature=0)
    prompt = (3, 5, 9, 11)
    tokens, writers = reference(models, law, prompt, 60, 3.75, 2, 2)
    got = generate(EntropyRouting(3.75, 2, 2), models, law, prompt, 60)
    assert list(got.tokens) == tokens, "a model that caught up must see what a prefill shows"
    assert written_by_large(got) == writers
    assert 10 < sum(writers) < 50
    read = {True: 0, False: 0}
    for place, (count, large) in enumerate(zip(counts(got), writers, strict=True)):
        own, other = count.target.tokens, count.draft.tokens
        fed, idle = (own, other) if large else (other, own)
        assert idle == 0 and fed == len(prompt) + place - read[large]
        read[large] += fed


def test_a_switch_without_catch_up_is_noticed(monkeypatch):
    """Mutation: the model that takes over reads only the newest token."""
    models = table_pair(vocab=5, seed=1, sharpness=2.0)
    forward = type(models.draft).forward

    def lazy(self, tokens, cache, *view):
        newest = tokens if cache.lengths[0] == 0 and self is models.target else tokens[:, -1:]
        return forward(self, newest, cache, *view)

    monkeypatch.setattr(type(models.draft), "forward", lazy)
    with pytest.raises(AssertionError):
        generate(EntropyRouting(1.3, 1, 1), models, Law(temperature=0), count=40)


@pytest.mark.parametrize(
    "options", [{"tau": -0.1}, {"tau": 1, "window": 0}, {"tau": 1, "dwell": 0}]
)
def test_impossible_parameters_are_refused(options):
    with pytest.raises(ConfigError):
        EntropyRouting(**options)


def test_certain_laws_have_no_entropy():
    assert entropy_of(torch.tensor([0.0, -math.inf])) == 0.0
