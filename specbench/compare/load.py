"""The columns that a comparison reads, joined over files in little memory.

Two hundred files of ten thousand rows are two million measurements: text columns stay encoded by
their categories, and what was generated is never read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from specbench.compare.table import Table, codes_of
from specbench.errors import ResultsError
from specbench.schema.result import RESULT_SCHEMA
from specbench.store import LEDGER_COLUMNS, Drafts, ResultSet
from specbench.store.ledger import joined as joined_drafts

PAIR = ("task", "sample_id", "repeat", "process")
"""What names a pair of measurements, one of each arm, inside of a file."""

COLUMNS = (
    "arm",
    *PAIR,
    "category",
    "error",
    "new_tokens",
    "total_ns",
    "ttft_ns",
    "decode_ns",
    "host_ns",
    "target_forwards",
    "draft_forwards",
    "peak_device_bytes",
    "peak_rss_bytes",
    "score",
    "score_name",
    "fidelity",
    "offer_visits",
    "offer_accepted",
    "offer_optimal",
    "quality",
)
"""Columns of `RESULT_SCHEMA` that a comparison reads, beside the rounds."""

_THREADS = 2

_CHECKED = (
    *("total_ns", "ttft_ns", "decode_ns", "host_ns", "new_tokens", "target_forwards"),
    *("draft_forwards", "score"),
)
"""Columns whose numbers must be possible where a measurement succeeded."""


class Loaded(NamedTuple):
    """The measurements of some files.

    Attributes:
        table: One line a measurement, indexed by its id, with the further columns `sample`,
            `key`, `pass` and `process_key`, which number samples, pairs, passes and processes.
        drafts: What each verification round accepted, by the same ids.
    """

    table: Table
    drafts: Drafts


class _File(NamedTuple):
    columns: dict[str, pa.ChunkedArray]
    sums: Mapping[str, np.ndarray]
    drafts: Drafts


def load(results: Sequence[ResultSet], marks: Sequence[Mapping[str, int]]) -> Loaded:
    """Read files into one table.

    Of lines of one file that name the same measurement the last one counts.

    Args:
        results: The files; at least one.
        marks: Further columns of each file, one value for all of its lines.

    Raises:
        ResultsError: If a file is damaged or was replaced since it was opened, or if no file
            holds a measurement.
    """
    if not any(result.size for result in results):
        raise ResultsError(
            "There is nothing to compare",
            "none of the files holds a measurement",
            "Run the jobs again, or give other files.",
        )
    with ThreadPoolExecutor(_THREADS) as threads:
        files = list(threads.map(_read, results))
    sizes = [result.size for result in results]
    data: dict[str, object] = {}
    for name in COLUMNS:
        data[name] = _column(name, [file.columns.pop(name) for file in files])
    for name in LEDGER_COLUMNS:
        data[name] = np.concatenate([file.sums[name] for file in files])
    data["verification_emitted"] = _emitted(data)
    for name in marks[0]:
        data[name] = np.repeat([mark[name] for mark in marks], sizes)
    table = Table.of(pd.DataFrame(data, copy=False))
    number = np.repeat(np.arange(len(files)), sizes)
    key = codes_of([number, *(table.codes(name) for name in PAIR)])
    copies = pd.Series(key * 3 + table.codes("arm")).duplicated(keep="last").to_numpy()
    further = {
        "key": key,
        "sample": table.together("task", "sample_id"),
        "pass": table.together("file", "process", "repeat"),
        "process_key": table.together("file", "process"),
    }
    table = table.with_columns(further)
    if copies.any():
        table = table.without(copies)
    return Loaded(table, joined_drafts([file.drafts for file in files]))


def _read(result: ResultSet) -> _File:
    table, ledger = result.with_ledger(COLUMNS, dictionaries=True)
    columns = {name: table.column(name) for name in COLUMNS}
    _check(result, columns)
    return _File(columns, ledger.sums, ledger.drafts)


def _check(result: ResultSet, columns: Mapping[str, pa.ChunkedArray]) -> None:
    """Refuse measurements that cannot be: they are never averaged.

    Raises:
        ResultsError: If a measurement that succeeded took no time, has a negative count, or has
            a number that is none.
    """
    measured = pc.is_null(columns["error"])
    for name in _CHECKED:
        column = columns[name]
        if pa.types.is_floating(column.type):
            odd = pc.invert(pc.is_finite(column))
        elif name == "total_ns":
            odd = pc.less_equal(column, 0)
        else:
            odd = pc.less(column, 0)
        odd = pc.and_(measured, pc.fill_null(odd, False))
        if pc.any(odd).as_py():
            place = pc.index(odd, True).as_py()
            sample, value = (columns[key][place].as_py() for key in ("sample_id", name))
            raise ResultsError(
                f"'{result.path}' holds a measurement that cannot be",
                f"{name} is {value} in sample {sample}",
                "Measure it again, or leave the file out.",
            )


def _emitted(data: Mapping[str, object]) -> np.ndarray:
    """Return the tokens of the verification rounds, also where no round records its own.

    Some imported files know how many steps a turn took and not what each emitted: their rounds
    emitted what the prefills did not.
    """
    recorded, tokens, of_prefills = (
        np.asarray(data[name], dtype=float)
        for name in ("verification_emitted", "new_tokens", "prefill_emitted")
    )
    rest = tokens - of_prefills
    return np.where(np.isnan(recorded) & (rest >= 0), rest, recorded)


def _column(name: str, parts: Sequence[pa.ChunkedArray]) -> object:
    """Return one column of all files: categorical text, numbers, or dictionaries."""
    if name == "quality":
        return _dictionaries(parts)
    joined = pa.chunked_array([chunk for part in parts for chunk in part.chunks], parts[0].type)
    if pa.types.is_dictionary(joined.type):
        return _categorical(joined)
    if RESULT_SCHEMA.field(name).type == pa.float64() or joined.null_count:
        return joined.cast(pa.float64(), safe=False).to_numpy()
    return joined.to_numpy()


def _categorical(column: pa.ChunkedArray) -> pd.Categorical:
    unified = column.unify_dictionaries()
    codes = [np.asarray(chunk.indices.fill_null(-1)) for chunk in unified.chunks]
    names = unified.chunk(0).dictionary.to_pylist() if unified.num_chunks else []
    dtype = pd.CategoricalDtype(pd.Index(names, dtype="str"))
    return pd.Categorical.from_codes(np.concatenate([np.zeros(0, np.int8), *codes]), dtype=dtype)


def _dictionaries(parts: Sequence[pa.ChunkedArray]) -> np.ndarray:
    values = np.full(sum(len(part) for part in parts), None, dtype=object)
    start = 0
    for part in parts:
        if part.null_count < len(part):
            values[start : start + len(part)] = part.to_pylist(maps_as_pydicts="strict")
        start += len(part)
    return values
