"""Result files, read column by column, with an explanation of what is wrong with a bad one.

Reading upgrades files of older schema versions and refuses everything that is not a result file,
by name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from specbench.bounded import check_regular
from specbench.errors import ResultsError
from specbench.schema.result import (
    METADATA_KEY,
    RESULT_SCHEMA,
    ROUND_TYPE,
    SCHEMA_VERSION,
    FileMetadata,
    upgrade,
)
from specbench.store.folder import unreadable
from specbench.store.ledger import LEDGER_FIELDS, Ledger, ledger_of, turn_starts
from specbench.store.sound import check_values

_LARGE_COLUMNS = ("output_ids", "output_text", "rounds")
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

NOT_OURS = "Give files that `specbench run` wrote."
"""What to do about a file that is no result file."""


def _stamp_of(file: BinaryIO) -> tuple[int, ...]:
    """Return what tells a file from another one that took its place."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class ResultSet:
    """One result file: its metadata, and its columns as far as they are asked for.

    What is generated is far larger than what is measured, so that columns are read from the file
    when they are first used. A file that was replaced in the meantime is refused, since its rows
    are others.

    Attributes:
        path: Where it was read from.
        metadata: Everything beside the rows.
        size: Number of rows.
    """

    path: Path
    metadata: FileMetadata
    size: int
    _written: Mapping[str, Any]
    _stamp: tuple[int, ...]

    @cached_property
    def table(self) -> pa.Table:
        """Every column of `RESULT_SCHEMA`, rounds nested."""
        return self.read(RESULT_SCHEMA.names)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One line a measurement: its columns but the rounds and what was generated.

        `quality` holds dictionaries. The sums over verification rounds follow; see
        `specbench.store.ledger.LEDGER_COLUMNS`.
        """
        names = [name for name in RESULT_SCHEMA.names if name not in _LARGE_COLUMNS]
        frame: pd.DataFrame = self.read(names).to_pandas(maps_as_pydicts="strict")
        return frame.assign(**self.ledger.sums)

    @cached_property
    def outputs(self) -> pd.DataFrame:
        """What was generated, one line a measurement, in the order of `rows`."""
        frame: pd.DataFrame = self.read(_OUTPUT_COLUMNS).to_pandas()
        return frame

    @cached_property
    def ruled(self) -> pa.Table:
        """The columns that say whether files may be compared, kept: they are small."""
        return self.read(["sample_id", "prompt_digest", "fidelity"])

    @cached_property
    def ledger(self) -> Ledger:
        """What the verification rounds of each measurement add up to, in the order of `rows`."""
        return self.with_ledger([])[1]

    @cached_property
    def rounds(self) -> pd.DataFrame:
        """One line a round: the fields of `ROUND_TYPE`, `row` and `first`.

        `row` is the position of the round's measurement in `rows`; `first` marks the first round
        of each turn, the prefill that yields the turn's first token.
        """
        column = self.read(["rounds"]).column("rounds").combine_chunks()
        frame: pd.DataFrame = pa.Table.from_struct_array(pc.list_flatten(column)).to_pandas()
        lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0), dtype=np.int64)
        frame["row"] = np.repeat(np.arange(len(lengths)), lengths)
        frame["first"] = turn_starts(lengths, frame["turn"].to_numpy())
        return frame

    def with_ledger(
        self, columns: Sequence[str], dictionaries: bool = False, more: Sequence[str] = ()
    ) -> tuple[pa.Table, Ledger]:
        """Read some columns and the ledger in one go; nothing is kept.

        Args:
            columns: Names of `RESULT_SCHEMA` without the rounds.
            dictionaries: As for `read`.
            more: Further fields of the rounds to add up; see `ledger_of`.

        Raises:
            ResultsError: As `read`, or if the rounds cannot be what they say.
        """
        fields = tuple(dict.fromkeys((*LEDGER_FIELDS, *more)))
        table = self.read([*columns, "rounds"], fields, dictionaries)
        try:
            ledger = ledger_of(table.column("rounds"), more)
        except ValueError as error:
            raise damaged(self.path, error) from error
        return table.select(columns), ledger

    def read(
        self,
        columns: Sequence[str],
        fields: Sequence[str] | None = None,
        dictionaries: bool = False,
    ) -> pa.Table:
        """Read some columns, upgraded to the current schema version; nothing is kept.

        Args:
            columns: Names of `RESULT_SCHEMA`.
            fields: Fields of the rounds to read; None means all of them.
            dictionaries: Whether text comes back dictionary-encoded, as it is stored.

        Raises:
            ResultsError: If the file is damaged, or is no longer the one that was opened.
        """
        schema = _schema(columns, fields)
        text = [field.name for field in schema if dictionaries and pa.types.is_string(field.type)]
        try:
            with self.path.open("rb") as stream:
                if _stamp_of(stream) != self._stamp:
                    raise ResultsError(
                        f"'{self.path}' changed while it was being read",
                        "it was replaced after its first lines were read",
                        "Give the command again when nothing writes to the file.",
                    )
                file = pq.ParquetFile(stream, read_dictionary=text, page_checksum_verification=True)
                table = file.read(_leaves(file, columns, fields), use_threads=False)
            table, _ = upgrade(table, dict(self._written))
            table = table.select(columns)
            for name in text:
                place = table.column_names.index(name)
                column = table.column(name)
                if not pa.types.is_dictionary(column.type):
                    column = column.cast(pa.string()).dictionary_encode()
                field = pa.field(name, column.type, schema.field(name).nullable)
                schema = schema.set(place, field)
                table = table.set_column(place, field, column)
            table = table.cast(schema)
            check_values(table)
            return table
        except (pa.ArrowException, ValueError, KeyError, OSError) as error:
            raise damaged(self.path, error) from error


def read_parquet(path: Path) -> ResultSet:
    """Read one result file, upgraded to the current schema version.

    Raises:
        ResultsError: If the file is missing, truncated, not parquet, not a result file, or
            written by a newer version of specbench.
    """
    file, values, stamp = opened(path)
    try:
        empty, upgraded = upgrade(file.schema_arrow.empty_table(), dict(values))
    except KeyError as error:
        raise ResultsError(
            f"'{path}' was written by a specbench too old to read",
            f"there is no step from its schema version {error}",
            "Run the job again.",
        ) from error
    missing = [name for name in RESULT_SCHEMA.names if name not in empty.column_names]
    if missing:
        raise ResultsError(
            f"'{path}' is not a whole result file", f"it lacks the column '{missing[0]}'", NOT_OURS
        )
    try:
        empty.select(RESULT_SCHEMA.names).cast(RESULT_SCHEMA)
    except (pa.ArrowException, ValueError) as error:
        raise damaged(path, error) from error
    return ResultSet(path, metadata_of(path, upgraded), file.metadata.num_rows, values, stamp)


def _schema(columns: Sequence[str], fields: Sequence[str] | None) -> pa.Schema:
    """Return the schema of some columns, the rounds with some of their fields."""
    wanted = [RESULT_SCHEMA.field(name) for name in columns]
    if fields is None:
        return pa.schema(wanted)
    part = pa.struct([ROUND_TYPE.field(name) for name in fields])
    return pa.schema(
        [field.with_type(pa.list_(part)) if field.name == "rounds" else field for field in wanted]
    )


def _leaves(
    file: pq.ParquetFile, columns: Sequence[str], fields: Sequence[str] | None
) -> list[str]:
    """Return the paths of the stored columns to read; one that an upgrade adds has none."""
    paths = [file.schema.column(number).path for number in range(len(file.schema))]
    return [
        path
        for path in paths
        if (column := path.split(".")[0]) in columns
        and (column != "rounds" or fields is None or not {*path.split(".")}.isdisjoint(fields))
    ]


def opened(path: Path) -> tuple[pq.ParquetFile, dict[str, Any], tuple[int, ...]]:
    """Return an open parquet file, its decoded metadata of a readable version, and its stamp.

    Raises:
        ResultsError: If it is missing, truncated, no result file, or of a newer version.
    """
    try:
        check_regular(path)
        with path.open("rb") as stream:
            stamp = _stamp_of(stream)
            head = stream.read(4)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 4))
            tail = stream.read(4)
    except OSError as error:
        raise unreadable(path, error, NOT_OURS) from error
    if head != _MAGIC:
        why = "it is empty" if size == 0 else "it is not a parquet file"
        raise ResultsError(f"'{path}' is not a result file", why, NOT_OURS)
    if tail != _MAGIC or size < 12:
        raise ResultsError(
            f"'{path}' is truncated",
            "it begins as a parquet file and ends before its last bytes",
            "Copy it again from where it was made, or run the job again.",
        )
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error
    raw = (file.schema_arrow.metadata or {}).get(METADATA_KEY)
    if raw is None:
        raise ResultsError(
            f"'{path}' is not a result file",
            "it is a parquet file that specbench did not write",
            NOT_OURS,
        )
    try:
        values = dict(json.loads(raw))
        version = int(values["schema_version"])
    except (KeyError, OverflowError, TypeError, ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if version > SCHEMA_VERSION:
        raise ResultsError(
            f"'{path}' was written by a newer specbench",
            f"its schema version is {version}, this program reads up to {SCHEMA_VERSION}",
            "Upgrade specbench.",
        )
    return file, values, stamp


def metadata_of(path: Path, values: Mapping[str, Any]) -> FileMetadata:
    """Return the decoded metadata of the current schema version as what it is.

    Raises:
        ResultsError: If a key is missing or of the wrong shape.
    """
    try:
        return FileMetadata.from_dict(values)
    except (KeyError, TypeError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> ResultsError:
    """Return the error that says that a file cannot be decoded, and why."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ResultsError(
        f"'{path}' is damaged",
        f"it cannot be decoded: {reason}",
        "Copy it again from where it was made, or run the job again.",
    )
