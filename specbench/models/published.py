"""Weights that are published as single files and not as a folder for transformers.

LlamaGen and MoVQGAN publish one pickled state dictionary for each model (`models.state`). A
safetensors file of the same names serves as well.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import EntryNotFoundError

from specbench.errors import ModelError
from specbench.models import checkpoint as checkpoints
from specbench.models.checkpoint_files import read_into
from specbench.models.load import SMALL, dtype_of
from specbench.schema.model import ModelConfig

_HASH_WHOLE_BELOW = 1 << 30


@dataclass(frozen=True)
class WeightFile:
    """One published file.

    Attributes:
        source: What the configuration said: a hub id, a folder or a file.
        name: Its name there.
        revision: Hub revision, or None.
        path: Where it lies, or None while it is only on the hub.
    """

    source: str
    name: str
    revision: str | None
    path: Path | None

    @property
    def bytes(self) -> int:
        """Its size; 0 while it is only on the hub."""
        return self.path.stat().st_size if self.path else 0

    def fetch(self) -> Path:
        """Return its path, downloaded where need be.

        Raises:
            ModelError: If the hub has no such file or breaks off.
        """
        if self.path is not None:
            return self.path
        try:
            return Path(hf_hub_download(self.source, self.name, revision=self.revision))
        except EntryNotFoundError as error:
            raise _no_file(self.source, self.name) from error
        except Exception as error:
            raise ModelError(
                f"'{self.name}' of '{self.source}' could not be downloaded",
                f"{type(error).__name__}: {str(error).strip().splitlines()[0]}",
                "Try again, or put the file into a folder and name that as model.target.",
            ) from error

    def describe(self) -> dict[str, Any]:
        """Return what a result file records of it: source, revision and digest."""
        path = self.fetch()
        return {"source": self.source, "revision": self.revision, "digest": _digest(self, path)}


def find_files(source: str, names: Sequence[str], revision: str | None) -> list[WeightFile]:
    """Find published files and check that they can be read, without downloading anything.

    Args:
        source: A hub id ORG/NAME, a folder that holds the files by their names, or a file that
            stands for the first name, with the others beside it.
        names: Names of the files.
        revision: Hub revision, or None.

    Raises:
        ModelError: If one of them is not there, or the hub does not answer.
    """
    place = Path(source).expanduser()
    if place.is_file():
        beside = [place, *(place.parent / name for name in names[1:])]
    elif place.is_dir():
        beside = [place / name for name in names]
    else:
        return [_find_on_hub(source, name, revision) for name in names]
    for name, path in zip(names, beside, strict=True):
        if not path.is_file():
            raise _no_file(str(path.parent), name)
    return [WeightFile(source, path.name, None, path) for path in beside]


def _find_on_hub(source: str, name: str, revision: str | None) -> WeightFile:
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise ModelError(
            f"There is no folder or file '{source}'",
            f"'{name}' is looked for in a local folder or in a hub repository ORG/NAME",
            "Correct the path.",
        )
    checkpoints.ask_hub(source, revision, name)
    cached = try_to_load_from_cache(source, name, revision=revision)
    return WeightFile(source, name, revision, Path(cached) if isinstance(cached, str) else None)


def _no_file(place: str, name: str) -> ModelError:
    return ModelError(
        f"'{place}' holds no '{name}'",
        "the weights are read from files under their published names",
        "Put the file there, or name another one in the model's loader.",
    )


def check_room(
    config: ModelConfig, files: Sequence[WeightFile], device: torch.device
) -> float | None:
    """Refuse a model that the device cannot hold, or whose download the disk cannot.

    Args:
        config: The model entry; `weights_gb` is what it says it needs.
        files: The files it reads.
        device: Where the weights go.

    Returns:
        Gigabytes of the weights, as far as anybody knows.

    Raises:
        ModelError: If memory or disk space do not suffice.
    """
    local = sum(file.bytes for file in files) / 1e9
    complete = all(file.path is not None for file in files)
    need = local if complete or config.weights_gb is None else config.weights_gb
    checkpoints.check_memory(need, device, config.name)
    if complete or config.weights_gb is None:
        return need
    cache = Path(HF_HUB_CACHE)
    while not cache.is_dir():
        cache = cache.parent
    free = shutil.disk_usage(cache).free / 1e9
    if config.weights_gb - local > free:
        raise ModelError(
            f"'{config.name}' needs about {config.weights_gb:.1f} GB of disk space",
            f"{cache} has {free:.1f} GB free",
            "Make room there, or point HF_HOME to a larger disk.",
        )
    return need


def check_engine(config: ModelConfig) -> None:
    """Refuse settings that only transformers' own modules know.

    Raises:
        ModelError: If the entry asks for another engine or a device map.
    """
    for key, value in (("engine", config.engine), ("device_map", config.device_map)):
        if value not in (None, "auto", "lean"):
            raise ModelError(
                f"'{config.name}' cannot run with model.{key}={value}",
                "its weights are computed by the lean engine on one device",
                f"Remove model.{key}.",
            )


def pick_dtype(name: str, device: torch.device, parameters: int) -> torch.dtype:
    """Return the compute dtype; "auto" goes by device and size as `load.pick_dtype` does."""
    return dtype_of(name, device, small=parameters < SMALL)


def _digest(file: WeightFile, path: Path) -> str:
    if file.revision is not None:
        return f"commit:{file.revision}"
    sha = hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb") as stream:
        if size < _HASH_WHOLE_BELOW:
            read_into(sha, stream)
            return f"sha256:{sha.hexdigest()[:32]}"
        sha.update(stream.read(1 << 20))
        stream.seek(-(1 << 20), 2)
        sha.update(stream.read() + str(size).encode())
    return f"ends-sha256:{sha.hexdigest()[:32]}"
