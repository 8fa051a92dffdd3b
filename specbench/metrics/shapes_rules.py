"""Whether a picture of the embedded world shows what was asked for, by rules without weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from specbench.metrics.base import Better, Picture
from specbench.zoo.pictures.detector import CONFIDENCE, judge
from specbench.zoo.pictures.geneval_rules import POSITION_THRESHOLD
from specbench.zoo.pictures.scene import COLORS, SHAPES, SIZE


class ShapesRules:
    """1 where a picture is right and 0 where not, by GenEval's judgement of what is detected.

    None for a picture that is not of the world: of another size, or asked for with anything but
    the world's shapes and colours.
    """

    name = "shapes_rules"
    version = 1
    unit = ""
    better: Better = "higher"
    protocol = (
        "GenEval's verdict (include and exclude, most confident first, position threshold "
        f"{POSITION_THRESHOLD:g}) over the world's rule-based detector "
        f"(overlap with a shape at least {CONFIDENCE:g})"
    )

    def prepare(self) -> None:
        """Do nothing: the rules have no weights."""

    def score(self, pictures: Sequence[Picture]) -> list[float | None]:
        """Return 1.0 or 0.0 for each picture, None for those that are not of the world."""
        return [
            float(judge(picture.reference, picture.pixels).right) if _of_world(picture) else None
            for picture in pictures
        ]


def _of_world(picture: Picture) -> bool:
    wanted = picture.reference
    if picture.pixels.shape != (SIZE, SIZE, 3) or not isinstance(wanted, Mapping):
        return False
    asked: list[Any] = [*wanted.get("include", ()), *wanted.get("exclude", ())]
    return bool(asked) and all(
        one.get("class") in SHAPES and one.get("color", COLORS[0]) in COLORS for one in asked
    )
