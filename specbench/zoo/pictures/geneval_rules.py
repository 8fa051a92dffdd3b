"""GenEval's verdict on what a detector sees in a picture, whatever the detector.

Ghosh et al., 2023, and the official evaluation (djghosh13/geneval, evaluation/evaluate_images.py,
commit af4902f): every clause of `include` must hold and none of `exclude` may; a clause looks at
the `count` most confident things of its class only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

POSITION_THRESHOLD = 0.1
"""Share of both sizes that an offset must exceed to be a relation."""

_RELATION_SHARE = 0.5

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge in pixels."""

Thing = TypeVar("Thing")


class PictureVerdict(NamedTuple):
    """Whether a picture is what was asked for, and if not, why."""

    right: bool
    reasons: tuple[str, ...]


def judge_things(
    wanted: Mapping[str, Any],
    found: Mapping[str, Sequence[Thing]],
    colors_of: Callable[[Sequence[Thing], str], Sequence[str]],
    box_of: Callable[[Thing], Box],
    threshold: float = POSITION_THRESHOLD,
) -> PictureVerdict:
    """Judge the things of a picture.

    Args:
        wanted: GenEval's `include` and `exclude`.
        found: The things of each class, the most confident first.
        colors_of: Returns the colours of things of a class.
        box_of: Returns where a thing is.
        threshold: See `relations`.
    """
    groups: list[list[Box] | None] = []
    reasons: list[str] = []
    for clause in wanted.get("include", ()):
        label, count = clause["class"], clause["count"]
        group = found.get(label, ())[:count]
        boxes = [box_of(thing) for thing in group]
        wrong = ""
        if len(group) < count:
            wrong = f"expected {label}>={count}, found {len(group)}"
        elif (color := clause.get("color")) is not None:
            colors = list(colors_of(group, label))
            if colors.count(color) < count:
                wrong = f"expected {color} {label}>={count}, found {', '.join(colors)}"
        if not wrong and "position" in clause:
            expected, target = clause["position"]
            wrong = _misplaced(boxes, label, expected, groups[target], threshold)
        groups.append(None if wrong else boxes)
        reasons += [wrong] if wrong else []
    for clause in wanted.get("exclude", ()):
        there = len(found.get(clause["class"], ()))
        if there >= clause["count"]:
            reasons.append(f"expected {clause['class']}<{clause['count']}, found {there}")
    return PictureVerdict(not reasons, tuple(reasons))


def _misplaced(
    boxes: list[Box], label: str, expected: str, others: list[Box] | None, threshold: float
) -> str:
    """Return why things do not stand to their target as expected; empty where they do."""
    if others is None:
        return f"no target for {label} to be {expected}"
    for box in boxes:
        for other in others:
            seen = relations(box, other, threshold)
            if expected not in seen:
                words = " and ".join(sorted(seen)) or "no relation"
                return f"expected {label} {expected} target, found {words}"
    return ""


def relations(a: Box, b: Box, threshold: float = POSITION_THRESHOLD) -> frozenset[str]:
    """Return how box a stands to box b.

    The offset of the centres, less `threshold` of both sizes along each axis, must exceed half of
    the distance between the centres along an axis.
    """
    one, other = np.array(a, dtype=float), np.array(b, dtype=float)
    offset = (one[:2] + one[2:4] - other[:2] - other[2:4]) / 2
    sizes = np.abs(one[2:4] - one[:2]) + np.abs(other[2:4] - other[:2])
    beyond = np.maximum(np.abs(offset) - threshold * sizes, 0.0) * np.sign(offset)
    if np.all(np.abs(beyond) < 1e-3):
        return frozenset()
    across, down = beyond / np.linalg.norm(offset)
    holds = {
        "left of": across < -_RELATION_SHARE,
        "right of": across > _RELATION_SHARE,
        "above": down < -_RELATION_SHARE,
        "below": down > _RELATION_SHARE,
    }
    return frozenset(name for name, true in holds.items() if true)
