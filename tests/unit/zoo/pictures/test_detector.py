"""The detector sees what was drawn, and the judge's verdicts are right both ways."""

from __future__ import annotations

import random

import numpy as np
import pytest

from specbench.zoo.pictures.detector import Found, box_of, detect, judge, judge_found
from specbench.zoo.pictures.render import render, render_batch
from specbench.zoo.pictures.scene import (
    COLORS,
    SHAPES,
    SIZE,
    TASKS,
    Scene,
    Thing,
    draw_scene,
    scene_of,
)


def found(shape: str, color: str = "red", x: float = 24, y: float = 24, size: float = 16) -> Found:
    return Found(shape, color, x, y, size, 100.0, 0.9)


def wanted(caption: str):
    return scene_of(random.Random(0), caption).wanted


@pytest.mark.parametrize("task", TASKS)
def test_fresh_renders_are_judged_right(task: str) -> None:
    source = random.Random(f"detector/{task}")
    scenes = [draw_scene(source, task) for _ in range(50)]
    pictures = render_batch(scenes, [source.getrandbits(32) for _ in scenes])
    verdicts = [judge(s.wanted, p) for s, p in zip(scenes, pictures, strict=True)]
    assert sum(verdict.right for verdict in verdicts) >= 49


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("color", COLORS)
def test_a_thing_is_found_where_it_is(shape: str, color: str) -> None:
    thing = Thing(shape, color, 18, 28, 20)
    (seen,) = detect(render(Scene("colors", (thing,), "", {}), 7))
    assert (seen.shape, seen.color) == (shape, color)
    assert abs(seen.x - 18) <= 1 and abs(seen.y - 28) <= 1 and abs(seen.size - 20) <= 1
    assert seen.confidence > 0.85


def test_an_empty_picture_and_noise_hold_nothing() -> None:
    assert detect(render(Scene("colors", (), "", {}), 0)) == []
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    assert detect(noise) == []


def test_a_blot_is_no_shape() -> None:
    picture = render(Scene("colors", (), "", {}), 0)
    picture[4:10, 4:40] = (214, 46, 44)
    assert detect(picture) == []


def test_things_come_most_confident_first() -> None:
    source = random.Random(3)
    for seed in range(5):
        seen = detect(render(draw_scene(source, "counting"), seed))
        assert [t.confidence for t in seen] == sorted((t.confidence for t in seen), reverse=True)


@pytest.mark.parametrize(
    ("caption", "right", "wrong"),
    [
        ("a photo of a circle", [found("circle")], [found("square")]),
        (
            "a photo of a circle and a square",
            [found("circle"), found("square")],
            [found("circle"), found("circle")],
        ),
        ("a photo of two rings", [found("ring")] * 2, [found("ring")]),
        ("a photo of two rings", [found("ring")] * 2, [found("ring")] * 3),
        ("a photo of a red cross", [found("cross", "red")], [found("cross", "blue")]),
        (
            "a photo of a circle left of a square",
            [found("circle", x=10), found("square", x=36)],
            [found("circle", x=36), found("square", x=10)],
        ),
        (
            "a photo of a circle above a square",
            [found("circle", y=10), found("square", y=36)],
            [found("circle", y=36), found("square", y=10)],
        ),
        (
            "a photo of a red circle and a blue square",
            [found("circle", "red"), found("square", "blue")],
            [found("circle", "blue"), found("square", "red")],
        ),
    ],
)
def test_verdicts_go_both_ways(caption: str, right: list[Found], wrong: list[Found]) -> None:
    assert judge_found(wanted(caption), right) == (True, ())
    verdict = judge_found(wanted(caption), wrong)
    assert not verdict.right and verdict.reasons


def test_a_further_thing_of_another_class_does_no_harm() -> None:
    assert judge_found(wanted("a photo of two rings"), [found("ring")] * 2 + [found("cross")]).right


def test_only_the_most_confident_things_are_looked_at() -> None:
    """GenEval asks the colour of the first `count` objects of a class, not of any."""
    things = [found("cross", "blue"), found("cross", "red")]
    assert judge_found(wanted("a photo of a blue cross"), things).right
    assert not judge_found(wanted("a photo of a red cross"), things).right


def test_a_relation_to_a_missing_target_is_wrong() -> None:
    verdict = judge_found(wanted("a photo of a circle left of a square"), [found("circle", x=10)])
    assert verdict.reasons[0] == "expected square>=1, found 0"
    assert "no target" in verdict.reasons[1]


def test_a_thing_stands_where_its_box_is() -> None:
    assert box_of(found("circle", x=24, y=20, size=16)) == (16, 12, 32, 28)
