"""Names in a results folder, and whether the folder can be written at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specbench.errors import ResultsError

JOURNAL_FOLDER = ".journal"
"""Folder of the journals in a results folder."""

MINIMUM_FREE_BYTES = 32 * 1024 * 1024
"""Free space that a run asks for before it measures anything."""

_LONGEST_PART = 60  # three parts and the job's id then fit any file system's 255 bytes


def job_id(values: Mapping[str, Any]) -> str:
    """Return the fingerprint of what a job measures: 12 hexadecimal digits.

    The order of keys does not matter; tuples and lists are the same. Two jobs with one
    fingerprint are the same measurement, and one may finish what the other began.

    Args:
        values: Everything that changes what is measured, as plain values.
    """
    canonical = json.dumps(
        values, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def result_stem(method: str, model: str, task: str, job: str) -> str:
    """Return the file name, without suffix, of a job's results, safe on any file system."""
    return "__".join([_safe(method), _safe(model), _safe(task), _safe(job)])


def next_free_path(results_dir: Path, stem: str) -> Path:
    """Return the first of `stem.parquet`, `stem-2.parquet`, ... that does not exist."""
    path = results_dir / f"{stem}.parquet"
    number = 2
    while path.exists():
        path = results_dir / f"{stem}-{number}.parquet"
        number += 1
    return path


def existing_results(results_dir: Path, stem: str) -> list[Path]:
    """Return the finished files of a job: `stem.parquet`, then `stem-2.parquet`, and so on."""
    numbered = re.compile(re.escape(stem) + r"(?:-(\d+))?\.parquet")
    matches = ((numbered.fullmatch(path.name), path) for path in results_dir.glob("*.parquet"))
    return [path for _, path in sorted((int(m[1] or 1), path) for m, path in matches if m)]


def is_begun(results_dir: Path, stem: str) -> bool:
    """Whether a job has a result file or a journal."""
    journal = results_dir / JOURNAL_FOLDER / f"{stem}.jsonl"
    return journal.exists() or bool(existing_results(results_dir, stem))


def check_writable(results_dir: Path, needed_bytes: int = MINIMUM_FREE_BYTES) -> None:
    """Make the results folder, and fail now rather than after an hour of measuring.

    Raises:
        ResultsError: If the folder cannot be made or written, or its disk is full.
    """
    try:
        results_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=results_dir, prefix=".writable-") as probe:
            probe.write(b"specbench")
            probe.flush()
            os.fsync(probe.fileno())
        free = shutil.disk_usage(results_dir).free
    except OSError as error:
        raise unwritable(results_dir, error) from error
    if free < needed_bytes:
        raise ResultsError(
            f"Too little space for results in '{results_dir}'",
            f"{free / 2**20:.1f} MiB are free and a run asks for {needed_bytes / 2**20:.0f} MiB",
            "Free some space, or choose another folder with results_dir=PATH.",
        )


def unwritable(path: Path, error: OSError, kept: str = "") -> ResultsError:
    """Return the error that explains a failed write.

    Args:
        path: The file or folder that could not be written.
        error: What the operating system said.
        kept: One sentence about what is safe, or empty.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        reason, remedy = "there is no space left for it", "Free some space"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason, remedy = "it may not be written (read-only)", "Change its permissions"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST):
        reason, remedy = "a file stands where a folder is needed", "Move the file"
    else:
        reason, remedy = error.strerror or str(error), "Mend it"
    if kept:
        fix = f"{remedy}, then give the same command again to resume."
        return ResultsError(f"Cannot write '{path}'", f"{reason}. {kept}", fix)
    fix = f"{remedy}, or choose another folder with results_dir=PATH."
    return ResultsError(f"Cannot write results to '{path}'", reason, fix)


def unreadable(path: Path, error: OSError, fix: str) -> ResultsError:
    """Return the error that explains a failed read; `fix` says what to give instead of a folder."""
    if isinstance(error, FileNotFoundError):
        return ResultsError(f"There is no file '{path}'", "", "Check the path.")
    if isinstance(error, IsADirectoryError):
        return ResultsError(f"'{path}' is a folder, not a file", "", fix)
    return ResultsError(f"Cannot read '{path}'", error.strerror or str(error))


def sync_folder(folder: Path) -> None:
    """Make a new or renamed file in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _safe(part: str) -> str:
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-.")
    return cleaned[:_LONGEST_PART] or "unnamed"
