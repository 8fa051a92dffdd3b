"""Documents of a text, JSON-lines or parquet file, one after another, in pieces.

A text file is one document. A row of a JSON-lines or parquet file is one document, its text in
one column. Long documents come in pieces that end with a line, so that no file is held whole.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from specbench.bounded import check_regular
from specbench.errors import UsageError, did_you_mean

SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")
"""Endings that are read; all but parquet may be compressed (.gz). Others are read as text."""

_PIECE = 1 << 20


class Piece(NamedTuple):
    """A stretch of a document.

    Attributes:
        text: The text.
        last: Whether the document ends with it.
    """

    text: str
    last: bool


def read_documents(path: Path, column: str) -> Iterator[Piece]:
    """Yield the documents of a file in order, empty ones left out.

    Args:
        path: A text file, a JSON-lines file or a parquet file.
        column: The field or column of the text; text files have none.

    Raises:
        UsageError: If the file cannot be read or has no such column.
    """
    try:
        check_regular(path)
        if path.suffix == ".parquet":
            yield from _parquet(path, column)
            return
        with _open(path) as stream:
            lines = path.suffixes[-2:-1] if path.suffix == ".gz" else path.suffixes[-1:]
            yield from _json_lines(stream, path, column) if lines == [".jsonl"] else _text(stream)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"Cannot read '{path}'", reason, "Give UTF-8 text, JSON lines or parquet files."
        ) from error


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()[:32]}"


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open("r", encoding="utf-8", newline="")


def _text(stream: IO[str]) -> Iterator[Piece]:
    held = ""
    while block := "".join(stream.readlines(_PIECE)):
        if held:
            yield Piece(held, False)
        held = block
    if held:
        yield Piece(held, True)


def _json_lines(stream: IO[str], path: Path, column: str) -> Iterator[Piece]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(
                f"Line {number} of '{path}' is not JSON", str(error), "Correct the file."
            ) from error
        if not isinstance(row, dict) or not isinstance(row.get(column), str):
            names = [key for key, value in row.items() if isinstance(value, str)] if row else []
            raise _no_column(f"Line {number} of '{path}'", column, names)
        if row[column]:
            yield Piece(row[column], True)


def _parquet(path: Path, column: str) -> Iterator[Piece]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise UsageError(
            f"Cannot read '{path}'", str(error).splitlines()[0], "Give a parquet file."
        ) from error
    schema = file.schema_arrow
    texts = (pa.string(), pa.large_string())
    names = [field.name for field in schema if field.type in texts]
    if column not in names:
        raise _no_column(f"'{path}'", column, names)
    for batch in file.iter_batches(columns=[column], batch_size=1024):
        for text in batch.column(0).to_pylist():
            if text:
                yield Piece(text, True)


def _no_column(place: str, column: str, names: list[str]) -> UsageError:
    known = f"its text columns are: {', '.join(names)}" if names else "it has no text column"
    advice = did_you_mean(column, names) or "Name the column with --column NAME."
    return UsageError(f"{place} has no text in '{column}'", known, advice)
