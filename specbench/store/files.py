"""Result files: written whole or not at all, found by name, folder or pattern.

A result file explains itself: rows in its columns, everything else as JSON in its metadata.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from specbench.bounded import replacing
from specbench.errors import ResultsError
from specbench.schema.result import METADATA_KEY, RESULT_SCHEMA, FileMetadata
from specbench.secrets import scrub_row
from specbench.store.folder import sync_folder, unwritable
from specbench.store.result_set import NOT_OURS, ResultSet, metadata_of, opened, read_parquet

_GONE = "The folder is gone, and with it the journal of the measurements."


@dataclass(frozen=True)
class ResultSummary:
    """One line of a listing of result files.

    Attributes:
        path: The file.
        metadata: Its metadata, or None where the file cannot be read.
        rows: Number of rows.
        modified_unix: When it was last written, in seconds since 1970.
        problem: Why it cannot be read, else empty.
    """

    path: Path
    metadata: FileMetadata | None
    rows: int
    modified_unix: float
    problem: str = ""


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], metadata: FileMetadata) -> None:
    """Write a result file atomically: a reader sees the old file or the new one, never half.

    Raises:
        ResultsError: If the folder cannot be written. Nothing then stands under `path` that did
            not stand there before.
    """
    unknown = {key for row in rows for key in row} - set(RESULT_SCHEMA.names)
    assert not unknown, f"no such columns in the result schema: {sorted(unknown)}"
    schema = RESULT_SCHEMA.with_metadata({METADATA_KEY: metadata.to_json().encode()})
    table = pa.Table.from_pylist([scrub_row(row) for row in rows], schema=schema)
    for field in RESULT_SCHEMA:
        complete = field.nullable or table.column(field.name).null_count == 0
        assert complete, f"column '{field.name}' lacks a value"
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except OSError as error:
        kept = "The journal keeps every measurement." if path.parent.is_dir() else _GONE
        raise unwritable(path, error, kept) from error


def write_table(table: pa.Table, file: BinaryIO) -> None:
    """Write the bytes of a result file: times as differences, everything else by dictionaries.

    Hardly two times are equal. As differences they take a sixth less room in the file, and are
    read in two thirds of the time that a dictionary takes.
    """
    leaves = [name for field in table.schema for name in _leaves(field.name, field.type)]
    times = [name for name in leaves if name.endswith("_ns")]
    pq.write_table(
        table,
        file,
        compression="zstd",
        write_page_checksum=True,
        use_dictionary=[name for name in leaves if name not in times],
        column_encoding=dict.fromkeys(times, "DELTA_BINARY_PACKED"),
    )


def _leaves(path: str, kind: pa.DataType) -> Iterator[str]:
    """Yield the paths under which parquet stores the parts of a column."""
    if pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    elif pa.types.is_map(kind):
        yield from _leaves(f"{path}.key_value.key", kind.key_type)
        yield from _leaves(f"{path}.key_value.value", kind.item_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{path}.{field.name}", field.type)
    else:
        yield path


def read_many(sources: Iterable[str | Path]) -> list[ResultSet]:
    """Read files, folders (their `*.parquet`) and glob patterns, each file once.

    Raises:
        ResultsError: If a source names nothing, or a file cannot be read.
    """
    paths: dict[Path, Path] = {}
    for source in sources:
        for path in _expand(source):
            paths.setdefault(path.resolve(), path)
    if not paths:
        raise ResultsError("No result files were given", "", NOT_OURS)
    return [read_parquet(path) for path in paths.values()]


def list_results(results_dir: Path) -> list[ResultSummary]:
    """Summarise the result files of a folder, newest first, without reading their rows.

    A file that cannot be read is listed with its problem. A folder that does not exist has none.
    """
    summaries = []
    for path in results_dir.glob("*.parquet"):
        modified = path.stat().st_mtime
        try:
            file, values, _ = opened(path)
            metadata = metadata_of(path, values)
            summaries.append(ResultSummary(path, metadata, file.metadata.num_rows, modified))
        except ResultsError as error:
            problem = error.why or error.what
            summaries.append(ResultSummary(path, None, 0, modified, problem))
    return sorted(summaries, key=lambda summary: (-summary.modified_unix, summary.path.name))


def _expand(source: str | Path) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        found = sorted(path.glob("*.parquet"))
        if not found:
            raise ResultsError(
                f"There are no result files in '{path}'",
                "the folder holds no file that ends in .parquet",
                "Give another folder, or measure something with `specbench run`.",
            )
        return found
    if not path.exists() and glob.has_magic(str(source)):
        found = sorted(Path(name) for name in glob.glob(str(source), recursive=True))
        if not found:
            raise ResultsError(f"Nothing matches '{source}'", "", "Check the pattern.")
        return [file for file in found if not file.is_dir()]
    return [path]
