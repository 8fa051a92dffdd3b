"""GGUF files become checkpoints in the published layout, once for each content.

The weights are those that the `gguf` library dequantises, bit for bit: numbers of 16 bits stay
what they are, quantised ones become float32. They are written in slices of rows, so that the memory
that it takes does not depend on the model's size. The folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from specbench.bounded import check_regular
from specbench.errors import ModelError
from specbench.models.gguf.families import Layout, Taken, layout_of, unknown
from specbench.models.gguf.header import Header, Stored, read_header
from specbench.models.gguf.tokenizer import tokenizer_files
from specbench.paths import cache_dir

_VERSION = 1
"""Moves when a file is converted to other contents."""

_SLICE = 1 << 24  # bytes of float32 that are made at a time
_KEPT = {"F32": ("F32", "<f4"), "F16": ("F16", "<f2"), "BF16": ("BF16", "<u2")}


def converted(sha256: str) -> Path:
    """Return the folder in which a file of a digest is or will be converted."""
    return cache_dir() / "gguf" / f"{sha256[:32]}-{_VERSION}"


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        ModelError: If it is no regular file or cannot be read.
    """
    try:
        check_regular(path)
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"'{path}' cannot be read", error.strerror or str(error)) from error


def convert(path: Path) -> Path:
    """Convert a file, unless that was done before.

    Returns:
        The folder of the checkpoint.

    Raises:
        ModelError: If it is damaged, not known for certain, or the disk has no room.
    """
    target = converted(file_digest(path))
    if target.is_dir():
        return target
    header = read_header(path)
    layout = layout_of(header)
    named = tokenizer_files(header, layout.config["max_position_embeddings"])
    ids = named["generation_config.json"]
    named["config.json"] = {**layout.config, **ids, "dtype": "float32"}
    size = sum(_bytes(header, taken) for taken in layout.tensors.values())
    with WholeFolder(target, size) as at:
        for name, content in named.items():
            text = content if isinstance(content, str) else json.dumps(content, indent=2)
            (at / name).write_text(text, encoding="utf-8")
        _write_weights(header, layout, at / "model.safetensors")
    return target


class WholeFolder:
    """Yield a folder that appears at `target` if nothing is raised, and leaves nothing otherwise.

    Args:
        target: Where it shall stand; another process may have put its like there meanwhile.
        size: Bytes that it will hold.

    Raises:
        ModelError: If the disk has no room.
    """

    def __init__(self, target: Path, size: int) -> None:
        self._target, self._size = target, size
        self._folder = target

    def __enter__(self) -> Path:
        """Make the folder."""
        parent = self._target.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(parent).free
            if self._size > free:
                why = f"{parent} has {free / 1e9:.1f} GB free, {self._size / 1e9:.1f} are needed"
                raise _no_room(self._target, why)
            self._folder = Path(tempfile.mkdtemp(prefix=".half-", dir=parent))
        except OSError as error:
            raise _no_room(self._target, error.strerror or str(error)) from error
        return self._folder

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: object) -> None:
        """Put it in place, or remove it."""
        try:
            if kind is None and not self._target.is_dir():
                self._folder.chmod(0o755)
                os.replace(self._folder, self._target)
        except OSError as late:
            if not self._target.is_dir():
                raise _no_room(self._target, late.strerror or str(late)) from late
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise _no_room(self._target, error.strerror or str(error)) from error


def _no_room(target: Path, why: str) -> ModelError:
    return ModelError(
        f"'{target}' cannot be written",
        why,
        "Make room there, or let SPECBENCH_CACHE name a folder on a larger disk.",
    )


def _stored_as(stored: Stored) -> tuple[str, int]:
    """Return a tensor's dtype in safetensors, and the bytes of a number."""
    kept = _KEPT.get(stored.kind, _KEPT["F32"])
    return kept[0], np.dtype(kept[1]).itemsize


def _bytes(header: Header, taken: Taken) -> int:
    stored = header.tensors[taken.source]
    return int(np.prod(stored.shape, dtype=object)) * _stored_as(stored)[1]


def weights_note(header: Header) -> str:
    """Return what the numbers are, such as "Q4_1 weights, dequantised", by what most are."""
    counts: Counter[str] = Counter()
    for stored in header.tensors.values():
        counts[stored.kind] += int(np.prod(stored.shape, dtype=object))
    kind = counts.most_common(1)[0][0]
    return f"{kind} weights" if kind in _KEPT else f"{kind} weights, dequantised"


def _write_weights(header: Header, layout: Layout, path: Path) -> None:
    """Write model.safetensors: the length of its header, the header in JSON, the data."""
    about: dict[str, Any] = {"__metadata__": {"format": "pt", "weights": weights_note(header)}}
    end = 0
    for name, taken in sorted(layout.tensors.items()):
        start, end = end, end + _bytes(header, taken)
        stored = header.tensors[taken.source]
        shape, dtype = list(stored.shape), _stored_as(stored)[0]
        about[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    head = json.dumps(about, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as sink:
        sink.write(len(head).to_bytes(8, "little") + head)
        for _, taken in sorted(layout.tensors.items()):
            for numbers in _slices(header, taken):
                sink.write(numbers.tobytes())


def _slices(header: Header, taken: Taken) -> Iterator[np.ndarray[Any, Any]]:
    """Yield a tensor's rows in the published order, some at a time.

    Raises:
        ModelError: If the `gguf` library cannot dequantise its type.
    """
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    stored = header.tensors[taken.source]
    shape = (stored.rows, stored.row_bytes)
    rows = np.memmap(header.path, np.uint8, "r", stored.start, shape)
    step = max(1, _SLICE // (4 * stored.shape[-1]))
    for first in range(0, stored.rows, step):
        place = slice(first, first + step)
        some = np.array(rows[place] if taken.rows is None else rows[taken.rows[place]])
        if stored.kind in _KEPT:
            yield some
            continue
        try:
            with np.errstate(all="ignore"):  # a damaged scale: the run tells of logits
                yield dequantize(some, GGMLQuantizationType[stored.kind]).astype("<f4", copy=False)
        except NotImplementedError as error:
            raise unknown(header, f"'{taken.source}' is {stored.kind}: {error}") from error
