"""The models of a run as its result file records them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from pydantic.dataclasses import dataclass

from specbench.errors import ConfigError
from specbench.schema.group import Group, Number
from specbench.schema.result import FileMetadata
from specbench.schema.shape import Shape


@dataclass(frozen=True)
class _Weights(Group):
    parameters: Annotated[Number, Field(ge=1.0)]
    weight_bytes: Annotated[Number, Field(ge=1.0)]


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
    if not isinstance(about, Mapping) or not isinstance(about.get("shape"), Mapping):
        return None
    sizes = {key: about.get(key) for key in ("parameters", "weight_bytes")}
    try:
        shape = Shape.from_dict({**about["shape"], "name": name, "title": name})
        weights = _Weights.from_dict(sizes)
    except ConfigError:
        return None
    return RecordedModel(shape, weights.weight_bytes / weights.parameters)
