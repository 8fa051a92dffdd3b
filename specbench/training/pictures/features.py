"""Train the Frechet features of the world. One thread needs about eight minutes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from specbench.training.loop import Log, Loss, descend
from specbench.training.saving import write_checksums
from specbench.zoo.pictures.attribute_net import AttributeNet
from specbench.zoo.pictures.attributes import (
    Accuracy,
    Attributes,
    accuracy,
    as_input,
    attributes,
    draw,
)

STEPS = 1500

_POOL, _BATCH = 8192, 128
_POOL_PASSES = 2
_RATE, _WEIGHT_DECAY = 2e-3, 0.02
_CHECKED = 2048
_LOG_EVERY = 100


def evaluate(net: AttributeNet, seed: str = "features/check") -> Accuracy:
    """Read the attributes of fresh pictures."""
    drawn = draw(seed, _CHECKED)
    with torch.inference_mode():
        return accuracy(net(as_input(drawn.pictures)), attributes(drawn))


def _stream(seed: int) -> Iterator[tuple[Tensor, Attributes]]:
    """Yield endless batches of pixels and what they show."""
    shuffle = torch.Generator().manual_seed(seed)
    for index in itertools.count():
        drawn = draw(f"features/{seed}/{index}", _POOL)
        truth, pixels = attributes(drawn), as_input(drawn.pictures)
        for _ in range(_POOL_PASSES):
            for chosen in torch.randperm(_POOL, generator=shuffle).split(_BATCH):
                yield pixels[chosen], truth.rows(chosen)


def build(folder: Path, seed: int = 0, steps: int = STEPS) -> AttributeNet:
    """Train the network and write its folder."""
    torch.manual_seed(seed)
    net = AttributeNet()
    optimizer = torch.optim.AdamW(net.parameters(), lr=_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, steps, pct_start=0.1)
    stream = _stream(seed)

    def loss(step: int) -> Loss:
        pixels, truth = next(stream)
        found = net.heads.loss(F.gelu(net.activations(pixels)), truth)
        return Loss(found, found.item())

    def take(step: int) -> None:
        optimizer.step()
        schedule.step()

    descend(list(net.parameters()), steps, loss, take, Log("features", _LOG_EVERY), clip=None)
    net.standardise(as_input(draw(f"features/{seed}/spread", _POOL).pictures))
    net.save(folder)
    write_checksums(folder)
    shipped = AttributeNet.load(folder)
    print(f"{evaluate(shipped)}", flush=True)
    return shipped
