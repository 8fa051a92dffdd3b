"""Plain values on a pipe, between processes that do not trust each other.

A frame is a four-byte length and that many bytes of JSON. Values keep their exact Python type
through tags, and only types without behaviour of their own can cross: an object that claims to
equal everything stays where it was made.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any

MAX_FRAME_BYTES = 32 << 20
_MAX_ITEMS = 1_000_000
_MAX_DEPTH = 200
_HEADER = struct.Struct(">I")


class WireError(Exception):
    """A frame or a value that cannot cross the pipe."""


def send(fd: int, message: object) -> None:
    """Write one JSON message as a frame."""
    payload = json.dumps(message).encode("ascii")
    if len(payload) > MAX_FRAME_BYTES:
        raise WireError(f"the value takes {len(payload)} bytes, the limit is {MAX_FRAME_BYTES}")
    view = memoryview(_HEADER.pack(len(payload)) + payload)
    while view:
        view = view[os.write(fd, view) :]


def receive(fd: int) -> Any:
    """Read one message; None means that the other end is gone.

    Raises:
        WireError: If the bytes are no frame.
    """
    header = _read_exactly(fd, _HEADER.size)
    if header is None:
        return None
    (length,) = _HEADER.unpack(header)
    if length > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {length} bytes, the limit is {MAX_FRAME_BYTES}")
    payload = _read_exactly(fd, length)
    if payload is None:
        return None
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a frame that is no message: {error}") from None


def _read_exactly(fd: int, count: int) -> bytes | None:
    chunks: list[bytes] = []
    while count:
        chunk = os.read(fd, min(count, 1 << 20))
        if not chunk:
            return None
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)


def encode(value: Any, depth: int = 0) -> Any:
    """Return the JSON form of a plain value.

    Subclasses of plain types cross as the plain type (a Counter as a dict). An iterator is
    consumed and crosses as its items.

    Raises:
        WireError: If the value is not plain, too deep or too long.
    """
    if depth > _MAX_DEPTH:
        raise WireError(f"a value nested more than {_MAX_DEPTH} deep")
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        number = int(value)
        return number if -(1 << 62) < number < 1 << 62 else ["int", hex(number)]
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray)):
        return ["bytes" if isinstance(value, bytes) else "bytearray", bytes(value).hex()]
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, range):
        return ["range", *(encode(part) for part in (value.start, value.stop, value.step))]
    for kind, name in ((list, "list"), (tuple, "tuple"), (set, "set"), (frozenset, "frozenset")):
        if isinstance(value, kind):
            return [name, [encode(item, depth + 1) for item in value]]
    if isinstance(value, dict):
        pairs = dict.items(value)
        return ["dict", [[encode(key, depth + 1), encode(item, depth + 1)] for key, item in pairs]]
    return _encode_rarer(value, depth)


def _encode_rarer(value: Any, depth: int) -> Any:
    name = type(value).__name__
    if name in ("dict_keys", "dict_values", "dict_items"):
        return [name, [encode(item, depth + 1) for item in value]]
    if name == "Fraction":
        return ["Fraction", encode(value.numerator), encode(value.denominator)]
    if name == "Decimal":
        return ["Decimal", str(value)]
    if hasattr(value, "__next__"):
        items = []
        for item in value:
            items.append(encode(item, depth + 1))
            if len(items) > _MAX_ITEMS:
                raise WireError(f"an iterator of more than {_MAX_ITEMS} items")
        return ["iterator", items]
    raise WireError(f"a value of type {name}, which is not plain data")


def decode(form: Any) -> Any:
    """Return the value of a JSON form made by `encode`.

    Raises:
        WireError: If the form is not one that `encode` makes.
    """
    if not isinstance(form, list):
        if isinstance(form, dict):
            raise WireError("a JSON object where a tagged value was expected")
        return form
    try:
        return _decode_tagged(form[0], form[1:])
    except (TypeError, ValueError, IndexError, KeyError, ArithmeticError) as error:
        raise WireError(f"a malformed value: {error}") from None


def _decode_tagged(tag: Any, parts: list[Any]) -> Any:
    match tag:
        case "int":
            return int(parts[0], 16)
        case "bytes":
            return bytes.fromhex(parts[0])
        case "bytearray":
            return bytearray.fromhex(parts[0])
        case "complex":
            return complex(parts[0], parts[1])
        case "range":
            return range(*(decode(part) for part in parts))
        case "Fraction":
            from fractions import Fraction

            return Fraction(decode(parts[0]), decode(parts[1]))
        case "Decimal":
            from decimal import Decimal

            return Decimal(parts[0])
        case "dict":
            return {decode(key): decode(item) for key, item in parts[0]}
    items = [decode(item) for item in parts[0]]
    match tag:
        case "list":
            return items
        case "tuple":
            return tuple(items)
        case "set":
            return set(items)
        case "frozenset":
            return frozenset(items)
        case "iterator":
            return iter(items)
        case "dict_keys":
            return dict.fromkeys(items).keys()
        case "dict_values":
            return dict(enumerate(items)).values()
        case "dict_items":
            return dict(items).items()
    raise WireError(f"an unknown kind of value: {tag!r}")
