"""What a GGUF file says of itself: its metadata, and where each tensor lies.

The layout is the one of the format's specification (ggml, docs/gguf.md), versions 2 and 3 in
little-endian order. Every count and length is held against a limit and against the file before
anything is read by it, so that a hostile file costs neither time nor memory.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from specbench.bounded import MOST_BYTES, check_regular
from specbench.errors import ModelError

_VERSIONS = (2, 3)
_MOST_FIELDS = 1 << 14
_MOST_TENSORS = 1 << 16
_MOST_ITEMS = 1 << 21  # of all arrays together: the largest vocabularies have half a million
_MOST_DIMENSIONS = 4
_ALIGNMENT = 32
_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_NUMBERS |= {12: "d"}


class Stored(NamedTuple):
    """Where a tensor lies.

    Attributes:
        kind: Its quantisation type's name, such as "Q4_1".
        shape: Sizes, the outermost first.
        start: Offset of its data in the file.
        row_bytes: Bytes of a row, the innermost dimension.
    """

    kind: str
    shape: tuple[int, ...]
    start: int
    row_bytes: int

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return math.prod(self.shape[:-1])

    @property
    def end(self) -> int:
        """Offset of what lies behind its data."""
        return self.start + self.rows * self.row_bytes


class Header(NamedTuple):
    """What a file says of itself.

    Attributes:
        path: The file.
        metadata: Numbers, texts and lists of them by their published keys.
        tensors: By their names.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Stored]


def refused(path: Path, why: str) -> ModelError:
    """Return the error of a file that is damaged or no GGUF."""
    return ModelError(f"'{path}' cannot be read", why, "Fetch the file again.")


def read_header(path: Path) -> Header:
    """Read the header of a GGUF file.

    Raises:
        ModelError: If it is none, is cut off, or says what cannot be.
    """
    try:
        check_regular(path)
        with path.open("rb") as stream:
            return _Reader(path, stream).header()
    except OSError as error:
        raise refused(path, error.strerror or str(error)) from error


class _Reader:
    """Reads the parts of a header, one behind the other."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path = path
        self._stream = stream
        self._size = path.stat().st_size
        self._items = 0

    def header(self) -> Header:
        """Return all of it."""
        if self._take(4) != b"GGUF":
            raise self._bad("it is no GGUF file")
        version = self._number("I")
        if version not in _VERSIONS:
            raise self._bad(f"its version is {version}; read are 2 and 3, in little-endian order")
        tensors = self._count("tensors", _MOST_TENSORS)
        fields = self._count("fields", _MOST_FIELDS)
        metadata = self._named(fields, "field", lambda: self._value(self._number("I")))
        infos = self._named(tensors, "tensor", self._info)
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
            raise self._bad(f"its alignment is {alignment!r} and no power of two")
        start = -(-self._stream.tell() // alignment) * alignment
        placed = {name: self._placed(name, start, *info) for name, info in infos.items()}
        self._check_apart(placed)
        return Header(self._path, metadata, placed)

    def _named(self, count: int, what: str, read: Callable[[], Any]) -> dict[str, Any]:
        """Return what has a name, by its name; none may be there twice."""
        found: dict[str, Any] = {}
        for _ in range(count):
            name = self._text()
            if name in found:
                raise self._bad(f"the {what} '{name[:80]}' is there twice")
            found[name] = read()
        return found

    def _info(self) -> tuple[tuple[int, ...], int, int]:
        dimensions = self._number("I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise self._bad(f"a tensor has {dimensions} dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        return shape[::-1], self._number("I"), self._number("Q")

    def _placed(
        self, name: str, start: int, shape: tuple[int, ...], kind: int, offset: int
    ) -> Stored:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        try:
            known = GGMLQuantizationType(kind)
            block, size = GGML_QUANT_SIZES[known]
        except (ValueError, KeyError) as error:
            raise self._bad(f"'{name[:80]}' is of type {kind}, which is not known") from error
        if min(shape) < 1 or shape[-1] % block:
            raise self._bad(f"'{name[:80]}' has the shape {list(shape)} in blocks of {block}")
        stored = Stored(known.name, shape, start + offset, shape[-1] // block * size)
        if stored.end > self._size:
            raise self._bad(f"it ends after {self._size:,} bytes, '{name[:80]}' at {stored.end:,}")
        return stored

    def _check_apart(self, tensors: dict[str, Stored]) -> None:
        """Refuse tensors that share bytes: a small file could stand for any amount of data."""
        end = 0
        for name, stored in sorted(tensors.items(), key=lambda item: item[1].start):
            if stored.start < end:
                raise self._bad(f"'{name[:80]}' lies on another tensor")
            end = stored.end

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._number(self._code(kind))
        inner = self._number("I")
        count = self._count("items", _MOST_ITEMS - self._items)
        self._items += count
        if inner == _STRING:
            return [self._text() for _ in range(count)]
        numbers = np.dtype(self._code(inner)).newbyteorder("<")
        return np.frombuffer(self._take(count * numbers.itemsize), numbers).tolist()

    def _code(self, kind: int) -> str:
        if kind not in _NUMBERS:
            raise self._bad(f"a field holds values of type {kind}, which are not read")
        return _NUMBERS[kind]

    def _count(self, what: str, most: int) -> int:
        count = int(self._number("Q"))
        if count > most:
            raise self._bad(f"it claims to hold {count:,} {what}")
        return count

    def _number(self, code: str) -> Any:
        form = struct.Struct(f"<{code}")
        (value,) = form.unpack(self._take(form.size))
        return value

    def _text(self) -> str:
        content = self._take(self._number("Q"))
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._bad("a text in it is not UTF-8") from error

    def _take(self, length: int) -> bytes:
        if self._stream.tell() + length > min(self._size, MOST_BYTES):
            over = "is cut off" if self._size < MOST_BYTES else f"is larger than {MOST_BYTES:,} B"
            raise self._bad(f"its header {over}")
        content = self._stream.read(length)
        if len(content) < length:
            raise self._bad("its header is cut off")
        return content

    def _bad(self, why: str) -> ModelError:
        return refused(self._path, why)
