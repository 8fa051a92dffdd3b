"""What a training reads more than once, in files that appear whole and are mapped into memory.

A file that stands there is right: a training that was ended, or whose disk was full, goes on
behind the last one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import safe_open
from torch import Tensor

from specbench.bounded import replacing
from specbench.errors import ResultsError

Make = Callable[[], Mapping[str, Tensor]]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: dict[str, str]) -> None:
    """Write tensors and words about them; the file appears whole or not at all.

    Raises:
        ResultsError: If it cannot be written.
    """
    content = safetensors.torch.save(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, about
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> ResultsError:
    """Return the error of a file of a training that cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return ResultsError(
        f"The disk is full: '{path}' was not written" if full else f"Cannot write '{path}'",
        "what was written before it is whole" if full else error.strerror or str(error),
        "Make room (SPECBENCH_CACHE moves answers and states, output= the checkpoint; "
        "recipe.data.taps=stream keeps no states), then run the same command again to go on.",
    )


class Shard:
    """The tensors of one file, read where they are asked for.

    Args:
        path: The file.
        make: Computes the tensors, where there is no such file yet.
    """

    def __init__(self, path: Path, make: Make) -> None:
        if not path.is_file():
            write_tensors(path, make(), {})
        self._file: Any = safe_open(path, framework="pt")

    def whole(self, name: str) -> Tensor:
        """Return a tensor."""
        found: Tensor = self._file.get_tensor(name)
        return found

    def part(self, name: str, start: int, end: int) -> Tensor:
        """Return the rows `start` to `end` of a tensor; no other is read."""
        found: Tensor = self._file.get_slice(name)[start:end]
        return found
