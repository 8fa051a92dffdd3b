"""PARD and DFlash in training say what the drafters that they become say."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from specbench.hosting import HostRequest, compose_training
from specbench.models.base import Taps, View
from specbench.models.heads.dflash import DFlashBody, DFlashHead
from specbench.models.heads.load import find_head, load_head
from specbench.models.linear import linear
from specbench.models.load import load_pair
from specbench.schema import catalog
from specbench.schema.model import ModelConfig
from specbench.training import room
from specbench.training.corpus import Batch, padded
from specbench.training.learners.dflash import DFlash
from specbench.training.learners.pard import ParallelDraftModel

SMALL = (
    "recipe.steps=2",
    "recipe.save_every=2",
    "recipe.check_every=2",
    "recipe.batch_tokens=128",
    "recipe.data.prompts=4",
    "recipe.data.held_out=2",
    "recipe.data.rows=4",
    "recipe.data.max_new_tokens=10",
    "task.source.count=8",
    "progress=false",
)
DRAW = torch.Generator().manual_seed(0)
TEXT = torch.randint(5, 2048, (2, 20), generator=DRAW).tolist()


@pytest.fixture(scope="module")
def models() -> Any:
    entry = {**catalog.load("model", "tiny_text"), "dtype": "float32"}
    return load_pair(ModelConfig.from_dict(entry))


def batch_of(models: Any, layers: tuple[int, ...]) -> Batch:
    batch = padded(TEXT, [6, 8])
    taps = Taps(layers, every=True)
    cache = models.target.new_cache(2, 32)
    models.target.forward(batch.tokens, cache, View(taps=taps))
    states = {layer: state.clone() for layer, state in zip(layers, taps.states, strict=True)}
    return batch._replace(states=states)


@pytest.fixture
def frozen(models: Any) -> Any:
    eye = torch.eye(256)
    return SimpleNamespace(
        models=models,
        embed=lambda tokens: models.target.embed(tokens).clone(),
        logits=lambda states: models.target.head(states[None])[0].clone(),
        lm_head=lambda: models.target.head(eye[None])[0].clone().t().contiguous(),
    )


def asked(frozen: Any) -> Any:
    return SimpleNamespace(frozen=frozen, device=torch.device("cpu"), seed=3)


def test_pards_copies_are_drafts_with_so_many_masks(models: Any, frozen: Any) -> None:
    from transformers import AutoModelForCausalLM

    from specbench.paths import weights_dir

    learner = ParallelDraftModel(copies=4, keep=0.7, least=0.2, mask_token=0, labels="token")
    learner._room = asked(frozen)
    folder = weights_dir() / "tiny_text_draft"
    learner.module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logits, (rows, positions), copies = learner._guesses(
            batch_of(models, (-1,)), torch.Generator().manual_seed(1)
        )
    assert set(copies.tolist()) == {0, 1, 2, 3}
    for index in range(0, len(logits), 3):
        row, place, copy = int(rows[index]), int(positions[index]), int(copies[index])
        read = [*TEXT[row][: place - copy + 1], *[0] * copy]
        said = models.draft.forward(torch.tensor([read]), models.draft.new_cache(1, 32))
        torch.testing.assert_close(logits[index], said[0, -1], rtol=1e-3, atol=1e-3)


def dflash() -> DFlash:
    return DFlash(
        block_size=4,
        layers=2,
        taps=3,
        heads=4,
        head_width=64,
        feed_forward=64,
        anchors=5,
        decay=4.0,
        mask_token=None,
        labels="token",
    )


def test_dflashs_blocks_are_the_heads(models: Any, frozen: Any) -> None:
    learner = dflash()
    learner.begin(asked(frozen))
    for value in learner.module.parameters():
        value.data += 0.05 * torch.randn(value.shape, generator=DRAW)
    batch = batch_of(models, (1, 5, 9, -1))
    assert tuple(learner.layers(12)) == (1, 5, 9, -1)
    assert learner._taps(36) == [1, 17, 33]
    anchors = torch.tensor([[7, 12, 18], [9, 10, 14]])
    with torch.no_grad():
        logits = learner._guesses(batch, anchors)
    weights = {name: value.detach() for name, value in learner.module.named_parameters()}
    body = DFlashBody(weights, learner._settings, linear)
    target = models.target
    head = DFlashHead(body, learner._settings, target, target.embed, target.head, "head")
    for row, number in ((0, 0), (0, 2), (1, 1)):
        anchor = int(anchors[row, number])
        cache = head.new_cache(1, 32)
        head.remember([batch.states[tap][row : row + 1, :anchor] for tap in head.taps], cache)
        block = torch.tensor([[TEXT[row][anchor], *[head.mask_token] * 3]])
        said = head.forward(block, cache, View(last=4))[0]
        torch.testing.assert_close(logits[row, number], said, rtol=1e-3, atol=1e-3)


def test_dflash_counts_learned_tokens_behind_anchors(models: Any, frozen: Any) -> None:
    learner = dflash()
    learner.begin(asked(frozen))
    anchors, there = torch.tensor([[7, 18], [9, 0]]), torch.tensor([[True, True], [True, False]])
    places, counted = learner._labelled(padded(TEXT, [6, 8]), anchors, there)
    assert places[0, 0].tolist() == [7, 8, 9, 10]
    assert counted.tolist() == [
        [[False, True, True, True], [False, True, False, False]],
        [[False, True, True, True], [False] * 4],
    ]


@pytest.mark.parametrize(("recipe", "labels"), [("pard", "law"), ("dflash", "token")])
def test_what_is_trained_loads_as_it_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, labels: str
) -> None:
    monkeypatch.setenv("SPECBENCH_CACHE", str(tmp_path / "cache"))
    words = (*SMALL, f"recipe={recipe}", f"recipe.learner.labels={labels}")
    folder = room.train(compose_training(HostRequest((*words, f"output={tmp_path / 'out'}"))))
    entry = catalog.load("model", "tiny_text")
    settings = json.loads((folder / "config.json").read_text())
    if recipe == "pard":
        assert settings["pard_token"] == 0 and settings["model_type"] == "llama"
        named = ModelConfig.from_dict({**entry, "draft": str(folder)})
        needs = frozenset({"draft", "parallel_draft"})
        assert load_pair(named, needs=needs).draft.mask_token == 0
    else:
        named = ModelConfig.from_dict({**entry, "head": str(folder)})
        models = load_pair(named, needs=frozenset())
        head = load_head(find_head(named), models.target)
        assert head.family == "dflash" and head.taps == (1, 5, 9)
