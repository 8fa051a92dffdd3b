"""The journal: every finished measurement on the disk before the next one starts.

A journal is a file of JSON lines beside the results. Its first line holds the job's metadata;
every further line holds the rows of one group of measurements, and the first of a process what was
noted of it. A group is written with one `write` and then synced, so that a killed process leaves
whole lines and at most one torn line at the end, which reading drops.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from specbench.errors import ResultsError
from specbench.schema.result import RESULT_SCHEMA, SCHEMA_VERSION, FileMetadata
from specbench.secrets import scrub, scrub_row
from specbench.store.folder import JOURNAL_FOLDER, sync_folder, unwritable
from specbench.store.lock import same_file, take_lock

JOURNAL_VERSION = 1

Row = dict[str, Any]
"""One measurement: a value for each column of `RESULT_SCHEMA` that applies."""

_COLUMNS = frozenset(RESULT_SCHEMA.names)
_REQUIRED = [field.name for field in RESULT_SCHEMA if not field.nullable]


class Key(NamedTuple):
    """What identifies one measurement inside of a job.

    Attributes:
        arm: "baseline" or "method".
        sample_id: The sample.
        repeat: Index of the repeat.
        process: Index of the process that measured.
    """

    arm: str
    sample_id: str
    repeat: int
    process: int


class Journal:
    """The measurements of one job while it runs; made by `Journal.open`.

    Holding a journal holds the job: a second run of the same job is refused until the first one
    ends, however it ends. Different jobs in one folder do not meet.

    Attributes:
        path: The journal's file.
        metadata: The metadata in the file's first line, as this job or its first run wrote it.
    """

    def __init__(
        self, path: Path, metadata: FileMetadata, held: _Held, descriptor: int, lock: int
    ) -> None:
        """Hold an open file and its lock; `Journal.open` makes both."""
        self.path = path
        self.metadata = metadata
        self._rows = held.rows
        self._notes = held.notes
        self._unwritten: dict[str, Any] = {}
        self._descriptor: int | None = descriptor
        self._lock: int | None = lock

    @classmethod
    def open(
        cls, results_dir: Path, stem: str, metadata: FileMetadata, fresh: bool = False
    ) -> Journal:
        """Open the journal of a job, and go on with it where it exists.

        A torn last line is cut off. With `fresh`, an earlier unfinished journal is set aside under
        another name and a new one begun.

        Args:
            results_dir: The results folder.
            stem: The job's file name without suffix.
            metadata: What the job measures, written into a new journal.
            fresh: Whether to begin anew.

        Raises:
            ResultsError: If another run holds the job, or the file cannot be read or written, or
                belongs to another job, or is damaged before its end.
        """
        folder = results_dir / JOURNAL_FOLDER
        path = folder / f"{stem}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = take_lock(folder / f"{stem}.lock")
        except OSError as error:
            raise unwritable(folder, error) from error
        try:
            if fresh and path.exists():
                os.replace(path, _aside(path))
            held = _read(path)
            begun = held.metadata
            if begun is not None and begun.job_id != metadata.job_id:
                raise ResultsError(
                    f"The journal '{path}' belongs to another job",
                    f"it holds job {begun.job_id}, this is job {metadata.job_id}",
                    "Move the file away, or begin anew with --fresh.",
                )
            if begun is not None and begun.schema_version != SCHEMA_VERSION:
                raise ResultsError(
                    f"The journal '{path}' was begun by another version of specbench",
                    f"its schema version is {begun.schema_version}, this one is {SCHEMA_VERSION}",
                    "Finish it with that version, or begin anew with --fresh.",
                )
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            journal = cls(path, begun or metadata, held, descriptor, lock)
            os.ftruncate(descriptor, held.end)
            os.lseek(descriptor, held.end, os.SEEK_SET)
            if begun is None:
                journal._write({"journal": JOURNAL_VERSION, "metadata": scrub(asdict(metadata))})
                sync_folder(folder)
        except OSError as error:
            os.close(lock)
            raise unwritable(path, error) from error
        except ResultsError:
            os.close(lock)
            raise
        return journal

    @property
    def done(self) -> set[Key]:
        """The measurements that succeeded; one with an error is measured again."""
        return {key for key, row in self._rows.items() if row.get("error") is None}

    @property
    def rows(self) -> list[Row]:
        """Every measurement in the order of its last writing, one row a key."""
        return list(self._rows.values())

    @property
    def notes(self) -> list[dict[str, Any]]:
        """What was noted of the processes that measured, in order."""
        return list(self._notes)

    def note(self, process: int, about: Mapping[str, Any]) -> None:
        """Remember something of a process that begins to measure, with its next measurement."""
        self._unwritten = scrub({"process": process, **about})

    def append_many(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows of one group of measurements: after a crash all are there, or none.

        A row replaces an earlier one of the same key.

        Raises:
            ResultsError: If the line cannot be written. The journal then ends as before.
        """
        plain = [scrub_row(row) for row in rows]
        if not plain:
            return
        noted = {"note": self._unwritten} if self._unwritten else {}
        self._write({"rows": plain, **noted})
        self._notes.extend(noted.values())
        self._unwritten = {}
        _keep(self._rows, plain)

    def check_place(self, more: int = 0) -> None:
        """Make sure that what is written can be found: the file stands where it was opened.

        Raises:
            ResultsError: If it, or a folder above it, was removed or moved away.
        """
        assert self._descriptor is not None, "the journal is closed"
        if same_file(self._descriptor, self.path):
            return
        if os.fstat(self._descriptor).st_nlink == 0:
            raise ResultsError(
                f"The journal '{self.path}' was removed during the run",
                f"all {len(self._rows) + more} finished measurements of this job are lost",
                "Leave the results folder in place, then give the same command again to measure "
                "anew.",
            )
        raise ResultsError(
            f"The journal '{self.path}' was moved away during the run",
            f"it keeps {len(self._rows)} finished measurements where it lies now",
            "Move the results folder back, then give the same command again to resume.",
        )

    def close(self) -> None:
        """Let the job go; the file stays for a later run to resume."""
        for descriptor in (self._descriptor, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        self._descriptor = self._lock = None

    def remove(self) -> None:
        """Delete the journal once its rows stand in a result file, and let the job go."""
        _remove(self.path)
        self.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(self, value: Mapping[str, Any]) -> None:
        assert self._descriptor is not None, "the journal is closed"
        self.check_place(len(value.get("rows", ())))
        line = json.dumps(value, separators=(",", ":"), default=_plain).encode() + b"\n"
        before = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        try:
            view = memoryview(line)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, before)
            os.lseek(self._descriptor, before, os.SEEK_SET)
            kept = f"The journal keeps all {len(self._rows)} measurements finished before."
            raise unwritable(self.path, error, kept) from error


def drop_written(results_dir: Path, stem: str, written: Sequence[Mapping[str, Any]]) -> bool:
    """Delete a job's journal if all that it holds stands in a result file.

    A run that is killed after it wrote its result file and before it deleted its journal leaves
    such a journal. One that holds anything else (a repetition by `--fresh` that was stopped), that
    cannot be read, or that a run holds is kept.

    Returns:
        Whether a journal was deleted.
    """
    path = results_dir / JOURNAL_FOLDER / f"{stem}.jsonl"
    if not path.exists():
        return False
    started = {key_of(row): row["started_unix"] for row in written}
    try:
        lock = take_lock(path.with_suffix(".lock"))
    except (OSError, ResultsError):
        return False
    try:
        held = _read(path)
        kept = all(started.get(key) == row["started_unix"] for key, row in held.rows.items())
        if not kept or held.end < path.stat().st_size:
            return False
        _remove(path)
    except (OSError, ResultsError):
        return False
    finally:
        os.close(lock)
    return True


def _remove(path: Path) -> None:
    """Delete a journal and its lock, and their folder where this was its last journal."""
    path.unlink(missing_ok=True)
    path.with_suffix(".lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.parent.rmdir()


def key_of(row: Mapping[str, Any]) -> Key:
    """Return the key of a row."""
    return Key(
        str(row["arm"]), str(row["sample_id"]), int(row["repeat"]), int(row.get("process") or 0)
    )


class _Held(NamedTuple):
    """What a journal's file holds.

    Attributes:
        metadata: Of its first line; None where there is no file or no whole line.
        rows: The last row of each key.
        notes: What was noted of the processes, in order.
        end: Where the last whole line ends, in bytes.
    """

    metadata: FileMetadata | None
    rows: dict[Key, Row]
    notes: list[dict[str, Any]]
    end: int


def _read(path: Path) -> _Held:
    metadata, end = None, 0
    notes: list[dict[str, Any]] = []
    lines: list[tuple[int, list[Row]]] = []
    if not path.exists():
        return _Held(metadata, {}, notes, end)
    whole = path.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(whole, start=1):
        value = _decoded(line)
        if value is None and number == len(whole):
            break
        try:
            if number == 1:
                metadata = FileMetadata.from_dict(value["metadata"])
            else:
                lines.append((number, [dict(row) for row in value["rows"]]))
                notes.extend([dict(value["note"])] if "note" in value else [])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _damaged(path, number) from error
        end += len(line) + 1
    everything = [row for _, group in lines for row in group]
    if not _writable(everything):
        raise _damaged(path, next(number for number, group in lines if not _writable(group)))
    rows: dict[Key, Row] = {}
    _keep(rows, everything)
    return _Held(metadata, rows, notes, end)


def _keep(rows: dict[Key, Row], more: Sequence[Row]) -> None:
    """Put rows behind the others; an earlier one of the same key goes."""
    for row in more:
        rows.pop(key_of(row), None)
        rows[key_of(row)] = row


def _writable(rows: Sequence[Row]) -> bool:
    """Say whether a result file could hold these rows."""
    try:
        pa.Table.from_pylist(rows, schema=RESULT_SCHEMA)
    except (pa.ArrowException, ArithmeticError, TypeError, ValueError):
        return False
    return all(
        row.keys() <= _COLUMNS and all(row.get(name) is not None for name in _REQUIRED)
        for row in rows
    )


def _damaged(path: Path, number: int) -> ResultsError:
    return ResultsError(
        f"The journal '{path}' is damaged",
        f"line {number} is not a line that a run writes",
        "Delete that line to keep the others, or begin anew with --fresh.",
    )


def _decoded(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _plain(value: Any) -> Any:
    """Turn a scalar of numpy or the like into Python's."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} does not belong in a row")


def _aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.stem}.aside-{number}.jsonl")).exists():
        number += 1
    return aside
