"""Weights that are published as single files and not as a folder for transformers.

LlamaGen and MoVQGAN publish one pickled state dictionary for each model. Pickles can run code, so
only those that hold nothing but tensors are read, by torch's own safe reader, which is told one
harmless name more: LlamaGen's training scripts save their arguments, an `argparse.Namespace`,
beside the weights (autoregressive/train/train_c2i.py). A safetensors file of the same names serves
as well.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file
from torch import Tensor

from specbench.errors import ModelError
from specbench.models import checkpoint as checkpoints
from specbench.models.load import SMALL, dtype_of
from specbench.models.pretrained import first_line
from specbench.schema.model import ModelConfig

_WRAPPERS = ("model", "module", "state_dict")
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


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dictionary, pickled or as safetensors, on the CPU.

    LlamaGen's files keep it under `model`, `module` or `state_dict`, by the way they were
    trained, or bare (FoundationVision/LlamaGen, autoregressive/sample/sample_c2i.py).

    Raises:
        ModelError: If the file holds more than tensors or cannot be read.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Files that torch wrote before 1.6 are no zip archives and cannot be mapped.
            mapped = zipfile.is_zipfile(path)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # what an unpickler makes of arbitrary bytes has no one type
        name = re.search(r"GLOBAL (\S+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and name:
            raise ModelError(
                f"'{path}' is not loaded",
                f"its pickle holds more than tensors ({name[1]}), and such a file can run code",
                "Use the published file, or save its state dictionary alone (as safetensors, say).",
            ) from error
        raise ModelError(
            f"'{path}' cannot be read",
            f"{type(error).__name__}: {first_line(error)}",
            "Check that the file is a complete checkpoint.",
        ) from error
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict):
        raise ModelError(
            f"'{path}' holds no state dictionary",
            f"it holds a value of type {type(content).__name__}",
            "Use the published file.",
        )
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


class State:
    """A state dictionary that says clearly what it lacks.

    Args:
        tensors: Names and tensors.
        path: The file they come from.
    """

    def __init__(self, tensors: dict[str, Tensor], path: Path) -> None:
        self._tensors = tensors
        self._path = path

    @classmethod
    def read(cls, path: Path) -> State:
        """Read a file with `read_tensors`."""
        return cls(read_tensors(path), path)

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor.

        Raises:
            ModelError: If there is none of that name.
        """
        if name not in self._tensors:
            raise ModelError(
                f"'{self._path}' lacks the weight '{name}'",
                "it holds another model than the one that the entry describes",
                "Name the published file of this model.",
            )
        return self._tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def below(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with a prefix, without it."""
        found = self._tensors.items()
        return {
            name.removeprefix(prefix): value for name, value in found if name.startswith(prefix)
        }

    def count(self, pattern: str) -> int:
        """Return how many names a numbered pattern such as "layers.{}.weight" has in a row."""
        index = 0
        while pattern.format(index) in self._tensors:
            index += 1
        return index

    @property
    def parameters(self) -> int:
        """Number of values in all tensors."""
        return sum(tensor.numel() for tensor in self._tensors.values())


def _digest(file: WeightFile, path: Path) -> str:
    if file.revision is not None:
        return f"commit:{file.revision}"
    sha = hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb") as stream:
        if size < _HASH_WHOLE_BELOW:
            sha.update(stream.read())
            return f"sha256:{sha.hexdigest()[:32]}"
        sha.update(stream.read(1 << 20))
        stream.seek(-(1 << 20), 2)
        sha.update(stream.read() + str(size).encode())
    return f"ends-sha256:{sha.hexdigest()[:32]}"
