"""Hydra's and Hydra++'s heads: published files, the arithmetic of the release, refusals.

On the same weights the release's own `HydraMLP` (1 and 3 layers) and `HydraPrefixMLP` (1 and 4
layers, 4 heads, its own Llama layer), run in float64, gave the logits of these heads to 2e-6 of
their largest, the rounding of weights that were kept in float32; their `_grounded_proposal` gave
the 63 nodes of the trees that `StaticTree` grows from `Levels`.
"""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig

from specbench.errors import ModelError
from specbench.models.base import View
from specbench.models.heads.base import HeadFiles
from specbench.models.heads.hydra import HydraHead, HydraHeads, HydraPlusHead, HydraSettings
from specbench.models.heads.load import family_of
from tests.unit.models.heads.level_checkpoints import (
    CHANNELS,
    HEADS,
    PLUS,
    SHAPE,
    VOCAB,
    hydra_config,
    hydra_logits,
    hydra_state,
    loaded,
    written,
)
from tests.unit.models.tiny_checkpoints import configs, pairs

KINDS = [(1, False), (3, False), (1, True), (4, True)]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return pairs(tmp_path_factory.mktemp("targets"))("llama", "lean").target


def text(target, length=7):
    h = torch.randn(length, CHANNELS, dtype=torch.float64)
    tokens = torch.randint(0, VOCAB, (1, length))
    return h, tokens, target.embed(tokens)[0]


@pytest.mark.parametrize(("layers", "plus"), KINDS)
def test_logits_are_those_of_the_release(layers, plus, tmp_path, target):
    state = hydra_state(layers=layers, plus=plus)
    files = written(tmp_path, hydra_config(layers, plus), state, "hydra_lm_head.pt")
    assert family_of(files) == ("hydra_pp" if plus else "hydra")
    head = loaded(files, target)
    h, tokens, embedded = text(target)
    want = hydra_logits(state, h, embedded, layers=layers, plus=plus)
    got = head.along(h[None], tokens)
    assert [len(rows) for rows in got] == [5, 4, 3]
    for rows, every in zip(got, want, strict=True):
        close = 2e-5 if plus else 1e-9  # a target's rotary tables are made in float32
        torch.testing.assert_close(rows, every[: len(rows)], rtol=close, atol=close)


def test_states_are_read_piece_by_piece(tmp_path, target):
    """What Hydra++ makes of a text's states does not depend on how many come at once."""
    state = hydra_state(plus=True)
    head = loaded(written(tmp_path, hydra_config(plus=True), state, "hydra_lm_head.pt"), target)
    h = torch.randn(1, 9, CHANNELS, dtype=torch.float64)
    whole = head.forward(h, head.new_cache(1, 16))
    cache, pieces = head.new_cache(1, 16), []
    for part in h.split([4, 1, 3, 1], 1):
        pieces.append(head.forward(part, cache, View(last=0)))
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("layers", "plus"), KINDS)
def test_what_is_trained_computes_the_same_and_has_the_published_names(layers, plus, target):
    state = hydra_state(layers=layers, plus=plus)
    block = configs()["llama"]
    block.num_hidden_layers = 1
    settings = HydraSettings(HEADS, layers, CHANNELS, VOCAB, plus=plus, dropout=0.2)
    heads = HydraHeads(settings, LlamaConfig(**block.to_dict()) if plus else None).double().eval()
    state.pop(f"{PLUS}embed_tokens.weight", None)
    assert set(heads.state_dict()) == set(state)
    heads.load_state_dict(state)
    h, _, embedded = text(target)
    got = heads(h[None], embedded[None])
    for rows, want in zip(
        got, hydra_logits(state, h, embedded, layers=layers, plus=plus), strict=True
    ):
        torch.testing.assert_close(rows[0], want, rtol=1e-5, atol=1e-5)  # the library's rotary: f32
    sum(rows.sum() for rows in got).backward()
    assert all(parameter.grad is not None for parameter in heads.parameters())


def test_the_state_is_taken_where_the_settings_say(tmp_path, target):
    for offset, tap in ((0, -1), (1, 1), (2, 0)):
        files = written(
            tmp_path / str(offset),
            hydra_config(hidden_state_offset=offset),
            hydra_state(),
            "hydra_lm_head.pt",
        )
        assert loaded(files, target).taps == (tap,)


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"channels": 48}, "its hidden width is 48 and the target's is 32"),
        ({"vocab": 100}, "its vocabulary is 100 and the target's is 96"),
    ],
)
def test_heads_of_another_target_are_refused_unread(plus, options, why, tmp_path, monkeypatch):
    state = hydra_state(plus=plus, **options)
    files = written(tmp_path, hydra_config(plus=plus), state, "hydra_lm_head.pt")
    monkeypatch.setattr(HeadFiles, "read", lambda self: pytest.fail("weights were read"))
    with pytest.raises(ModelError, match="does not belong to 'llama'") as refusal:
        (HydraPlusHead if plus else HydraHead).check(files, SHAPE)
    assert refusal.value.why == why


def test_a_block_of_another_family_or_other_attention_heads_is_refused(tmp_path, target):
    state = hydra_state(plus=True)
    files = written(tmp_path / "a", hydra_config(plus=True), state, "hydra_lm_head.pt")
    with pytest.raises(ModelError, match="does not belong"):
        HydraPlusHead.check(files, SHAPE._replace(family="qwen3"))
    name = f"{PLUS}layers.0.self_attn.k_proj.weight"
    state = {**state, name: state[name][:16]}
    with pytest.raises(ModelError, match="cannot be read"):
        loaded(written(tmp_path / "b", hydra_config(plus=True), state, "hydra_lm_head.pt"), target)


@pytest.mark.parametrize(
    ("config", "change", "why"),
    [
        ({"grounded_heads": False}, None, "its heads read no tokens (grounded_heads is not true)"),
        ({"hydra_num_layers": "3"}, None, "its config.json has hydra_num_layers='3'"),
        ({}, "hydra_lm_head.1.bias", "it lacks the weight 'hydra_lm_head.1.bias'"),
        (
            {},
            "hydra_lm_head.0.weight",
            "it lacks the weight 'hydra_lm_head.0.weight', or it is no matrix",
        ),
        ({"hidden_state_offset": 3}, None, "it reads a state 3 blocks below the last of 3"),
    ],
)
def test_incomplete_files_are_refused(config, change, why, tmp_path):
    state = hydra_state(layers=3)
    state.pop(change, None)
    files = written(tmp_path, {**hydra_config(3), **config}, state, "hydra_lm_head.pt")
    with pytest.raises(ModelError) as refusal:
        HydraHead.check(files, SHAPE)
    assert refusal.value.why == why


def test_repeated_blocks_that_differ_are_refused(tmp_path, target):
    state = hydra_state(layers=3)
    name = "hydra_mlp.1.1.linear.weight"
    state[name] = state[name] + 1
    files = written(tmp_path, hydra_config(3), state, "hydra_lm_head.pt")
    with pytest.raises(ModelError) as refusal:
        loaded(files, target)
    assert refusal.value.why == f"'{name}' is not the block that it repeats"
