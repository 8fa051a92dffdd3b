"""What no measurement can be: values of a result file that nothing further may calculate with."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.compute as pc

from specbench.schema.result import BASELINE, METHOD, RESULT_SCHEMA

LARGEST = 1e100
"""Size up to which sums and squares of a number stay numbers."""

_LAST_SECOND = 253_402_300_799  # of the year 9999, after which there is no date
_NUMBERS = [field.name for field in RESULT_SCHEMA if pa.types.is_float64(field.type)]


def check_values(table: pa.Table) -> None:
    """Check the columns that a table has of `RESULT_SCHEMA`.

    Raises:
        ValueError: For an unknown arm, a number that is infinite or beyond `LARGEST`, a time
            without a date, and a picture's path that no file has.
    """
    names = set(table.column_names)
    if "arm" in names:
        for arm in pc.unique(table.column("arm")).to_pylist():
            if arm not in (BASELINE, METHOD):
                raise ValueError(f"there is no arm {arm!r:.40}")
    for name in names.intersection(_NUMBERS):
        _check_numbers(name, table.column(name))
    if "quality" in names:
        for chunk in table.column("quality").chunks:
            _check_numbers("quality", chunk.items)
    if "started_unix" in names:
        column = table.column("started_unix")
        ends = pc.min_max(column).as_py()
        if pc.any(pc.is_nan(column)).as_py():
            raise ValueError("'started_unix' holds a time that is no number")
        if ends["min"] is not None and not 0 <= ends["min"] <= ends["max"] <= _LAST_SECOND:
            raise ValueError("'started_unix' holds a time that is no date")
    if "picture" in names:
        column = table.column("picture")
        if pc.any(pc.match_substring(column, "\0")).as_py():
            raise ValueError("'picture' holds a path with a NUL character")


def _check_numbers(name: str, column: pa.Array | pa.ChunkedArray) -> None:
    ends = pc.min_max(column).as_py()
    for end in (ends["min"], ends["max"]):
        if end is not None and not math.isnan(end) and abs(end) > LARGEST:
            raise ValueError(f"'{name}' holds {end}")
