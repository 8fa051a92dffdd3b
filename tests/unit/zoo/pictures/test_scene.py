"""Scenes: what captions ask for, what is left open, and what training never sees."""

from __future__ import annotations

import random
from itertools import combinations as pairs_of

import pytest

from specbench.zoo.pictures.scene import (
    CLASSES,
    COLORS,
    COUNTS,
    HELD_OUT_SHARE,
    HELD_OUT_TASKS,
    RELATIONS,
    SHAPES,
    SIZE,
    TASKS,
    WORDINGS,
    Scene,
    class_scene,
    combinations,
    draw_scene,
    left_out,
    scene_of,
    vocabulary,
)


def scenes(task: str, count: int = 300) -> list[Scene]:
    source = random.Random(f"test/{task}")
    return [draw_scene(source, task) for _ in range(count)]


def test_one_seed_draws_one_scene() -> None:
    first, second = (draw_scene(random.Random(5)) for _ in range(2))
    assert first == second
    assert first != draw_scene(random.Random(6))


@pytest.mark.parametrize("task", TASKS)
def test_things_stay_in_the_picture_and_apart(task: str) -> None:
    for scene in scenes(task):
        for thing in scene.things:
            assert thing.shape in SHAPES and thing.color in COLORS
            assert thing.size / 2 < thing.x < SIZE - thing.size / 2
            assert thing.size / 2 < thing.y < SIZE - thing.size / 2
        for first, second in pairs_of(scene.things, 2):
            distance = max(abs(first.x - second.x), abs(first.y - second.y))
            assert distance >= (first.size + second.size) / 2 + 4


@pytest.mark.parametrize("task", TASKS)
def test_things_are_what_is_wanted(task: str) -> None:
    for scene in scenes(task):
        for requirement in scene.wanted["include"]:
            matching = [thing for thing in scene.things if thing.shape == requirement["class"]]
            assert len(matching) == requirement["count"]
            if "color" in requirement:
                assert [thing.color for thing in matching] == [requirement["color"]]
        assert len(scene.things) == sum(item["count"] for item in scene.wanted["include"])


def test_only_counting_excludes_and_only_position_relates() -> None:
    for task in TASKS:
        for scene in scenes(task, 20):
            assert ("exclude" in scene.wanted) == (task == "counting")
            related = any("position" in item for item in scene.wanted["include"])
            assert related == (task == "position")


def test_counting_excludes_one_more() -> None:
    for scene in scenes("counting", 50):
        (included,), (excluded,) = scene.wanted["include"], scene.wanted["exclude"]
        assert excluded == {"class": included["class"], "count": included["count"] + 1}
        assert f" {COUNTS[included['count']]} " in scene.caption


def test_captions_are_worded_as_in_geneval() -> None:
    source = random.Random(0)
    wanted = {
        "a photo of a circle": {"include": [{"class": "circle", "count": 1}]},
        "a photo of three rings": {
            "include": [{"class": "ring", "count": 3}],
            "exclude": [{"class": "ring", "count": 4}],
        },
        "a photo of a circle left of a square": {
            "include": [
                {"class": "square", "count": 1},
                {"class": "circle", "count": 1, "position": ["left of", 0]},
            ]
        },
        "a photo of a red circle and a blue square": {
            "include": [
                {"class": "circle", "count": 1, "color": "red"},
                {"class": "square", "count": 1, "color": "blue"},
            ]
        },
    }
    for caption, expected in wanted.items():
        assert scene_of(source, caption).wanted == expected


def test_words_and_captions_are_few_and_short() -> None:
    assert len(vocabulary()) < 120
    captions = {
        wording.caption(combination)
        for task in TASKS
        for combination in combinations(task)
        for wording in WORDINGS
    }
    assert len(captions) == len(WORDINGS) * sum(len(combinations(task)) for task in TASKS)
    assert max(len(caption.split()) for caption in captions) <= 14
    assert {word for caption in captions for word in caption.split()} <= set(vocabulary())


@pytest.mark.parametrize("task", TASKS)
def test_a_quarter_of_the_tasks_about_two_things_is_held_out(task: str) -> None:
    expected = HELD_OUT_SHARE * len(combinations(task)) if task in HELD_OUT_TASKS else 0
    assert len(left_out(task)) == expected


def test_training_never_draws_a_held_out_caption() -> None:
    held_out = {
        wording.caption(combination)
        for task in HELD_OUT_TASKS
        for combination in left_out(task)
        for wording in WORDINGS
    }
    source = random.Random("training")
    drawn = {draw_scene(source).caption for _ in range(20_000)}
    assert held_out.isdisjoint(drawn)
    asked = {draw_scene(source, held_out=True).caption for _ in range(300)}
    assert asked <= held_out


def test_every_relation_and_shape_is_still_trained_on() -> None:
    trained = set(combinations("position")) - set(left_out("position"))
    assert {item.relation for item in trained} == set(RELATIONS)
    assert {item.named[0].shape for item in trained} == set(SHAPES)
    assert {item.named[1].shape for item in trained} == set(SHAPES)


def test_no_two_classes_have_one_name() -> None:
    assert len(set(CLASSES)) == len(CLASSES) == len(SHAPES) * len(COLORS)


@pytest.mark.parametrize("class_id", range(len(CLASSES)))
def test_a_class_is_one_thing_of_its_name(class_id: int) -> None:
    scene = class_scene(random.Random(class_id), class_id)
    (thing,) = scene.things
    assert f"{thing.color} {thing.shape}" == CLASSES[class_id]
    assert scene.caption == f"class {class_id}"
    assert scene_of(random.Random(class_id), scene.caption) == scene


@pytest.mark.parametrize("caption", ["a photo of a horse", "class 30", "class -1", "class"])
def test_a_caption_that_the_world_lacks_is_refused(caption: str) -> None:
    with pytest.raises(KeyError):
        scene_of(random.Random(0), caption)
