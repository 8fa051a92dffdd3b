"""State dictionaries: tensors by their published names, pickled or as safetensors.

Pickles can run code, so only those that hold nothing but tensors are read, by torch's own safe
reader, which is told one harmless name more: LlamaGen's training scripts save their arguments, an
`argparse.Namespace`, beside the weights (autoregressive/train/train_c2i.py).
"""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from specbench.errors import ModelError
from specbench.models.pretrained import first_line

_WRAPPERS = ("model", "module", "state_dict")


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

    def get(self, name: str) -> Tensor | None:
        """Return a tensor, or None where there is none of that name."""
        return self._tensors.get(name)

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
