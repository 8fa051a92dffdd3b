"""An endless, seeded stream of captioned pictures to learn from."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from specbench.zoo.pictures.render import render_batch
from specbench.zoo.pictures.scene import CLASSES, Scene, class_scene, draw_scene

CLASS_SHARE = 0.12
"""Share of pictures whose caption is a class id."""


class Pictures(NamedTuple):
    """Scenes and what they look like.

    Attributes:
        scenes: The scenes, captions included.
        pixels: RGB, uint8 (scenes, SIZE, SIZE, 3).
        seeds: What each was rendered with.
    """

    scenes: list[Scene]
    pixels: NDArray[np.uint8]
    seeds: Sequence[int] = ()


def training_scene(name: str) -> Scene:
    """Draw the scene with this name: of any task, or of a class."""
    source = random.Random(name)
    if source.random() < CLASS_SHARE:
        return class_scene(source, source.randrange(len(CLASSES)))
    return draw_scene(source)


def picture_stream(seed: int, first: int, stride: int, batch: int) -> Iterator[Pictures]:
    """Yield batches of pictures; held-out combinations of words are never among them.

    Args:
        seed: Names the stream.
        first: Which batch comes first.
        stride: Batches from one to the next, so that processes share a stream.
        batch: Pictures of a batch.
    """
    index = first
    while True:
        numbers = range(index * batch, (index + 1) * batch)
        scenes = [training_scene(f"train/{seed}/{number}") for number in numbers]
        seeds = [(seed << 40) + number for number in numbers]
        yield Pictures(scenes, render_batch(scenes, seeds), seeds)
        index += stride
