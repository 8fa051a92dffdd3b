"""LayerSkip's curriculum by hand, and a copy of the target that is read early."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from specbench.errors import ConfigError
from specbench.hosting import HostRequest, compose_training
from specbench.models.base import Taps, View
from specbench.models.load import load_pair
from specbench.schema import catalog
from specbench.schema.model import ModelConfig
from specbench.tasks.load import load_task
from specbench.training.corpus import padded
from specbench.training.frozen import Frozen
from specbench.training.learner import Room
from specbench.training.learners.early_exit import EarlyExit
from specbench.training.losses.early_exit import dropout_rates, enabled_exits, exit_weights


def test_later_layers_are_dropped_more_often() -> None:
    assert dropout_rates(5, 0.2) == pytest.approx(
        [0.0, *(0.2 * (2 ** (layer / 4) - 1) for layer in (1, 2, 3)), 0.2]
    )


def test_exits_open_from_the_last_one_down() -> None:
    """Layer l of 4 opens when a share of (4 - l) / 8 of the steps is done."""
    opened = [
        next(step for step in range(80) if enabled_exits("gradual", 4, step, 80, 1)[layer])
        for layer in range(4)
    ]
    assert opened == [40, 30, 20, 0]


def test_exits_rotate() -> None:
    found = [enabled_exits("rotating", 6, step, 9, 3) for step in range(3)]
    assert [[i for i, on in enumerate(each) if on] for each in found] == [
        [0, 3, 5],
        [1, 4, 5],
        [2, 5],
    ]


def test_weights_of_exits() -> None:
    assert exit_weights([True, False, True], "linear", 0.5) == pytest.approx([0.5 / 3.5, 0, 6 / 7])
    assert exit_weights([True, False, True], "uniform", 1.0) == [0.5, 0.0, 0.5]


def test_a_curriculum_that_is_none_is_told() -> None:
    with pytest.raises(ConfigError, match="curriculum=fast"):
        EarlyExit(0.2, "fast", 4, "linear", 1.0)


def test_the_copy_is_the_target_and_its_exits_are_the_targets_layers(tmp_path: Path) -> None:
    models = load_pair(ModelConfig.from_dict(catalog.load("model", "tiny_text")), needs=frozenset())
    config = compose_training(HostRequest(("recipe=layerskip", "task.source.count=80")))
    frozen = Frozen(models, load_task(config.task), config.recipe.data, 0, ())
    learner = EarlyExit(0.2, "gradual", 4, "linear", 1.0)
    batch = padded([[5, 9, 30, 7, 8, 11], [6, 10, 12, 13]], [2, 1])
    learner.begin(Room(config, frozen, [], lambda step: batch, torch.device("cpu"), 0))
    layers = models.target.layers
    taps = Taps(tuple(range(layers)), every=True)
    cache = models.target.new_cache(*batch.tokens.shape)
    logits = models.target.forward(batch.tokens, cache, View(taps=taps))
    laws = list(learner.drafts(batch))
    places = batch.predicting
    assert len(laws) == layers - 1
    torch.testing.assert_close(laws[0].target.detach(), logits[places], rtol=1e-3, atol=1e-3)
    for layer, law in enumerate(laws):
        early = models.target.head(taps.states[layer], normed=False)[places]
        torch.testing.assert_close(law.draft.detach(), early, rtol=1e-3, atol=1e-3)
    found = learner.loss(199, batch, torch.Generator().manual_seed(0))
    assert found.places == 7
    found.value.backward()
    assert all(parameter.grad is not None for parameter in learner.module.parameters())
    learner.write(tmp_path)
    entry = {**catalog.load("model", "tiny_text"), "target": str(tmp_path)}
    copied = load_pair(ModelConfig.from_dict(entry), needs=frozenset()).target
    again = copied.forward(batch.tokens, copied.new_cache(*batch.tokens.shape))
    torch.testing.assert_close(again[places], logits[places], rtol=1e-3, atol=1e-3)


def test_dropout_follows_its_source() -> None:
    learner = EarlyExit(0.9, "rotating", 2, "uniform", 1.0)
    config = compose_training(HostRequest(("recipe=layerskip",)))
    batch = padded([[5, 9, 30, 7]] * 6, [1] * 6)
    room = Room(config, None, [], lambda step: batch, torch.device("cpu"), 0)  # type: ignore[arg-type]
    learner.begin(room)

    def loss(seed: int) -> float:
        with torch.no_grad():
            return learner.loss(0, batch, torch.Generator().manual_seed(seed)).value.item()

    assert loss(1) == loss(1) != loss(2)
