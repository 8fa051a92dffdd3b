"""Renders: determined by scene and seed, textured patch by patch, in the colours of the palette."""

from __future__ import annotations

import random

import numpy as np
import pytest

from specbench.zoo.pictures.render import PALETTE, PATCH, render, render_batch
from specbench.zoo.pictures.scene import COLORS, SHAPES, SIZE, Scene, Thing, draw_scene


def scene(*things: Thing, background: str | None = None) -> Scene:
    return Scene("colors", things, "", {}, background)


def test_a_batch_draws_what_single_pictures_are() -> None:
    source = random.Random(0)
    scenes = [draw_scene(source) for _ in range(70)]
    seeds = [source.getrandbits(63) for _ in scenes]
    pictures = render_batch(scenes, seeds)
    assert pictures.shape == (70, SIZE, SIZE, 3) and pictures.dtype == np.uint8
    for index in (0, 3, 63, 64, 69):
        assert np.array_equal(render(scenes[index], seeds[index]), pictures[index])


def test_the_seed_moves_texture_and_light_alone() -> None:
    drawn = scene(Thing("square", "red", 24, 24, 24))
    first, second = render(drawn, 1), render(drawn, 2)
    assert np.array_equal(first, render(drawn, 1))
    assert (first != second).mean() > 0.9
    reddish = [picture[..., 0].astype(int) - picture[..., 1] > 60 for picture in (first, second)]
    assert np.array_equal(*reddish)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("color", COLORS)
def test_a_thing_has_its_color_in_any_light(shape: str, color: str) -> None:
    drawn = [scene(Thing(shape, color, 24, 24, 20), background=b) for b in ("dark", "bright")]
    place = (18, 24) if shape != "triangle" else (28, 24)
    for picture in render_batch(drawn, [3, 4]):
        painted = picture[place[0] - 2 : place[0] + 2, place[1] - 1 : place[1] + 1]
        seen = painted.reshape(-1, 3).mean(0)
        best = min(PALETTE, key=lambda name: float(np.abs(seen - PALETTE[name]).sum()))
        assert best == color


def test_backgrounds_differ_as_captions_say() -> None:
    dark, bright = (
        render_batch([scene(background=name)] * 50, range(50)).mean((1, 2, 3))
        for name in ("dark", "bright")
    )
    assert dark.max() < 110 < 130 < bright.min()


def test_patches_vary_by_themselves() -> None:
    """Brightness beyond the light is nearly uncorrelated between neighbours, and strong."""
    pictures = render_batch([scene()] * 200, range(200)).astype(float).mean(3)
    cells = SIZE // PATCH
    patches = pictures.reshape(-1, cells, PATCH, cells, PATCH).mean((2, 4))
    second = patches[:, :, 2:] - 2 * patches[:, :, 1:-1] + patches[:, :, :-2]
    spread = second.std() / np.sqrt(6)
    assert 6 < spread < 20
    # Independent patches have correlation -2/3 between neighbouring second differences.
    lag = np.corrcoef(second[:, :, 1:].ravel(), second[:, :, :-1].ravel())[0, 1]
    assert abs(lag + 2 / 3) < 0.05
    inside = pictures - patches.repeat(PATCH, 1).repeat(PATCH, 2)
    assert 5 < inside.std() < 25
