"""The adapter that is trained is what the loaded head computes behind the same blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from specbench.errors import ConfigError
from specbench.models.heads.load import find_head, load_head
from specbench.models.pair import ModelPair
from specbench.training.learners.kangaroo import Kangaroo
from specbench.training.saving import publish
from tests.unit.training.learners.test_eagle import begun, models, named

__all__ = ["models"]


def test_the_loaded_head_drafts_as_the_one_in_training(models: ModelPair, tmp_path: Path) -> None:
    learner, batch = begun(models, Kangaroo(2), "kangaroo")
    about = {"target": {"digest": models.provenance["target"]["digest"], "source": "x"}}
    publish(tmp_path, learner.write, about)
    files = find_head(named(tmp_path))
    assert set(load_file(tmp_path / "model.safetensors")) == {
        "norm.weight",
        "layers.0.input_layernorm.weight",
        *(f"layers.0.self_attn.{part}_proj.weight" for part in "qkvo"),
    }
    head = load_head(files, models.target)
    assert head.family == "kangaroo"
    with torch.no_grad():
        (laws,) = learner.drafts(batch)
    found = []
    for row, length in enumerate(batch.lengths):
        states = batch.states[1][row : row + 1, :length]
        logits = head.forward(states, head.new_cache(1, 32))[0]
        found.append(logits[batch.predicting[row, :length]])
    torch.testing.assert_close(torch.cat(found), laws.draft, rtol=1e-3, atol=1e-3)


def test_gradients_reach_every_weight(models: ModelPair) -> None:
    learner, batch = begun(models, Kangaroo(2), "kangaroo")
    found = learner.loss(0, batch, torch.Generator())
    found.value.backward()
    for name, parameter in learner.module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert found.places == int(batch.predicting.sum()) > 0


def test_an_exit_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="exit_layer"):
        Kangaroo(0)
