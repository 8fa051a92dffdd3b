"""The world's rule score as a metric."""

from __future__ import annotations

import random

import numpy as np

from specbench.metrics.base import Picture, PictureMetric
from specbench.metrics.shapes_rules import ShapesRules
from specbench.zoo.pictures.render import render
from specbench.zoo.pictures.scene import scene_of


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
