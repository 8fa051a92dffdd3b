"""GenEval's rules, case by case, with a detector that sees what the test says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specbench.errors import ConfigError
from specbench.metrics.base import CorpusMetric, Picture, PictureMetric
from specbench.metrics.geneval import (
    Detection,
    GenEval,
    intersection_over_union,
    kept,
)

BLANK = np.zeros((100, 100, 3), dtype=np.uint8)


def seen(label: str, score: float = 0.95, x: float = 0.0, y: float = 0.0) -> Detection:
    """A detection of 20 x 20 pixels."""
    return Detection(label, score, (x, y, x + 20, y + 20), None)


class Sees:
    """A detector with fixed answers."""

    protocol = "fixed detections"

    def __init__(self, *detections: Detection) -> None:
        self.detections = list(detections)

    def prepare(self, metric: str) -> None:
        """Do nothing."""

    def detect(self, pixels: np.ndarray) -> list[Detection]:
        """Return what it was given."""
        return self.detections


class Reads:
    """Colours by the left edge of the box."""

    protocol = "fixed colours"

    def __init__(self, **colors: str) -> None:
        self.colors = {float(key[1:]): color for key, color in colors.items()}
        self.asked: list[int] = []

    def prepare(self, metric: str) -> None:
        """Do nothing."""

    def read(self, pixels: np.ndarray, detections: Sequence[Detection], label: str) -> list[str]:
        """Return the colours."""
        self.asked.append(len(detections))
        return [self.colors[one.box[0]] for one in detections]


def judge(
    wanted: dict[str, Any],
    *detections: Detection,
    colors: Reads | None = None,
    category: str = "",
    **options: Any,
) -> tuple[bool, str]:
    metric = GenEval(Sees(*detections), colors or Reads(), **options)
    verdict = metric.judge(Picture("x", category, "", wanted, BLANK))
    return verdict.right, "; ".join(verdict.reasons)


def include(label: str, count: int = 1, **more: Any) -> dict[str, Any]:
    return {"class": label, "count": count, **more}


def test_a_single_object() -> None:
    wanted = {"include": [include("bench")]}
    assert judge(wanted, seen("bench")) == (True, "")
    assert judge(wanted, seen("cat")) == (False, "expected bench>=1, found 0")
    assert judge(wanted, seen("bench", 0.31))[0]
    assert not judge(wanted, seen("bench", 0.3))[0]  # the threshold itself is too little
    assert judge(wanted, seen("bench", 0.2), threshold=0.1)[0]


def test_two_objects_need_both() -> None:
    wanted = {"include": [include("bench"), include("cat")]}
    assert judge(wanted, seen("bench"), seen("cat"))[0]
    assert judge(wanted, seen("bench")) == (False, "expected cat>=1, found 0")


COUNT = {"include": [include("bus", 2)], "exclude": [include("bus", 3)]}


@pytest.mark.parametrize(("number", "right"), [(1, False), (2, True), (3, False), (4, False)])
def test_counting_wants_the_exact_number(number: int, right: bool) -> None:
    buses = [seen("bus", 0.99, x=25.0 * place) for place in range(number)]
    assert judge(COUNT, *buses, category="counting")[0] is right


def test_counting_has_a_threshold_of_its_own() -> None:
    buses = [seen("bus", 0.95), seen("bus", 0.92, 25), seen("bus", 0.85, 50)]
    assert judge(COUNT, *buses, category="counting")[0]
    assert judge(COUNT, *buses, category="two_object") == (False, "expected bus<3, found 3")
    assert not judge(COUNT, *buses, category="counting", counting_threshold=0.5)[0]


def test_colours_must_be_those_of_enough_objects() -> None:
    wanted = {"include": [include("car", color="pink")]}
    assert judge(wanted, seen("car"), colors=Reads(x0="pink"))[0]
    right, reason = judge(wanted, seen("car"), colors=Reads(x0="red"))
    assert not right and reason == "expected pink car>=1, found red"


def test_colours_are_asked_of_the_most_confident_only() -> None:
    wanted = {"include": [include("car", color="pink")]}
    colors = Reads(x0="red", x25="pink")
    cars = (seen("car", 0.9, 0), seen("car", 0.8, 25))
    assert not judge(wanted, *cars, colors=colors)[0]
    assert colors.asked == [1]
    assert judge(wanted, *cars[::-1], colors=Reads(x0="red", x25="pink"))[0] is False
    assert judge(wanted, seen("car", 0.8, 0), seen("car", 0.9, 25), colors=colors)[0]


def test_two_coloured_objects_bind_colour_to_class() -> None:
    wanted = {"include": [include("dog", color="pink"), include("cat", color="red")]}
    both = (seen("dog", x=0), seen("cat", x=25))
    assert judge(wanted, *both, colors=Reads(x0="pink", x25="red"))[0]
    assert not judge(wanted, *both, colors=Reads(x0="red", x25="pink"))[0]


def test_places() -> None:
    wanted = {"include": [include("cow"), include("vase", position=["right of", 0])]}
    assert judge(wanted, seen("cow", x=0), seen("vase", x=50))[0]
    right, reason = judge(wanted, seen("cow", x=50), seen("vase", x=0))
    assert not right and reason == "expected vase right of target, found left of"
    right, reason = judge(wanted, seen("cow", x=0), seen("vase", x=1))
    assert reason == "expected vase right of target, found no relation"


def test_a_target_that_failed_fails_the_place() -> None:
    wanted = {"include": [include("cow", color="red"), include("vase", position=["right of", 0])]}
    right, reason = judge(wanted, seen("cow", x=0), seen("vase", x=50), colors=Reads(x0="blue"))
    assert not right and "no target for vase to be right of" in reason


def test_a_place_must_hold_for_all_pairs() -> None:
    wanted = {"include": [include("cow", 2), include("vase", position=["right of", 0])]}
    vase = seen("vase", x=45)
    assert judge(wanted, seen("cow", x=0), seen("cow", x=10), vase)[0]
    assert not judge(wanted, seen("cow", x=0), seen("cow", x=80), vase)[0]


def test_only_the_sixteen_most_confident_count() -> None:
    many = [seen("cat", 0.5 + index / 100) for index in range(20)]
    found = kept(many, 0.3, 16)
    assert len(found["cat"]) == 16
    assert [one.score for one in found["cat"]] == sorted((o.score for o in many), reverse=True)[:16]
    wanted = {"include": [include("cat", 16)], "exclude": [include("cat", 17)]}
    assert judge(wanted, *many)[0]
    assert not judge(wanted, *many, most=17)[0]


def test_overlaps_are_kept_unless_asked() -> None:
    near = [seen("cat", 0.9, 0), seen("cat", 0.8, 1), seen("cat", 0.7, 60), seen("dog", 0.6, 0)]
    assert len(kept(near, 0.3, 16)["cat"]) == 3
    distinct = kept(near, 0.3, 16, 0.5)
    assert [one.score for one in distinct["cat"]] == [0.9, 0.7] and len(distinct["dog"]) == 1


def test_the_limit_comes_before_the_overlaps() -> None:
    near = [seen("cat", 0.9, 0), seen("cat", 0.8, 1), seen("cat", 0.7, 60)]
    assert [one.score for one in kept(near, 0.3, 2, 0.5)["cat"]] == [0.9]


def test_overlap_counts_far_edges() -> None:
    assert intersection_over_union((0, 0, 9, 9), (0, 0, 9, 9)) == 1.0
    assert intersection_over_union((0, 0, 9, 9), (5, 0, 14, 9)) == pytest.approx(50 / 150)
    assert intersection_over_union((0, 0, 9, 9), (20, 0, 29, 9)) == 0.0


def test_scores_are_one_zero_or_none() -> None:
    metric = GenEval(Sees(seen("bench")), Reads())
    pictures = [
        Picture("a", "single_object", "", {"include": [include("bench")]}, BLANK),
        Picture("b", "single_object", "", {"include": [include("cat")]}, BLANK),
        Picture("c", "", "a caption", None, BLANK),
    ]
    assert metric.score(pictures) == [1.0, 0.0, None]
    assert isinstance(metric, PictureMetric) and not isinstance(metric, CorpusMetric)


def test_the_protocol_names_every_threshold() -> None:
    protocol = GenEval(Sees(), Reads()).protocol
    for part in ("fixed detections", "0.3", "counting 0.9", "16 a class", "0.1", "fixed colours"):
        assert part in protocol


@pytest.mark.parametrize(
    ("key", "value"), [("threshold", 1.5), ("counting_threshold", -0.1), ("most", 0)]
)
def test_thresholds_outside_their_range_are_refused(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"metric.geneval.{key}"):
        GenEval(Sees(), Reads(), **{key: value})


def test_every_official_prompt_can_be_judged(shared_data: Path) -> None:
    import json

    from specbench.metrics.geneval import COLORS, TASKS
    from specbench.metrics.mask2former import COCO

    lines = (shared_data / "geneval_metadata.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert {row["tag"] for row in rows} == set(TASKS) and len(rows) == 553
    for row in rows:
        for clause in row["include"] + row.get("exclude", []):
            assert clause["class"] in COCO
            assert clause.get("color", "red") in COLORS
        metric = GenEval(Sees(), Reads())
        assert metric.score([Picture("x", row["tag"], row["prompt"], row, BLANK)]) == [0.0]
