"""Medusa's heads: published files, the arithmetic of the release, pairings that are refused.

On the same weights the release's own `ResBlock`, in its nn.Sequential, gave the logits of this head
to 2e-14 in float64 (1 and 2 layers, 5 heads), and its `generate_candidates` the tree of
`StaticTree.filled` for three of its trees.
"""

from __future__ import annotations

import pytest
import torch

from specbench.errors import ModelError
from specbench.models.heads.base import HeadFiles
from specbench.models.heads.load import family_of, find_files
from specbench.models.heads.medusa import MedusaHead, MedusaHeads, MedusaSettings
from specbench.models.table import TableModel, markov_table
from tests.unit.models.by_hand import write_checkpoint
from tests.unit.models.heads.level_checkpoints import (
    CHANNELS,
    HEADS,
    SHAPE,
    VOCAB,
    loaded,
    medusa_config,
    medusa_logits,
    medusa_state,
    written,
)
from tests.unit.models.tiny_checkpoints import pairs

LAYOUTS = {
    "v1.3": ("medusa_lm_head.pt", {}, {}),
    "two blocks": ("medusa_lm_head.safetensors", {"layers": 2}, {}),
    "version 2": ("medusa_lm_head.safetensors", {"own": False}, {"version": "2"}),
}


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return pairs(tmp_path_factory.mktemp("targets"))("llama", "lean").target


def lm_head(target):
    return lambda x: target.head(x[None])[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_are_those_of_the_release(layout, tmp_path, target):
    file, options, more = LAYOUTS[layout]
    state, layers = medusa_state(**options), options.get("layers", 1)
    files = written(tmp_path, medusa_config(layers, **more), state, file)
    assert family_of(files) == "medusa"
    head = loaded(files, target)
    assert head.levels == HEADS  # those of the file, and not the 2 of its config.json
    h = torch.randn(5, CHANNELS, dtype=torch.float64)
    want = medusa_logits(state, h, lm_head(target), layers=layers)
    got = head.forward(h[None, :1], head.new_cache(1, 8))
    torch.testing.assert_close(got[0], want[:, 0], rtol=1e-10, atol=1e-10)
    along = head.along(h[None], torch.zeros(1, 5, dtype=torch.int64))
    assert [len(rows) for rows in along] == [3, 2, 1]
    for rows, every in zip(along, want, strict=True):
        torch.testing.assert_close(rows, every[: len(rows)], rtol=1e-10, atol=1e-10)


def test_heads_inside_a_whole_checkpoint(tmp_path, target):
    """Medusa 1.0 is one checkpoint of target and heads, in several files with an index."""
    state = medusa_state(prefix="medusa_head.")
    whole = {**state, "model.norm.weight": torch.ones(CHANNELS)}
    config = {**medusa_config(), "model_type": "llama", "hidden_size": CHANNELS}
    write_checkpoint(tmp_path, config, whole)
    head = loaded(find_files(str(tmp_path)), target)
    h = torch.randn(1, CHANNELS, dtype=torch.float64)
    want = medusa_logits(state, h, None, prefix="medusa_head.")[:, 0]
    got = head.forward(h[None], head.new_cache(1, 8))[0]
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_what_is_trained_computes_the_same_and_has_the_published_names(target):
    for own in (True, False):
        state = medusa_state(own=own)
        heads = MedusaHeads(MedusaSettings(HEADS, 1, CHANNELS, VOCAB if own else None)).double()
        assert set(heads.state_dict()) == set(state)
        heads.load_state_dict(state)
        h = torch.randn(4, CHANNELS, dtype=torch.float64)
        weight = torch.randn(VOCAB, CHANNELS, dtype=torch.float64)
        got = heads(h, lambda x, weight=weight: x @ weight.T)
        want = medusa_logits(state, h, lambda x, weight=weight: x @ weight.T)
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
        got.sum().backward()
        assert all(parameter.grad is not None for parameter in heads.parameters())


def test_heads_begin_as_the_target():
    weight = torch.randn(VOCAB, CHANNELS)
    heads = MedusaHeads(MedusaSettings(2, 1, CHANNELS, VOCAB), weight)
    h = torch.randn(3, CHANNELS)
    torch.testing.assert_close(heads(h, None)[1], h @ weight.T)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"channels": 48}, "its hidden width is 48 and the target's is 32"),
        ({"vocab": 100}, "its vocabulary is 100 and the target's is 96"),
    ],
)
def test_heads_of_another_target_are_refused_unread(options, why, tmp_path, monkeypatch):
    files = written(tmp_path, medusa_config(), medusa_state(**options), "medusa_lm_head.pt")
    monkeypatch.setattr(HeadFiles, "read", lambda self: pytest.fail("weights were read"))
    with pytest.raises(ModelError, match="does not belong to 'llama'") as refusal:
        MedusaHead.check(files, SHAPE)
    assert refusal.value.why == why


@pytest.mark.parametrize(
    ("config", "lacking", "why"),
    [
        (medusa_config(), "2.0.linear.bias", "it lacks the weight '2.0.linear.bias'"),
        (medusa_config(), "1.1.weight", "it lacks the weight '1.1.weight'"),
        (medusa_config(), "0.1.weight", "it lacks the weight '0.1.weight'"),
        (medusa_config("one"), None, "its config.json has medusa_num_layers='one'"),
        (medusa_config(2), None, "it lacks the weight '0.1.linear.weight'"),
    ],
)
def test_incomplete_files_are_refused(config, lacking, why, tmp_path):
    state = medusa_state()
    state.pop(lacking, None)
    files = written(tmp_path, config, state, "medusa_lm_head.safetensors")
    with pytest.raises(ModelError) as refusal:
        MedusaHead.check(files, SHAPE)
    assert refusal.value.why == why


def test_heads_without_lm_heads_need_a_target_that_hands_out_its_own(tmp_path):
    state = medusa_state(own=False)
    files = written(tmp_path, medusa_config(version="2"), state, "medusa_lm_head.safetensors")
    target = TableModel(markov_table(1, 4, 0), 4)
    target.capabilities = frozenset()
    with pytest.raises(ModelError, match="cannot share"):
        MedusaHead.load(files, target)


class Code:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_pickle_of_more_than_tensors_is_not_loaded(tmp_path, capsys):
    state = {**medusa_state(), "0.0.linear.weight": Code()}
    with pytest.raises(ModelError, match="is not loaded"):
        written(tmp_path, medusa_config(), state, "medusa_lm_head.pt")
    assert "code ran" not in capsys.readouterr().out
