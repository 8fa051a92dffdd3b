"""What a scene's picture shows, as numbers: the targets from which the rulers' networks learn.

A ruler (the Frechet features, the caption model) has to know every combination of the world, so
its training pictures include those that are held out from the generators.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from specbench.zoo.pictures.render import render_batch
from specbench.zoo.pictures.scene import (
    CLASSES,
    COLORS,
    HELD_OUT_SHARE,
    HELD_OUT_TASKS,
    SHAPES,
    SIZE,
    TASKS,
    Scene,
    class_scene,
    draw_scene,
)

MOST = 4
"""The most things in a scene."""

_CLASS_SHARE = 0.12
_PATCH = 4
_PLACE_WEIGHT, _TONE_WEIGHT = 2.0, 2.0


class Attributes(NamedTuple):
    """What N pictures show.

    Attributes:
        shapes: How many things of each shape, int64 [N, shapes].
        colors: How many things of each colour, int64 [N, colours].
        classes: 1 where a thing of that colour and shape is there, float32 [N, classes].
        places: Mean centre (x, y) and size of the things of each shape, 0 to 1,
            float32 [N, shapes, 3]; meaningless where the shape is absent.
        tones: Mean red, green and blue, contrast between patches and contrast inside patches,
            float32 [N, 5].
    """

    shapes: Tensor
    colors: Tensor
    classes: Tensor
    places: Tensor
    tones: Tensor

    def rows(self, chosen: Tensor) -> Attributes:
        """The attributes of the chosen pictures."""
        return Attributes(*(tensor[chosen] for tensor in self))


class Drawn(NamedTuple):
    """Scenes and their pictures.

    Attributes:
        scenes: The scenes.
        pictures: uint8 [N, SIZE, SIZE, 3].
    """

    scenes: list[Scene]
    pictures: NDArray[np.uint8]


def draw(seed: str, count: int) -> Drawn:
    """Draw scenes of all tasks and classes, held-out combinations included."""
    source = random.Random(seed)
    scenes = []
    for _ in range(count):
        if source.random() < _CLASS_SHARE:
            scenes.append(class_scene(source, source.randrange(len(CLASSES))))
            continue
        task = source.choice(TASKS)
        held_out = task in HELD_OUT_TASKS and source.random() < HELD_OUT_SHARE
        scenes.append(draw_scene(source, task, held_out=held_out))
    return Drawn(scenes, render_batch(scenes, [source.getrandbits(48) for _ in scenes]))


def as_input(pictures: NDArray[np.uint8]) -> Tensor:
    """Return pictures uint8 [N, H, W, 3] as a network takes them: float32 [N, 3, H, W], 0 to 1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255


def tones(pixels: Tensor) -> Tensor:
    """Return the tones of pictures [N, 3, H, W] in 0 to 1 (see `Attributes`), float32 [N, 5]."""
    grey = pixels.mean(1, keepdim=True)
    patches = F.avg_pool2d(grey, _PATCH)
    inside = grey - F.interpolate(patches, scale_factor=_PATCH)
    contrasts = [patches.flatten(1).std(1), inside.flatten(1).std(1)]
    return torch.cat([pixels.mean((2, 3)), torch.stack(contrasts, 1) * 4], 1)


def attributes(drawn: Drawn) -> Attributes:
    """Read the attributes off the scenes, and the tones off the pictures."""
    count = len(drawn.scenes)
    shapes = np.zeros((count, len(SHAPES)), dtype=np.int64)
    colors = np.zeros((count, len(COLORS)), dtype=np.int64)
    classes = np.zeros((count, len(CLASSES)), dtype=np.float32)
    places = np.zeros((count, len(SHAPES), 3), dtype=np.float32)
    for row, scene in enumerate(drawn.scenes):
        for thing in scene.things:
            shape = SHAPES.index(thing.shape)
            shapes[row, shape] += 1
            colors[row, COLORS.index(thing.color)] += 1
            classes[row, CLASSES.index(f"{thing.color} {thing.shape}")] = 1
            places[row, shape] += np.array([thing.x, thing.y, thing.size]) / SIZE
    places /= np.maximum(shapes, 1)[..., None]
    return Attributes(
        torch.from_numpy(shapes),
        torch.from_numpy(colors),
        torch.from_numpy(classes),
        torch.from_numpy(places),
        tones(as_input(drawn.pictures)),
    )


def meanings(scenes: Sequence[Scene]) -> list[str]:
    """Return what each caption asks for as text, equal where two captions mean the same."""
    return [json.dumps([dict(scene.wanted), scene.background], sort_keys=True) for scene in scenes]


class AttributeHeads(nn.Module):  # type: ignore[misc]
    """Linear readings of the attributes from features: what makes features mean something."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.shapes = nn.Linear(features, len(SHAPES) * (MOST + 1))
        self.colors = nn.Linear(features, len(COLORS) * (MOST + 1))
        self.classes = nn.Linear(features, len(CLASSES))
        self.places = nn.Linear(features, len(SHAPES) * 3)
        self.tones = nn.Linear(features, 5)

    def forward(self, features: Tensor) -> Attributes:
        """Read features [N, width]; counts come as logits over 0 to MOST on a last axis."""
        count = len(features)
        return Attributes(
            self.shapes(features).view(count, -1, MOST + 1),
            self.colors(features).view(count, -1, MOST + 1),
            self.classes(features),
            self.places(features).view(count, -1, 3),
            self.tones(features),
        )

    def loss(self, features: Tensor, truth: Attributes) -> Tensor:
        """Return the mean loss of the readings."""
        read = self(features)
        there = (truth.shapes > 0).float()[..., None]
        places = F.smooth_l1_loss(read.places, truth.places, reduction="none", beta=0.05) * there
        return (
            F.cross_entropy(read.shapes.flatten(0, 1), truth.shapes.flatten())
            + F.cross_entropy(read.colors.flatten(0, 1), truth.colors.flatten())
            + F.binary_cross_entropy_with_logits(read.classes, truth.classes) * 3
            + _PLACE_WEIGHT * places.sum() / there.sum().clamp(min=1)
            + _TONE_WEIGHT * F.smooth_l1_loss(read.tones, truth.tones, beta=0.02)
        )


class Accuracy(NamedTuple):
    """How well attributes are read.

    Attributes:
        shapes: Share of pictures with every shape counted right.
        colors: Share of pictures with every colour counted right.
        classes: Share of pictures with every colour-and-shape pair found and none invented.
        place_error: Mean distance between read and true centres, in pixels.
    """

    shapes: float
    colors: float
    classes: float
    place_error: float


def accuracy(read: Attributes, truth: Attributes) -> Accuracy:
    """Compare readings with the truth."""
    there = truth.shapes > 0
    distance = (read.places - truth.places)[..., :2].norm(dim=-1)[there] * SIZE
    return Accuracy(
        (read.shapes.argmax(-1) == truth.shapes).all(1).float().mean().item(),
        (read.colors.argmax(-1) == truth.colors).all(1).float().mean().item(),
        ((read.classes > 0) == (truth.classes > 0)).all(1).float().mean().item(),
        distance.mean().item(),
    )
