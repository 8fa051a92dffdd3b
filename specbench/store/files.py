"""Result files: written whole or not at all, read with an explanation of what is wrong.

A result file explains itself: rows in its columns, everything else as JSON in its metadata.
Reading upgrades files of older schema versions and refuses everything that is not a result file,
by name.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from specbench.errors import ResultsError
from specbench.schema.result import (
    METADATA_KEY,
    RESULT_SCHEMA,
    SCHEMA_VERSION,
    FileMetadata,
    upgrade,
)
from specbench.secrets import scrub_row
from specbench.store.folder import sync_folder, unwritable

_OUTPUT_COLUMNS = [
    "arm",
    "task",
    "category",
    "sample_id",
    "repeat",
    "process",
    "error",
    "output_ids",
    "output_text",
    "picture",
    "score",
    "fidelity",
    "first_divergence",
]
_MAGIC = b"PAR1"
_NOT_OURS = "Give files that `specbench run` wrote."


@dataclass(frozen=True)
class ResultSet:
    """One result file in memory.

    Attributes:
        path: Where it was read from.
        metadata: Everything beside the rows.
        table: The columns of `RESULT_SCHEMA`, rounds nested.
    """

    path: Path
    metadata: FileMetadata
    table: pa.Table

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One line a measurement, every column but the rounds; `quality` holds dictionaries."""
        table = self.table.drop_columns(["rounds"])
        frame: pd.DataFrame = table.to_pandas(maps_as_pydicts="strict")
        return frame

    @cached_property
    def outputs(self) -> pd.DataFrame:
        """What was generated, one line a measurement, in the order of `rows`.

        Columns: arm, task, category, sample_id, repeat, process, error, output_ids, output_text,
        picture, score, fidelity, first_divergence.
        """
        frame: pd.DataFrame = self.table.select(_OUTPUT_COLUMNS).to_pandas()
        return frame

    @cached_property
    def rounds(self) -> pd.DataFrame:
        """One line a round: the fields of `ROUND_TYPE`, `row` and `first`.

        `row` is the position of the round's measurement in `rows`; `first` marks the first round
        of each turn, the prefill that yields the turn's first token.
        """
        column = self.table.column("rounds").combine_chunks()
        flat = pa.Table.from_struct_array(pc.list_flatten(column))
        frame: pd.DataFrame = flat.to_pandas()
        row = np.asarray(pc.list_parent_indices(column), dtype=np.int64)
        turn = frame["turn"].to_numpy()
        first = np.ones(len(frame), dtype=bool)
        first[1:] = (row[1:] != row[:-1]) | (turn[1:] != turn[:-1])
        frame["row"] = row
        frame["first"] = first
        return frame


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

    Args:
        path: The file to write.
        rows: A value for each column of `RESULT_SCHEMA`; a missing nullable one is null.
        metadata: Everything beside the rows.

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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise unwritable(path, error, "The journal keeps every measurement.") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_parquet(path: Path) -> ResultSet:
    """Read one result file, upgraded to the current schema version.

    Raises:
        ResultsError: If the file is missing, truncated, not parquet, not a result file, or
            written by a newer version of specbench.
    """
    file, values = _opened(path)
    try:
        table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    try:
        table, values = upgrade(table, values)
    except KeyError as error:
        raise ResultsError(
            f"'{path}' was written by a specbench too old to read",
            f"there is no step from its schema version {error}",
            "Run the job again.",
        ) from error
    missing = [name for name in RESULT_SCHEMA.names if name not in table.column_names]
    if missing:
        raise ResultsError(
            f"'{path}' is not a whole result file", f"it lacks the column '{missing[0]}'", _NOT_OURS
        )
    try:
        table = table.select(RESULT_SCHEMA.names).cast(RESULT_SCHEMA)
    except (pa.ArrowException, ValueError) as error:
        raise _damaged(path, error) from error
    return ResultSet(path, _metadata(path, values), table)


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
        raise ResultsError("No result files were given", "", _NOT_OURS)
    return [read_parquet(path) for path in paths.values()]


def list_results(results_dir: Path) -> list[ResultSummary]:
    """Summarise the result files of a folder, newest first, without reading their rows.

    A file that cannot be read is listed with its problem. A folder that does not exist has none.
    """
    summaries = []
    for path in results_dir.glob("*.parquet"):
        modified = path.stat().st_mtime
        try:
            file, values = _opened(path)
            metadata = _metadata(path, values)
            summaries.append(ResultSummary(path, metadata, file.metadata.num_rows, modified))
        except ResultsError as error:
            problem = error.why or error.what
            summaries.append(ResultSummary(path, None, 0, modified, problem))
    return sorted(summaries, key=lambda summary: (-summary.modified_unix, summary.path.name))


def _opened(path: Path) -> tuple[pq.ParquetFile, dict[str, Any]]:
    """Return an open parquet file and its decoded metadata of a version that can be read."""
    try:
        with path.open("rb") as stream:
            head = stream.read(4)
            stream.seek(0, os.SEEK_END)
            size = stream.tell()
            stream.seek(max(0, size - 4))
            tail = stream.read(4)
    except FileNotFoundError as error:
        raise ResultsError(f"There is no file '{path}'", "", "Check the path.") from error
    except IsADirectoryError as error:
        raise ResultsError(f"'{path}' is a folder, not a file", "", _NOT_OURS) from error
    except OSError as error:
        raise ResultsError(f"Cannot read '{path}'", error.strerror or str(error), "") from error
    if head != _MAGIC:
        why = "it is empty" if size == 0 else "it is not a parquet file"
        raise ResultsError(f"'{path}' is not a result file", why, _NOT_OURS)
    if tail != _MAGIC or size < 12:
        raise ResultsError(
            f"'{path}' is truncated",
            "it begins as a parquet file and ends before its last bytes",
            "Copy it again from where it was made, or run the job again.",
        )
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    raw = (file.schema_arrow.metadata or {}).get(METADATA_KEY)
    if raw is None:
        raise ResultsError(
            f"'{path}' is not a result file",
            "it is a parquet file that specbench did not write",
            _NOT_OURS,
        )
    try:
        values = dict(json.loads(raw))
        version = int(values["schema_version"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    if version > SCHEMA_VERSION:
        raise ResultsError(
            f"'{path}' was written by a newer specbench",
            f"its schema version is {version}, this program reads up to {SCHEMA_VERSION}",
            "Upgrade specbench.",
        )
    return file, values


def _metadata(path: Path, values: Mapping[str, Any]) -> FileMetadata:
    try:
        return FileMetadata.from_dict(values)
    except (KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ResultsError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ResultsError(
        f"'{path}' is damaged",
        f"it cannot be decoded: {reason}",
        "Copy it again from where it was made, or run the job again.",
    )


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
