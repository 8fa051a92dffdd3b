"""What a loaded model weighs, and the shape from which the cost of its forwards follows.

A result file keeps both, so that a run can be predicted on other hardware, and held against the
limit of its own, without the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from specbench.errors import ConfigError
from specbench.schema.shape import Shape

_UNEXPLAINED = 0.03
"""Share of a model's weights that its shape may leave out: norms and biases."""


class Sizes(NamedTuple):
    """The sizes of a loaded model.

    Attributes:
        parameters: Its weights.
        weight_bytes: Bytes of them in the number formats that they are kept in.
        cache_bytes_per_token: Bytes that a token of one sequence leaves in the cache.
        shape: What a forward multiplies, or None where the formulas of `Shape` do not fit it.
    """

    parameters: int
    weight_bytes: int
    cache_bytes_per_token: int
    shape: Shape | None

    @classmethod
    def of(cls, shape: Shape, parameters: int, itemsize: int) -> Sizes:
        """Return the sizes of a model with weights and cache in one number format.

        Args:
            shape: Its shape.
            parameters: Its weights.
            itemsize: Bytes of a number.
        """
        return cls(parameters, parameters * itemsize, shape.cache_values * itemsize, shape)

    def record(self) -> dict[str, Any]:
        """Return what a result file keeps."""
        shape = None if self.shape is None else self.shape.record()
        return {**self._asdict(), "shape": shape}


def explaining(values: Mapping[str, Any], name: str, parameters: int) -> Shape | None:
    """Return the shape that a configuration describes, if it accounts for the model's weights.

    Feed-forward layers of another kind, experts and packed weights have the same keys in their
    configuration and another number of weights.

    Args:
        values: The keys of a config.json.
        name: What to call the shape.
        parameters: The model's weights.
    """
    try:
        shape = Shape.from_config(values, name)
    except ConfigError:
        return None
    return shape if abs(shape.parameters - parameters) <= _UNEXPLAINED * parameters else None
