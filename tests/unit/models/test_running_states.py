"""Running states are made again after any walk back and forth, or the walk is refused."""

from __future__ import annotations

import random

import pytest
import torch

from specbench.errors import ModelError
from specbench.models import running_states
from specbench.models.running_states import state_layers
from tests.unit.models.architectures import CASES, VOCAB, Case, model_of, module_of

KINDS = ["qwen3_next", "mamba", "lfm2"]
"""Chunks that go on from a state, a kernel that begins anew, and a convolution alone."""


@pytest.fixture(scope="module", params=KINDS)
def pair(request):
    return module_of(CASES[request.param]), model_of(CASES[request.param])


def close(got, expected):
    scale = float(expected.std())
    torch.testing.assert_close(got / scale, expected / scale, atol=1e-4, rtol=1e-4)


def walk(model, module, steps, seed, back=6, ahead=6):
    """Feed and take back random tokens; compare every logit with a forward over the text."""
    rng = random.Random(seed)
    text = [rng.randrange(2, VOCAB) for _ in range(5)]
    cache = model.new_cache(1, 512)
    model.forward(torch.tensor([text]), cache)
    for _ in range(steps):
        fed = [rng.randrange(2, VOCAB) for _ in range(rng.choice([1, 1, rng.randrange(1, ahead)]))]
        got = model.forward(torch.tensor([fed]), cache)[0]
        text += fed
        with torch.inference_mode():
            close(got, module(torch.tensor([text])).logits[0, -len(fed) :])
        if rng.random() < 0.5:
            kept = max(6, len(text) - rng.randrange(back))
            text = text[:kept]
            if rng.random() < 0.5:
                cache.truncate([kept])
            else:
                cache.keep([5], [list(range(kept - 5))])
    return cache


def test_a_walk_back_and_forth_keeps_the_law(pair):
    module, model = pair
    walk(model, module, steps=30, seed=1)


def test_tokens_within_reach_can_be_taken_back_behind_a_long_text(pair):
    module, model = pair
    text = [(7 * i + i * i) % (VOCAB - 2) + 2 for i in range(150)]
    cache = model.new_cache(1, 256)
    model.forward(torch.tensor([text[:10]]), cache)
    for token in text[10:]:
        model.forward(torch.tensor([[token]]), cache)
    kept = len(text) - running_states._REACH
    cache.truncate([kept])
    got = model.forward(torch.tensor([[5, 6]]), cache)[0]
    with torch.inference_mode():
        close(got, module(torch.tensor([[*text[:kept], 5, 6]])).logits[0, -2:])


def test_memory_does_not_grow_with_the_answer(pair):
    _, model = pair
    cache = model.new_cache(1, 512)
    model.forward(torch.tensor([[3, 4]]), cache)
    for index in range(140):
        model.forward(torch.tensor([[index % 50 + 2]]), cache)
    states = cache.states
    assert len(states._copies) <= 2 + running_states._REACH // running_states._APART
    kept = sum(inputs[0].shape[1] for _, inputs in states._log.pieces)
    assert kept <= running_states._REACH + 2 * running_states._APART


def test_a_walk_into_the_prompt_is_refused(pair):
    _, model = pair
    cache = model.new_cache(1, 64)
    model.forward(torch.tensor([[3, 4, 5, 6]]), cache)
    cache.truncate([2])
    with pytest.raises(ModelError, match="2 tokens cannot be taken back"):
        model.forward(torch.tensor([[7]]), cache)
    cache.truncate([0])
    assert model.forward(torch.tensor([[3, 4]]), cache).shape == (1, 2, VOCAB)


def test_several_rows_are_refused(pair):
    with pytest.raises(ModelError, match="one sequence at a time"):
        pair[1].new_cache(2, 16)


def test_forgetting_to_roll_back_is_noticed(pair, monkeypatch):
    """Mutation: without the replay the logits are others, so the tests above can fail."""
    module, model = pair
    monkeypatch.setattr(running_states.Mixer, "run", lambda self, inputs, cache: None)
    with pytest.raises(AssertionError):
        walk(model, module, steps=30, seed=1)


def test_a_kernel_that_begins_anew_is_noticed_and_stepped():
    assert "forward" in model_of(CASES["mamba"])._mixers[0]._module.__dict__
    assert "forward" not in model_of(CASES["qwen3_next"])._mixers[0]._module.__dict__


def test_a_layer_with_both_a_state_and_tokens_is_refused_by_name():
    changes = dict(
        mamba_d_ssm=64,
        mamba_n_heads=8,
        mamba_d_head=8,
        mamba_d_state=8,
        mamba_n_groups=1,
        mamba_chunk_size=8,
    )
    case = Case("falcon_h1", changes)
    assert state_layers(case.config) == {}
    with pytest.raises(ModelError, match="falcon_h1"):
        model_of(case)
