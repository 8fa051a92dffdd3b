"""GenEval: does a picture show the objects, counts, colours and places that were asked for?

The rules are those of `specbench.zoo.pictures.geneval_rules`, over detections above 0.3 (0.9 for
the counting task), the 16 most confident of each class, no suppression of overlaps by default.

Differences: the detector's weights are Meta's own of the same Mask2Former (Swin-S, COCO
instances), because mmdet's are not to be had through transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from specbench.metrics.base import Better, Picture
from specbench.metrics.weights import need_between
from specbench.zoo.pictures.geneval_rules import Box, PictureVerdict, judge_things

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
"""GenEval's tasks, by its own tags; its score is the mean of their means."""

COLORS = (
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "brown",
    "black",
    "white",
)
"""The colours that GenEval tells apart."""


class Detection(NamedTuple):
    """One detected object.

    Attributes:
        label: Its class, by GenEval's name.
        score: The detector's confidence, 0 to 1.
        box: Left, upper, right and lower edge in pixels.
        mask: Where it is, bool [H, W]; None where the detector has no masks.
    """

    label: str
    score: float
    box: Box
    mask: NDArray[np.bool_] | None


class Detector(Protocol):
    """Finds objects.

    Attributes:
        protocol: Network, weights and preprocessing in words.
    """

    protocol: str

    def prepare(self, metric: str) -> None:
        """Load the network; raise a `SpecbenchError` that names a missing file."""

    def detect(self, pixels: NDArray[np.uint8]) -> list[Detection]:
        """Return every candidate, in any order and of any confidence."""


class ColorReader(Protocol):
    """Tells the colours of detected objects.

    Attributes:
        protocol: Network, weights and preprocessing in words.
    """

    protocol: str

    def prepare(self, metric: str) -> None:
        """Load the network; raise a `SpecbenchError` that names a missing file."""

    def read(
        self, pixels: NDArray[np.uint8], detections: Sequence[Detection], label: str
    ) -> list[str]:
        """Return one of `COLORS` for each detection of a class."""


class GenEval:
    """1 for a picture that shows what was asked for, 0 for one that does not.

    Args:
        detector: Finds the objects.
        colors: Tells their colours.
        threshold: Least confidence of a detection.
        counting_threshold: The same in the counting task.
        most: Most detections of one class.
        overlap: Detections that overlap a more confident one of their class by this much
            (intersection over union) are dropped; 1 keeps all.
        position_threshold: Share of both sizes that an offset must exceed to be a relation.
        name: The metric's id.
    """

    version = 1
    unit = ""
    better: Better = "higher"

    def __init__(
        self,
        detector: Detector,
        colors: ColorReader,
        threshold: float = 0.3,
        counting_threshold: float = 0.9,
        most: int = 16,
        overlap: float = 1.0,
        position_threshold: float = 0.1,
        name: str = "geneval",
    ) -> None:
        for key, value in (
            ("threshold", threshold),
            ("counting_threshold", counting_threshold),
            ("overlap", overlap),
            ("position_threshold", position_threshold),
        ):
            need_between(name, key, value, 0.0, 1.0)
        need_between(name, "most", most, 1, 1000)
        self.name = name
        self._detector, self._colors = detector, colors
        self._threshold, self._counting_threshold = threshold, counting_threshold
        self._most, self._overlap = most, overlap
        self._position_threshold = position_threshold
        self.protocol = (
            f"GenEval's verdict: {detector.protocol}, confidence {threshold:g} (counting "
            f"{counting_threshold:g}), {most} a class, overlap {overlap:g}, position threshold "
            f"{position_threshold:g}; colours by {colors.protocol}"
        )

    def prepare(self) -> None:
        """Load detector and colour reader; raise a `SpecbenchError` that names a missing file."""
        self._detector.prepare(self.name)
        self._colors.prepare(self.name)

    def score(self, pictures: Sequence[Picture]) -> list[float | None]:
        """Return 1.0 or 0.0 for each picture, None for one without requirements."""
        return [
            float(self.judge(picture).right) if _asks(picture.reference) else None
            for picture in pictures
        ]

    def judge(self, picture: Picture) -> PictureVerdict:
        """Judge one picture by its reference, which has GenEval's `include` and `exclude`."""
        counting = picture.category == "counting"
        threshold = self._counting_threshold if counting else self._threshold
        candidates = self._detector.detect(picture.pixels)
        found = kept(candidates, threshold, self._most, self._overlap)

        def colors(group: Sequence[Detection], label: str) -> list[str]:
            return self._colors.read(picture.pixels, group, label)

        return judge_things(
            picture.reference, found, colors, lambda one: one.box, self._position_threshold
        )


def kept(
    candidates: Sequence[Detection], threshold: float, most: int, overlap: float = 1.0
) -> dict[str, list[Detection]]:
    """Return the detections of each class that count, the most confident first.

    Args:
        candidates: What the detector saw.
        threshold: Only detections of more than this confidence are kept.
        most: Most detections of a class, before overlaps are dropped.
        overlap: See `GenEval`.
    """
    found: dict[str, list[Detection]] = {}
    for one in sorted(candidates, key=lambda detection: -detection.score):
        if one.score > threshold:
            found.setdefault(one.label, []).append(one)
    return {label: _distinct(group[:most], overlap) for label, group in found.items()}


def _distinct(group: list[Detection], overlap: float) -> list[Detection]:
    if overlap == 1:
        return group
    distinct: list[Detection] = []
    for one in group:
        if all(intersection_over_union(other.box, one.box) < overlap for other in distinct):
            distinct.append(one)
    return distinct


def intersection_over_union(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the overlap of two boxes, whose far edges belong to them, as GenEval counts."""

    def area(left: float, upper: float, right: float, lower: float) -> float:
        return max(right - left + 1, 0.0) * max(lower - upper + 1, 0.0)

    shared = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    union = area(*a[:4]) + area(*b[:4]) - shared
    return shared / union if union else 0.0


def _asks(reference: Any) -> bool:
    return isinstance(reference, Mapping) and bool(reference.get("include"))
