"""The models of a run as its result file records them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from specbench.errors import ConfigError
from specbench.schema.reading import Reader
from specbench.schema.result import FileMetadata
from specbench.schema.shape import Shape


class RecordedModel(NamedTuple):
    """One model of a run.

    Attributes:
        shape: Its shape.
        bytes_per_weight: Mean bytes that one of its weights takes in memory.
    """

    shape: Shape
    bytes_per_weight: float

    @property
    def multiplied_bytes(self) -> float:
        """Bytes of the weights that every forward must read."""
        return self.shape.multiplied_parameters * self.bytes_per_weight


def recorded_model(metadata: FileMetadata, role: str, name: str) -> RecordedModel | None:
    """Return a model that a result file describes.

    Args:
        metadata: Of the file.
        role: "target" or "draft".
        name: What to call its shape.

    Returns:
        None where the file, or the engine that ran the model, does not tell its shape. What is
        written there and makes no sense counts as not told.
    """
    about: Any = metadata.provenance.get("models")
    about = about.get(role) if isinstance(about, Mapping) else None
    if not isinstance(about, Mapping) or about.get("shape") is None:
        return None
    try:
        reader = Reader(about, f"models.{role}", list(about))
        shape = Shape.from_record(about["shape"], name)
        weights = reader.number("parameters", minimum=1)
        return RecordedModel(shape, reader.number("weight_bytes", minimum=1) / weights)
    except ConfigError:
        return None
