"""Parts that are fitted to a model pair by measurements made beforehand.

A part of a decoder that carries a `calibration_name` is measured once by `specbench calibrate`
and told the outcome before every run. Between the two lies a file, so that a run's behaviour
depends on nothing that it measures itself. `specbench.calibration` knows the files; parts know
only these two calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from specbench.clock import Clock
from specbench.decoding.base import Decoder
from specbench.decoding.ledger import Generation
from specbench.decoding.request import Request
from specbench.models.pair import ModelPair


@dataclass(frozen=True)
class Calibrating:
    """What a part is given to measure with.

    Attributes:
        decoder: The decoder that the part belongs to.
        models: The loaded models.
        requests: What to decode: prompts of the task under the run's law, one for each sample.
        clock: The clock that fits the device.
        decoded: Told after every generation how many tokens it had.
    """

    decoder: Decoder
    models: ModelPair
    requests: tuple[Request, ...]
    clock: Clock
    decoded: Callable[[int], None] = lambda tokens: None

    def generate(self, decoder: Decoder, request: Request) -> Generation:
        """Decode a request and tell of it."""
        generation = decoder.generate(self.models, request, self.clock)
        self.decoded(len(generation.tokens))
        return generation


@runtime_checkable
class Calibrated(Protocol):
    """A part that must be calibrated.

    Attributes:
        calibration_name: What its calibrations are called, the first word of their file names.
        calibration_path: A file named by the user, or None to look one up.
        needs_calibration: Whether it was not given by hand what a calibration would find.
    """

    calibration_name: str
    calibration_path: str | None
    needs_calibration: bool

    def work(self, limits: Sequence[int]) -> int:
        """Return how many tokens `calibrate` decodes at most.

        Args:
            limits: Most new tokens of each request.
        """

    def calibrate(self, context: Calibrating) -> dict[str, Any]:
        """Measure, and return values that JSON can hold."""

    def use(self, values: Mapping[str, Any]) -> None:
        """Adopt what `calibrate` returned.

        Raises:
            ConfigError: If the values are not of this part, or too few for its settings.
        """


def calibrated_parts(decoder: Decoder) -> list[Calibrated]:
    """Return the parts of a decoder that can be calibrated, itself included."""
    parts = (decoder, *vars(decoder).values())
    return [part for part in parts if isinstance(part, Calibrated)]
