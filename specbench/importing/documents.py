"""Bytes to decoded objects: nothing that a file may hold gets past here unexamined.

A file is JSON, one object a line or one document, plain or gzipped. Only JSON is ever decoded:
no code runs from data. A line that cannot be believed is an error that names the file, the line
and the reason; with `skip_bad` it is left out and counted.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from specbench.bounded import check_regular
from specbench.errors import ResultsError
from specbench.importing.fields import BadRecord, shown
from specbench.importing.records import Notes
from specbench.store.folder import unreadable

LARGEST_FILE = 2 * 1024**3
"""Bytes, unpacked, beyond which a file is refused."""

_GZIP = b"\x1f\x8b"
_Read = TypeVar("_Read")


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
                values = _decoded(line)
                if not isinstance(values, dict):
                    raise BadRecord(f"it is no JSON object but {shown(values)}")
                records.append(Record(number, values))
            except BadRecord as error:
                if not skip_bad:
                    cut = number > text.count("\n")
                    reason = f"{error}; the file ends in the middle of it" if cut else str(error)
                    raise _bad_line(path, number, reason) from error
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
    document: Document, read: Callable[[Record], _Read], skip_bad: bool, notes: Notes
) -> list[_Read]:
    """Read every record of a file.

    Raises:
        ResultsError: If a record is bad, or none is left.
    """
    out, skipped = [], list(document.skipped)
    for record in document.records:
        try:
            out.append(read(record))
        except BadRecord as error:
            if not skip_bad:
                raise _bad_line(document.path, record.line, str(error)) from error
            skipped.append(record.line)
    if not out:
        raise ResultsError(
            f"'{document.path}' holds nothing that can be imported",
            f"all of its {len(skipped)} lines were left out as bad",
            "Import it without --skip-bad to see what is wrong with the first.",
        )
    if len(skipped) == 1:
        notes.add(f"Line {skipped[0]} was left out as bad")
    elif skipped:
        notes.add(f"{len(skipped)} lines were left out as bad, the first of them {skipped[0]}")
    return out


def _bad_line(path: Path, line: int, reason: str) -> ResultsError:
    """Return the error of a line that cannot be read."""
    return ResultsError(
        f"'{path}', line {line}, cannot be imported",
        reason,
        "Mend the line, or leave such lines out with --skip-bad.",
    )


def _bytes(path: Path) -> bytes:
    try:
        check_regular(path)
        if path.stat().st_size > LARGEST_FILE:
            raise _too_large(path)
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error, "Give the answer files themselves.") from error


def _unpacked(path: Path, stored: bytes) -> bytes:
    """Unpack gzip, and stop where it grows beyond all measure."""
    try:
        with gzip.open(io.BytesIO(stored)) as stream:
            unpacked = stream.read(LARGEST_FILE + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ResultsError(
            f"'{path}' is damaged",
            f"it begins as a gzip file and cannot be unpacked: {error}",
            "Copy it again from where it was made.",
        ) from error
    if len(unpacked) > LARGEST_FILE:
        raise _too_large(path)
    return unpacked


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


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadRecord(f"it is not JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise BadRecord("it is nested too deeply") from error
    except ValueError as error:
        raise BadRecord(f"it is not JSON: {error}") from error


def _too_large(path: Path) -> ResultsError:
    return ResultsError(
        f"'{path}' is too large to import",
        f"it holds more than {LARGEST_FILE // 1024**3} GiB",
        "Split it into several files.",
    )
