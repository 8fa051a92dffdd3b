"""What a measure of picture quality is: a value for each picture, or one for a whole arm.

The runner builds the metrics of a job, calls `prepare` on each before anything is measured, and
hands over the pictures of repeat 0 after the last measurement. Nothing here runs in a timed
region, and nothing here knows how the pictures were decoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Picture:
    """One generated picture and what was asked for.

    Attributes:
        sample_id: The task's name of the sample.
        category: The task's group of the sample (for GenEval, one of its six tasks), or empty.
        prompt: The caption or the class as the task words it, without any model's template.
        reference: What the task keeps for scoring (for GenEval, its `include` and `exclude`).
        pixels: uint8 [height, width, 3], RGB.
    """

    sample_id: str
    category: str
    prompt: str
    reference: Any
    pixels: NDArray[np.uint8]


class CorpusValue(NamedTuple):
    """The value of a whole set of pictures.

    Attributes:
        value: The estimate.
        n: How many pictures it was computed from.
        floor: What the same estimate gives for n real pictures against the reference; None where
            the metric has no such floor.
        error: Standard error of the estimate where the metric defines one.
        reference: What the pictures were compared with, in words.
        detail: Further numbers and notes (subset sizes, six task scores, warnings).
    """

    value: float
    n: int
    floor: float | None
    error: float | None
    reference: str
    detail: Mapping[str, Any] = {}


class Metric(Protocol):
    """What every measure of pictures has.

    Attributes:
        name: Its id, as in `conf/metric/`.
        version: Moves whenever the same pictures would get another value.
        unit: Unit of its values, or empty.
        protocol: Everything that moves the number: nets, weights, preprocessing, thresholds.
        better: Which direction is better.
    """

    name: str
    version: int
    unit: str
    protocol: str
    better: Better

    def prepare(self) -> None:
        """Load what measuring needs; raise a `SpecbenchError` that names a missing file."""


@runtime_checkable
class PictureMetric(Metric, Protocol):
    """A measure with a value for each picture."""

    def score(self, pictures: Sequence[Picture]) -> list[float | None]:
        """Return one value for each picture, None where the metric does not apply to it."""


@runtime_checkable
class CorpusMetric(Metric, Protocol):
    """A measure of a whole set of pictures."""

    def measure(self, pictures: Sequence[Picture]) -> CorpusValue:
        """Return the value of all pictures together."""
