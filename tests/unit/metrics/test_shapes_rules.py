"""The world's rule score as a metric."""

from __future__ import annotations

import random

import numpy as np

from specbench.metrics.base import Picture, PictureMetric
from specbench.metrics.geneval import Detection, GenEval
from specbench.metrics.shapes_rules import ShapesRules
from specbench.zoo.pictures.detector import Found, judge_found
from specbench.zoo.pictures.render import render
from specbench.zoo.pictures.rows import shapes_rows
from specbench.zoo.pictures.scene import COLORS, SHAPES, SIZE, scene_of


def picture(asked: str, drawn: str, reference: object = None) -> Picture:
    source = random.Random(0)
    wanted = scene_of(source, asked).wanted if reference is None else reference
    return Picture("shapes/0", "colors", asked, wanted, render(scene_of(source, drawn), 0))


def test_it_is_a_metric_of_pictures() -> None:
    metric = ShapesRules()
    assert isinstance(metric, PictureMetric)
    metric.prepare()


def test_right_and_wrong_pictures() -> None:
    red, blue = "a photo of a red ring", "a photo of a blue ring"
    assert ShapesRules().score([picture(red, red), picture(red, blue)]) == [1.0, 0.0]


def test_pictures_of_another_world_have_no_score() -> None:
    red = "a photo of a red ring"
    bench = picture(red, red, {"include": [{"class": "bench", "count": 1}]})
    orange = picture(red, red, {"include": [{"class": "ring", "count": 1, "color": "orange"}]})
    unasked = picture(red, red, {"include": []})
    large = Picture("x", "", red, picture(red, red).reference, np.zeros((96, 96, 3), np.uint8))
    assert ShapesRules().score([bench, orange, unasked, large]) == [None] * 4


class Scripted:
    """A detector and colour reader that say what they were given."""

    protocol = "scripted"

    def __init__(self, things: list[Found]) -> None:
        self._detections = [
            Detection(
                thing.shape,
                thing.confidence,
                (
                    thing.x - thing.size / 2,
                    thing.y - thing.size / 2,
                    thing.x + thing.size / 2,
                    thing.y + thing.size / 2,
                ),
                None,
            )
            for thing in things
        ]
        self._colors = [thing.color for thing in things]

    def prepare(self, metric: str) -> None:
        """Nothing to load."""

    def detect(self, pixels: np.ndarray) -> list[Detection]:
        return self._detections

    def read(self, pixels: np.ndarray, detections: list[Detection], label: str) -> list[str]:
        return [self._colors[self._detections.index(one)] for one in detections]


def test_the_verdict_is_that_of_the_geneval_metric() -> None:
    source = random.Random(0)
    seen = set()
    for row in shapes_rows():
        # Few shapes and colours, so that many scenes are nearly right.
        classes = [item["class"] for item in row["include"]] + [source.choice(SHAPES)]
        colors = [item.get("color", "red") for item in row["include"]] + [source.choice(COLORS)]
        confidences = sorted((source.random() for _ in range(source.randrange(1, 6))), reverse=True)
        things = [
            Found(
                source.choice(classes),
                source.choice(colors),
                source.uniform(8, SIZE - 8),
                source.uniform(8, SIZE - 8),
                source.choice([16, 20, 24]),
                100.0,
                confidence,
            )
            for confidence in confidences
        ]
        scripted = Scripted(things)
        metric = GenEval(scripted, scripted, threshold=0.0, counting_threshold=0.0)
        pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
        official = metric.judge(Picture("", row["tag"], row["prompt"], row, pixels))
        verdict = judge_found(row, things)
        assert verdict.right == official.right
        seen.add((row["tag"], verdict.right))
    assert len(seen) == 12
