"""Single tensors of a checkpoint, and their shapes, without the module that it describes."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from torch import Tensor
from transformers.utils import cached_file

from specbench.models.checkpoint import Checkpoint


def tensors_below(files: Checkpoint, prefix: str) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint whose names begin with a prefix, without it.

    Args:
        files: A folder, or a hub checkpoint; what is not cached of the latter is fetched.
        prefix: Such as "model.vqmodel.".
    """
    found: dict[str, Tensor] = {}
    for path in _shards(files, prefix):
        with safe_open(path, "pt") as shard:
            for name in shard.keys():  # noqa: SIM118 (no mapping)
                if name.startswith(prefix):
                    found[name.removeprefix(prefix)] = shard.get_tensor(name)
    return found


def shape_of(files: Checkpoint, name: str) -> tuple[int, ...] | None:
    """Return the shape of a tensor by the header of its file; None where there is none.

    Args:
        files: A folder or a hub checkpoint; of the latter the file that holds it is fetched.
        name: The tensor's whole name.
    """
    for path in _shards(files, name):
        with safe_open(path, "pt") as shard:
            if name in shard.keys():  # noqa: SIM118 (no mapping)
                return tuple(shard.get_slice(name).get_shape())
    return None


def _shards(files: Checkpoint, prefix: str) -> list[str]:
    """Return the safetensors that can hold names with a prefix; those of a hub are cached."""

    def cached(name: str) -> str | None:
        path = cached_file(
            files.location,
            name,
            revision=files.revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return None if path is None else str(path)

    index = cached("model.safetensors.index.json")
    names = {"model.safetensors"}
    if index is not None:
        weights = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
        names = {shard for name, shard in weights.items() if name.startswith(prefix)}
    return [path for name in sorted(names) if (path := cached(name)) is not None]
