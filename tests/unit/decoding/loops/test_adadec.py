"""AdaDec against its definition, and what its rollouts leave behind: nothing."""

from __future__ import annotations

import math

import pytest
import torch

from specbench.decoding.loops import adadec
from specbench.decoding.loops.adadec import AdaDec
from specbench.decoding.session import Session
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table
from tests.unit.decoding.loops.references import (
    checkpoint_pair,
    counts,
    entropy_of,
    logits_after,
)
from tests.unit.decoding.parts import Autoregressive, generate, table_pair

GREEDY = Law(temperature=0)
PENALTY = Law(temperature=0, repetition_penalty=1.5)
PROMPT = (3, 5, 9, 11, 40, 7)


@pytest.mark.parametrize("law", [GREEDY, PENALTY])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "options", [{"tau": math.inf}, {"tau": 0, "candidates": 1}, {"tau": 0, "rollout": 0}]
)
def test_its_neutral_values_are_greedy_decoding(options, law, seed):
    models = table_pair(vocab=5, seed=seed)
    plain = generate(Autoregressive(), models, law, count=40)
    got = generate(AdaDec(**options), models, law, count=40)
    assert got.tokens == plain.tokens
    assert counts(got) == counts(plain)


def test_ties_go_to_the_lowest_id():
    models = ModelPair("tied", TableModel(lambda context: torch.ones(5, dtype=torch.float64), 5))
    for tau in (0.0, math.inf):
        assert generate(AdaDec(tau), models, GREEDY, count=4).tokens == (0,) * 4


def reference(model, law, prompt, count, tau, candidates, rollout, stop=()):
    """Return the tokens and the number of steps that looked ahead, without a cache."""
    text, paused = list(prompt), 0
    while len(text) < len(prompt) + count:
        logits = logits_after(model, law, text)
        logs = logits.log_softmax(-1)
        token = int(logits.argmax())
        if entropy_of(logits) >= tau:
            paused += 1
            best = -math.inf
            for candidate in logits.topk(candidates).indices.tolist():
                path, total, length = [candidate], logs[candidate].item(), 0
                while length < rollout and path[-1] not in stop:
                    following = logits_after(model, law, text + path).log_softmax(-1)
                    path.append(int(following.argmax()))
                    total += following.max().item()
                    length += 1
                if total / (length + 1) > best:
                    best, token = total / (length + 1), candidate
        text.append(token)
        if token in stop:
            break
    return tuple(text[len(prompt) :]), paused


@pytest.mark.parametrize("law", [GREEDY, PENALTY])
@pytest.mark.parametrize("tau", [0.0, 0.9, pytest.param(1.2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stop", [(), (4,)])
def test_the_definition_on_tables(law, tau, stop):
    changed = paused = 0
    for seed in range(12 if stop else 6):
        models = table_pair(vocab=6, seed=seed)
        expected, pauses = reference(models.target, law, (0, 1), 30, tau, 3, 5, stop)
        got = generate(AdaDec(tau), models, law, count=30, stop=stop)
        assert got.tokens == expected
        paused += pauses
        plain = generate(Autoregressive(), models, law, count=30, stop=stop)
        changed += got.tokens != plain.tokens
    assert changed >= 2 and paused >= 5


@pytest.mark.parametrize("law", [GREEDY, PENALTY])
@pytest.mark.parametrize(("name", "engine"), [("llama3", "lean"), ("gpt2", "transformers")])
def test_the_definition_on_checkpoints(tmp_path, name, engine, law):
    """A rollout that left something in the cache would change every later token."""
    models = checkpoint_pair(tmp_path, name, engine)
    expected, paused = reference(models.target, law, PROMPT, 24, 2.0, 3, 4)
    got = generate(AdaDec(2.0, 3, 4), models, law, PROMPT, 24)
    assert got.tokens == expected
    assert paused >= 3
    assert got.tokens != generate(Autoregressive(), models, law, PROMPT, 24).tokens


def cached_tokens(cache):
    return cache.tokens[0][: cache.lengths[0]]


@pytest.mark.parametrize("seed", range(3))
def test_rollouts_leave_the_committed_text_in_the_cache(seed, monkeypatch):
    models = table_pair(vocab=6, seed=seed)
    emitted = []

    def watched(session):
        text = list(session.committed)
        emitted[:] = text[2:]
        assert cached_tokens(session.target.cache) in (text, text[:-1])
        return right(session)

    right = Session.close
    monkeypatch.setattr(Session, "close", watched)
    generate(AdaDec(0.9), models, GREEDY, count=30)
    assert len(emitted) >= 30


def test_rollouts_that_stay_in_the_cache_are_noticed(monkeypatch):
    """Mutation: the rollouts are never forgotten."""
    models = table_pair(vocab=6, seed=1)
    monkeypatch.setattr(type(models.target_cache(9)), "keep", lambda self, base, indices: None)
    with pytest.raises(AssertionError):
        generate(AdaDec(0.9), models, GREEDY, count=30)


def test_rollouts_that_see_each_other_are_noticed(tmp_path, monkeypatch):
    """Mutation: the candidates are fed in causal order."""
    models = checkpoint_pair(tmp_path, "llama3")
    expected, _ = reference(models.target, GREEDY, PROMPT, 24, 2.0, 3, 4)
    monkeypatch.setattr(adadec, "parallel_chains", lambda count, depth, device: (None,) * depth)
    assert generate(AdaDec(2.0, 3, 4), models, GREEDY, PROMPT, 24).tokens != expected


def test_the_length_limit_does_not_change_the_tokens_before_it():
    models = table_pair(vocab=6, seed=2)
    whole = generate(AdaDec(0.9), models, GREEDY, count=30).tokens
    for count in (1, 2, 7, 29):
        assert generate(AdaDec(0.9), models, GREEDY, count=count).tokens == whole[:count]


def test_rollouts_end_at_the_end_of_the_context():
    table = markov_table(2, 6, 2)
    short = ModelPair("short", TableModel(table, 6, context=12))
    long = ModelPair("long", TableModel(table, 6))
    got = generate(AdaDec(0.0), short, GREEDY, (0, 1), 10).tokens
    assert got[:4] == generate(AdaDec(0.0), long, GREEDY, (0, 1), 10).tokens[:4]
    assert len(got) == 10


def test_the_ledger_counts_every_rollout():
    models = table_pair(vocab=6, seed=0)
    got = counts(generate(AdaDec(0.0, 3, 5), models, GREEDY, (0, 1), 20))
    assert got[0].emitted == 1 and sum(c.emitted for c in got) == 20
    assert (got[0].target.forwards, got[0].target.tokens) == (1 + 5, 2 + 15)
    assert all((c.target.forwards, c.target.tokens) == (5, 15) for c in got[1:])
    models = table_pair(vocab=6, seed=0, sharpness=2.0)
    some = counts(generate(AdaDec(0.9, 3, 5), models, GREEDY, (0, 1), 40))
    assert any(c.emitted > 1 for c in some), "a chosen rollout is not decoded again"
    for count in some[1:]:
        rollouts, rest = divmod(count.target.tokens, 15)
        assert rollouts in (0, 1) and count.target.forwards == 5 * rollouts + rest
        assert rest in (0, 1)


def test_bad_input_is_refused():
    for options in ({"tau": -1}, {"tau": 1, "candidates": 0}, {"tau": 1, "rollout": -1}):
        with pytest.raises(ConfigError):
            AdaDec(**options)
    with pytest.raises(ConfigError, match="temperature"):
        AdaDec(1.0).check(Law())
