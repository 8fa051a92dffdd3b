"""Bytes to checked values: nothing that a file may hold gets past here unexamined.

A file is JSON, one object a line or one document, plain or gzipped. Only JSON is ever decoded:
no code runs from data. A line that cannot be believed is an error that names the file, the line
and the reason; with `skip_bad` it is left out and counted.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from specbench.bounded import check_regular
from specbench.errors import ResultsError

LARGEST_FILE = 2 * 1024**3
"""Bytes, unpacked, beyond which a file is refused."""

MOST_TOKENS = 10_000_000
"""New tokens, or rounds, of one turn beyond which a line is not believed."""

LONGEST_STEP = 100_000
"""Accepted tokens of one round beyond which a line is not believed."""

LONGEST_SECONDS = 1e7
"""Wall time of one turn, in seconds, beyond which a line is not believed."""

LONGEST_NAME = 200
"""Characters of the longest id."""

_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20
_Read = TypeVar("_Read")


class BadRecord(Exception):
    """A line that cannot be read; its text says why, without file and line."""


class Record(NamedTuple):
    """One JSON object of a file.

    Attributes:
        line: Its line, from 1; in a file that is one document, its place in the document.
        values: The decoded object.
    """

    line: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Document:
    """The decoded objects of one file.

    Attributes:
        path: The file.
        sha256: Digest of its bytes as they are stored.
        records: Its objects.
        skipped: Lines that were left out as unreadable.
    """

    path: Path
    sha256: str
    records: tuple[Record, ...]
    skipped: tuple[int, ...] = ()


def read_document(path: Path, skip_bad: bool = False) -> Document:
    """Decode a file of JSON objects.

    Args:
        path: The file, plain or gzipped.
        skip_bad: Whether lines that are no JSON objects are left out.

    Raises:
        ResultsError: If the file cannot be read, holds no object, or has a bad line.
    """
    stored = _bytes(path)
    raw = _unpacked(path, stored) if stored.startswith(_GZIP) else stored
    text = _text(path, raw)
    if not text.strip():
        raise ResultsError(f"'{path}' is empty", "there is nothing to import", "Check the path.")
    records, skipped = _whole(text), []
    if records is None:
        records = []
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                records.append(Record(number, _object(line)))
            except BadRecord as error:
                if not skip_bad:
                    raise bad_line(path, number, _cut_short(text, number, error)) from error
                skipped.append(number)
    if not records:
        raise ResultsError(
            f"'{path}' holds no JSON objects",
            "not one of its lines could be read",
            "Give answer files or benchmark results in JSON; see docs/import.md.",
        )
    digest = hashlib.sha256(stored).hexdigest()
    return Document(path, digest, tuple(records), tuple(skipped))


def read_each(
    document: Document, read: Callable[[Record], _Read], skip_bad: bool
) -> tuple[list[_Read], list[int]]:
    """Read every record of a file, and say which were left out.

    Args:
        document: The file.
        read: Reads one record; raises `BadRecord`.
        skip_bad: Whether a bad record is left out.

    Raises:
        ResultsError: If a record is bad, or none is left.
    """
    out, skipped = [], list(document.skipped)
    for record in document.records:
        try:
            out.append(read(record))
        except BadRecord as error:
            if not skip_bad:
                raise bad_line(document.path, record.line, str(error)) from error
            skipped.append(record.line)
    if not out:
        raise ResultsError(
            f"'{document.path}' holds nothing that can be imported",
            f"all of its {len(skipped)} lines were left out as bad",
            "Import it without --skip-bad to see what is wrong with the first.",
        )
    return out, skipped


def bad_line(path: Path, line: int, reason: str) -> ResultsError:
    """Return the error of a line that cannot be read."""
    return ResultsError(
        f"'{path}', line {line}, cannot be imported",
        reason,
        "Mend the line, or leave such lines out with --skip-bad.",
    )


def left_out(lines: Sequence[int]) -> str:
    """Return a sentence on lines that were left out as bad, without its full stop."""
    if len(lines) == 1:
        return f"Line {lines[0]} was left out as bad"
    return f"{len(lines)} lines were left out as bad, the first of them {lines[0]}"


def number(values: Mapping[str, Any], key: str, least: float, most: float) -> float:
    """Return a finite number within a range.

    Raises:
        BadRecord: If it is missing, of another type, not finite or out of range.
    """
    return checked(values.get(key), f"'{key}'", least, most)


def checked(value: Any, what: str, least: float, most: float) -> float:
    """Return a value as a number within a range; `what` names it in the error.

    Raises:
        BadRecord: If it is none.
    """
    if value is None:
        raise BadRecord(f"{what} is missing")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadRecord(f"{what} is no number but {shown(value)}")
    if not least <= value <= most or not math.isfinite(value):
        raise BadRecord(f"{what} is {shown(value)}, and it must lie in [{least:g}, {most:g}]")
    return value


def whole(value: Any, what: str, least: int, most: int) -> int:
    """Return a value as a whole number within a range; `what` names it in the error.

    Raises:
        BadRecord: If it is none.
    """
    found = checked(value, what, least, most)
    if found != int(found):
        raise BadRecord(f"{what} is {shown(value)}, and it must be a whole number")
    return int(found)


def listed(values: Mapping[str, Any], key: str, length: int | None = None) -> Sequence[Any]:
    """Return a list, of a certain length where one is given.

    Raises:
        BadRecord: If it is missing, no list, or of another length.
    """
    found = values.get(key)
    if not isinstance(found, list):
        raise BadRecord(f"'{key}' is {'missing' if found is None else 'no list'}")
    if length is not None and len(found) != length:
        raise BadRecord(f"'{key}' has {len(found)} entries where {length} are needed")
    return found


def identifier(values: Mapping[str, Any], key: str) -> str:
    """Return the id of a question as text.

    Raises:
        BadRecord: If it is neither a whole number nor a short text.
    """
    found = values.get(key)
    if isinstance(found, bool) or not isinstance(found, (int, str)):
        raise BadRecord(f"'{key}' is {'missing' if found is None else 'no id'}")
    name = str(found)
    if not name or len(name) > LONGEST_NAME:
        raise BadRecord(f"'{key}' has {len(name)} characters")
    return as_text(name, f"'{key}'")


def text_or(values: Mapping[str, Any], key: str, default: str = "") -> str:
    """Return a text, or `default` where it is missing.

    Raises:
        BadRecord: If it is something else.
    """
    found = values.get(key)
    if found is None:
        return default
    return as_text(found, f"'{key}'")


def as_text(value: Any, what: str) -> str:
    """Return a value as text that can be written; `what` names it in the error.

    Raises:
        BadRecord: If it is no text, or holds half of a surrogate pair.
    """
    if not isinstance(value, str):
        raise BadRecord(f"{what} is no text but {shown(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRecord(f"{what} holds half of a character at {error.start}") from error
    return value


def nanoseconds(seconds: float) -> int:
    """Return whole nanoseconds."""
    return round(seconds * 1e9)


def shown(value: Any) -> str:
    """Return a short form of any value, for a message."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = type(value).__name__
    return text if len(text) <= 40 else f"{text[:37]}..."


def _bytes(path: Path) -> bytes:
    try:
        check_regular(path)
        if path.stat().st_size > LARGEST_FILE:
            raise _too_large(path)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ResultsError(f"There is no file '{path}'", "", "Check the path.") from error
    except IsADirectoryError as error:
        raise ResultsError(
            f"'{path}' is a folder, not a file", "", "Give the answer files themselves."
        ) from error
    except OSError as error:
        raise ResultsError(f"Cannot read '{path}'", error.strerror or str(error)) from error


def _unpacked(path: Path, stored: bytes) -> bytes:
    """Unpack gzip, and stop where it grows beyond all measure."""
    parts, size = [], 0
    try:
        with gzip.open(io.BytesIO(stored)) as stream:
            while part := stream.read(_CHUNK):
                size += len(part)
                if size > LARGEST_FILE:
                    raise _too_large(path)
                parts.append(part)
    except (OSError, EOFError, zlib.error) as error:
        raise ResultsError(
            f"'{path}' is damaged",
            f"it begins as a gzip file and cannot be unpacked: {error}",
            "Copy it again from where it was made.",
        ) from error
    return b"".join(parts)


def _text(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ResultsError(
            f"'{path}', line {line}, is not text",
            f"its byte {error.start} does not belong to UTF-8",
            "Give a JSON file in UTF-8.",
        ) from error


def _whole(text: str) -> list[Record] | None:
    """Return the objects of a file that is one document over several lines, else None."""
    head = text.lstrip()[:1]
    if head not in "[{" or (head == "{" and "\n" not in text.strip()):
        return None
    try:
        _decoded(text.split("\n", 1)[0])
        if head == "{":
            return None
    except BadRecord:
        pass
    try:
        values = _decoded(text)
    except BadRecord:
        return None
    items = values if isinstance(values, list) else [values]
    if not all(isinstance(item, dict) for item in items):
        return None
    return [Record(place, item) for place, item in enumerate(items, start=1)]


def _object(line: str) -> Mapping[str, Any]:
    values = _decoded(line)
    if not isinstance(values, dict):
        raise BadRecord(f"it is no JSON object but {shown(values)}")
    return values


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadRecord(f"it is not JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise BadRecord("it is nested too deeply") from error
    except ValueError as error:
        raise BadRecord(f"it is not JSON: {error}") from error


def _cut_short(text: str, line: int, error: BadRecord) -> str:
    """Return the reason of a bad line, with a word on a file that ends in the middle of one."""
    last = line == text.count("\n") + 1
    return f"{error}; the file ends in the middle of it" if last else str(error)


def _too_large(path: Path) -> ResultsError:
    return ResultsError(
        f"'{path}' is too large to import",
        f"it holds more than {LARGEST_FILE // 1024**3} GiB",
        "Split it into several files.",
    )
