"""What is trained is what the published head computes, and learns where it should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from specbench.errors import ModelError
from specbench.hosting import HostRequest, compose_training
from specbench.models.base import Taps, View
from specbench.models.heads.load import describe, find_head, load_head
from specbench.models.load import load_pair
from specbench.models.pair import ModelPair
from specbench.schema import catalog
from specbench.schema.model import ModelConfig
from specbench.tasks.load import load_task
from specbench.training.corpus import Batch, padded
from specbench.training.frozen import Frozen
from specbench.training.learner import Learner, Room
from specbench.training.learners.eagle import Eagle1, Eagle3
from specbench.training.saving import publish


@pytest.fixture(scope="module")
def models() -> ModelPair:
    return load_pair(ModelConfig.from_dict(catalog.load("model", "tiny_text")), needs=frozenset())


def begun(models: ModelPair, learner: Learner, recipe: str) -> tuple[Learner, Batch]:
    """Return a learner of random weights, as they are after float16, with a batch for it."""
    config = compose_training(HostRequest((f"recipe={recipe}", "task.source.count=80")))
    layers = learner.layers(models.target.layers)
    frozen = Frozen(models, load_task(config.task), config.recipe.data, 0, layers)
    draw = torch.Generator().manual_seed(4)
    rows = [torch.randint(5, 2000, (length,), generator=draw).tolist() for length in (12, 9)]
    batch = frozen.seen(padded(rows, [3, 4]))
    learner.begin(Room(config, frozen, rows, lambda step: batch, models.target.device, 0))
    for name, parameter in learner.module.named_parameters():
        if parameter.ndim == 2:
            fresh = torch.randn(parameter.shape, generator=draw) * parameter.shape[1] ** -0.5
            parameter.data = fresh.half().float()
        elif "norm" not in name:
            raise AssertionError(name)
    return learner, batch


def named(folder: Path) -> ModelConfig:
    return ModelConfig.from_dict({**catalog.load("model", "tiny_text"), "head": str(folder)})


@pytest.mark.parametrize(
    ("learner", "recipe"),
    [(Eagle1(1.0, 0.1, 0.2, 2), "eagle1"), (Eagle3(3, 0.8, 300, 2), "eagle3")],
    ids=["eagle1", "eagle3"],
)
def test_the_loaded_head_drafts_as_the_one_in_training(
    models: ModelPair, tmp_path: Path, learner: Learner, recipe: str
) -> None:
    learner, batch = begun(models, learner, recipe)
    about = {"target": {"digest": models.provenance["target"]["digest"], "source": "x"}}
    publish(tmp_path, learner.write, about)
    files = find_head(named(tmp_path))
    head = load_head(files, models.target)
    assert head.family == recipe and describe(files, head)["training"] == about
    with torch.no_grad():
        laws = next(iter(learner.drafts(batch)))
    places = batch.learned[:, 1:-1] & batch.learned[:, 2:]
    found = []
    for row, length in enumerate(batch.lengths):
        tokens = batch.tokens[row : row + 1, :length]
        states = tuple(batch.states[layer][row : row + 1, :length] for layer in head.taps)
        features = head.features(states)
        cache = head.new_cache(1, 32)
        inputs = head.inputs(tokens[:, 1:], features[:, :-1])
        logits = head.forward(inputs, cache, View(taps=Taps((head.made,))))[0]
        found.append(logits[places[row, : length - 1].nonzero()[:, 0]])
    torch.testing.assert_close(torch.cat(found), laws.draft, rtol=1e-3, atol=1e-3)


def test_a_head_that_was_trained_behind_another_target_is_refused(
    models: ModelPair, tmp_path: Path
) -> None:
    learner, _ = begun(models, Eagle1(1.0, 0.1, 0.2, 2), "eagle1")
    publish(tmp_path, learner.write, {"target": {"digest": "sha256:0", "source": "other"}})
    with pytest.raises(ModelError, match="does not belong to") as told:
        find_head(named(tmp_path))
    assert told.value.why == "it was trained behind 'other'"


@pytest.mark.parametrize("learner", [Eagle1(1.0, 0.1, 0.2, 2), Eagle3(3, 0.8, 300, 2)])
def test_gradients_reach_every_weight_of_the_head_and_nothing_else(
    models: ModelPair, learner: Learner
) -> None:
    learner, batch = begun(models, learner, "eagle1")
    before = models.target.embed(torch.arange(50)[None]).clone()
    found = learner.loss(0, batch, torch.Generator().manual_seed(0))
    found.value.backward()
    for name, parameter in learner.module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert torch.equal(models.target.embed(torch.arange(50)[None]), before)
    later = batch.tokens.clone()
    later[0, -1], later[1, batch.lengths[1] :] = 7, 9
    assert found.places > 0 and not batch.states[-1].requires_grad


def test_the_files_have_the_published_names(models: ModelPair, tmp_path: Path) -> None:
    learner, _ = begun(models, Eagle3(3, 0.8, 300, 2), "eagle3")
    learner.write(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    block = {
        f"midlayer.{name}.weight"
        for name in (
            *(f"self_attn.{part}_proj" for part in "qkvo"),
            *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
            "input_layernorm",
            "hidden_norm",
            "post_attention_layernorm",
        )
    }
    assert set(weights) == block | {"fc.weight", "norm.weight", "lm_head.weight", "d2t", "t2d"}
    ids = torch.arange(300) + weights["d2t"]
    assert weights["d2t"].dtype == torch.int64 and weights["t2d"].dtype == torch.bool
    assert weights["t2d"].nonzero()[:, 0].tolist() == ids.tolist()
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["draft_vocab_size"] == 300 and settings["num_hidden_layers"] == 1
