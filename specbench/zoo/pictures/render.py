"""Draw scenes: lit, textured, antialiased; the same picture for the same scene and seed.

The texture is the point. Every 4 x 4 patch has a brightness and a brush stroke of its own, which
nothing around it predicts, on top of lighting that everything around it predicts. So the laws of
picture tokens are flat and depend weakly on their neighbours, as those of photographs do: the
regime in which couplings of parallel decoding differ.

Randomness is a counter-based hash (splitmix64) of the seed, so that pictures are drawn in batches
and yet depend on their own seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specbench.zoo.pictures.scene import SIZE, Scene

PATCH = 4
"""Width and height of a patch of texture, in pixels."""

PALETTE = MappingProxyType(
    {
        "red": (214, 46, 44),
        "yellow": (236, 200, 40),
        "green": (46, 166, 66),
        "cyan": (58, 200, 214),
        "blue": (48, 84, 214),
        "purple": (172, 58, 198),
    }
)

Floats = NDArray[np.float32]

_CELLS = SIZE // PATCH
_LEVELS = MappingProxyType({None: (68.0, 178.0), "dark": (62.0, 92.0), "bright": (150.0, 184.0)})
_SLOPE = 16.0
_TINT = 7.0
_PATCH_BRIGHTNESS = 15.0
_STROKE = 25.0
_STROKE_WIDTH = 0.30
_SHADING = 0.11
_THING_BRIGHTNESS = 0.10
_THING_STROKE = 0.16
_BATCH = 64
_PER_PATCH = 4
_PER_PICTURE = 8
_NUMBERS = _PER_PATCH * _CELLS * _CELLS + _PER_PICTURE


def render(scene: Scene, seed: int) -> NDArray[np.uint8]:
    """Draw one scene.

    Returns:
        RGB, (SIZE, SIZE, 3). Lighting and texture depend on the seed, all else on the scene.
    """
    picture: NDArray[np.uint8] = render_batch([scene], [seed])[0]
    return picture


def render_batch(scenes: Sequence[Scene], seeds: Sequence[int]) -> NDArray[np.uint8]:
    """Draw many scenes.

    Returns:
        RGB, (scenes, SIZE, SIZE, 3); each picture is what `render` gives for its scene and seed.
    """
    assert len(scenes) == len(seeds)
    pictures = np.empty((len(scenes), SIZE, SIZE, 3), dtype=np.uint8)
    for start in range(0, len(scenes), _BATCH):
        rows = slice(start, start + _BATCH)
        pictures[rows] = _draw(scenes[rows], seeds[rows])
    return pictures


def _draw(scenes: Sequence[Scene], seeds: Sequence[int]) -> NDArray[np.uint8]:
    uniform = _uniform(seeds)
    patches = uniform[:, _PER_PICTURE:].reshape(-1, _PER_PATCH, _CELLS, _CELLS)
    light, along = _lighting(uniform[:, :_PER_PICTURE])
    brightness = _spread(2.0 * patches[:, 0] - 1.0)
    stroke = _strokes(patches[:, 1], patches[:, 2], patches[:, 3])
    canvas = _background(scenes, uniform[:, :_PER_PICTURE], light, brightness, stroke)
    grain = 1.0 + _THING_BRIGHTNESS * brightness + _THING_STROKE * stroke
    depth = max(len(scene.things) for scene in scenes)
    for layer in range(depth):
        _add_layer(canvas, scenes, layer, grain, along)
    pictures: NDArray[np.uint8] = np.clip(canvas + 0.5, 0.0, 255.0).astype(np.uint8)
    return pictures


def _uniform(seeds: Sequence[int]) -> Floats:
    """Numbers in [0, 1) by splitmix64, (pictures, _NUMBERS)."""
    numbers = np.array([seed & 0xFFFFFFFFFFFFFFFF for seed in seeds], dtype=np.uint64)
    state = _mix(numbers[:, None] + np.uint64(0x9E3779B97F4A7C15))
    counter = np.arange(1, _NUMBERS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits = _mix(state + counter[None])
    return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _spread(cells: Floats) -> Floats:
    """Repeat one number per patch over its pixels, (pictures, SIZE, SIZE)."""
    return cells.repeat(PATCH, axis=1).repeat(PATCH, axis=2)


def _lighting(numbers: Floats) -> tuple[Floats, Floats]:
    """The smooth light of a picture, -1 to 1 over its pixels, and its direction (pictures, 2)."""
    angle = numbers[:, 0] * np.float32(2.0 * math.pi)
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    steps = (np.arange(SIZE, dtype=np.float32) + 0.5) * np.float32(2.0 / SIZE) - 1.0
    slope = (
        along[:, 0, None, None] * steps[None, None, :]
        + along[:, 1, None, None] * (steps[None, :, None])
    )
    light: Floats = slope * np.float32(1.0 / math.sqrt(2.0))
    return light, along


def _strokes(angle: Floats, offset: Floats, strength: Floats) -> Floats:
    """One brush stroke per patch, light or dark, of mean about zero, -1 to 1."""
    steps = ((np.arange(PATCH, dtype=np.float32) + 0.5) * (2.0 / PATCH) - 1.0).astype(np.float32)
    turn = angle * np.float32(2.0 * math.pi)
    across = np.cos(turn)[:, :, None, :, None] * steps[None, None, None, None, :]
    across = across + np.sin(turn)[:, :, None, :, None] * steps[None, None, :, None, None]
    distance = across - (offset * np.float32(0.8) - np.float32(0.1))[:, :, None, :, None]
    sign = np.where(strength < 0.5, -1.0, 1.0).astype(np.float32)
    power = sign * (np.float32(0.4) + np.float32(0.6) * np.abs(2.0 * strength - 1.0))
    line = np.exp(-np.square(distance) * np.float32(1.0 / (2 * _STROKE_WIDTH**2))) - np.float32(0.3)
    strokes: Floats = (power[:, :, None, :, None] * line).reshape(-1, SIZE, SIZE)
    return strokes


def _background(
    scenes: Sequence[Scene], numbers: Floats, light: Floats, brightness: Floats, stroke: Floats
) -> Floats:
    """Two tones of nearly grey light under the texture, (pictures, SIZE, SIZE, 3)."""
    low, high = np.array([_LEVELS[scene.background] for scene in scenes], dtype=np.float32).T
    level = low + (high - low) * numbers[:, 1]
    slope = _SLOPE * (0.4 + 0.6 * numbers[:, 2])
    grey = level[:, None, None] + slope[:, None, None] * light
    grey = grey + _PATCH_BRIGHTNESS * brightness + _STROKE * stroke
    tint = (2.0 * numbers[:, 3:5] - 1.0) * _TINT
    warm = tint[:, 0, None, None] + tint[:, 1, None, None] * light
    canvas: Floats = np.stack([grey + warm, grey, grey - warm], axis=3).astype(np.float32)
    return canvas


def _add_layer(
    canvas: Floats, scenes: Sequence[Scene], layer: int, grain: Floats, along: Floats
) -> None:
    """Paint the things with this index over the canvases of their scenes."""
    rows = [row for row, scene in enumerate(scenes) if layer < len(scene.things)]
    things = [scenes[row].things[layer] for row in rows]
    places = np.array([(thing.x, thing.y, thing.size) for thing in things], dtype=np.float32)
    half = places[:, 2, None, None] * np.float32(0.5)
    steps = np.arange(SIZE, dtype=np.float32) + np.float32(0.5)
    x = (steps[None, None, :] - places[:, 0, None, None]) / half
    y = (steps[None, :, None] - places[:, 1, None, None]) / half
    distance = np.empty((len(rows), SIZE, SIZE), dtype=np.float32)
    for shape, outline in OUTLINES.items():
        if chosen := [index for index, thing in enumerate(things) if thing.shape == shape]:
            distance[chosen] = outline(x[chosen], y[chosen])
    cover = np.clip(np.float32(0.5) - distance * half, 0.0, 1.0)
    direction = along[rows][:, :, None, None]
    shade = 1.0 + _SHADING * np.clip(x * direction[:, 0] + y * direction[:, 1], -1.2, 1.2)
    colors = np.array([PALETTE[thing.color] for thing in things], dtype=np.float32)
    paint = (shade * grain[rows])[..., None] * colors[:, None, None, :]
    under = canvas[rows]
    canvas[rows] = under + cover[..., None] * (paint - under)


def _circle(x: Any, y: Any) -> Any:
    return np.sqrt(x * x + y * y) - 1.0


def _square(x: Any, y: Any) -> Any:
    return np.maximum(np.abs(x), np.abs(y)) - 1.0


def _triangle(x: Any, y: Any) -> Any:
    side = (2.0 * np.abs(x) - y - 1.0) / math.sqrt(5.0)
    return np.maximum(side, y - 1.0)


def _ring(x: Any, y: Any) -> Any:
    return np.abs(np.sqrt(x * x + y * y) - 0.74) - 0.26


def _cross(x: Any, y: Any) -> Any:
    wide, narrow = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    return np.maximum(wide - 1.0, narrow - 0.34)


OUTLINES = MappingProxyType(
    {"circle": _circle, "square": _square, "triangle": _triangle, "ring": _ring, "cross": _cross}
)
"""Distance outside the outline, in half sizes; x and y likewise."""
