"""Bring a benchmark's rows onto the table: from a local file, an address, or the hub.

A file is read and checked whole before anything runs. The hub is asked once: where it cannot be
reached and nothing is cached, the error comes in seconds and says what works without it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import socket
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from specbench.bounded import check_regular, replacing
from specbench.errors import TaskError
from specbench.paths import cache_dir, tasks_dir
from specbench.schema.task import SourceConfig
from specbench.tasks.formats import Row
from specbench.zoo.held_out import held_out_prompts, training_samples

LARGEST_FILE = 4 << 30
"""Bytes of a task file, unpacked; a small file that unpacks to more is no benchmark."""

_REACH_SECONDS = 3.0
_DOWNLOAD_SECONDS = 15.0
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Rows(NamedTuple):
    """Rows with what an error message and a provenance record need.

    Attributes:
        rows: Pairs of a place, such as "line 3", and the row there.
        origin: Where they came from.
    """

    rows: list[tuple[str, Row]]
    origin: str


def read_rows(source: SourceConfig, path: str | None, split: str | None = None) -> Rows:
    """Return all rows of a source.

    Args:
        source: The task's own source: "file", "url", "hub", "classes" or "worlds".
        path: A local file that stands in for it, or None.
        split: A split of the hub data set other than the source's own.

    Raises:
        TaskError: If the rows cannot be had or are broken.
    """
    if path is not None:
        return read_file(Path(path).expanduser())
    if source.kind == "file":
        assert source.file is not None
        return read_file(tasks_dir() / source.file, source.sha256)
    if source.kind == "url":
        return _read_url(source)
    if source.kind == "classes":
        ids = range(source.classes)
        return Rows([(f"class {i}", {"class": i}) for i in ids], f"{source.classes} class ids")
    if source.kind == "worlds":
        drawn = islice(training_samples(source.seed, held_out_prompts()), source.count)
        worlds: list[tuple[str, Row]] = []
        for index, sample in enumerate(drawn):
            row = {"id": f"worlds/{source.seed}/{index}", "turns": list(sample.turns)}
            worlds.append((f"sample {index}", {**row, "category": "worlds", "reference": None}))
        return Rows(worlds, f"{source.count} samples of the embedded worlds")
    return _read_hub(source, split or source.split or "test")


def read_file(path: Path, sha256: str | None = None) -> Rows:
    """Return the rows of a JSON-lines file, which may be compressed by gzip.

    Args:
        path: The file.
        sha256: Digest that its bytes must have, or None.

    Raises:
        TaskError: If the file is missing, changed, not text, empty, or a line is no JSON object.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            data = _bounded(file, path)
    except OSError as error:
        raise TaskError(
            f"Cannot read the task file {path}",
            error.strerror or str(error),
            "Give an existing file by task.path=FILE.",
        ) from error
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise TaskError(
            f"The task file {path} was changed",
            f"its SHA-256 is not {sha256}, so its numbers compare with nobody's",
            "Restore it from the repository, or run your own version by task.path=FILE.",
        )
    try:
        if path.suffix == ".gz":
            with gzip.open(io.BytesIO(data)) as packed:
                data = _bounded(packed, path)
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TaskError(
            f"Cannot read the task file {path}",
            f"it is no {'gzip file of ' if path.suffix == '.gz' else ''}UTF-8 text: {error}",
            "Download it again.",
        ) from error
    return Rows(_parse_lines(text.split("\n"), str(path)), str(path))


def _bounded(file: IO[bytes] | gzip.GzipFile, path: Path) -> bytes:
    data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise TaskError(
            f"The task file {path} is larger than {LARGEST_FILE >> 20:,} MiB",
            "no benchmark's samples take that much",
            "Give the benchmark's own file by task.path=FILE.",
        )
    return data


def _parse_lines(lines: list[str], origin: str) -> list[tuple[str, Row]]:
    rows: list[tuple[str, Row]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise broken_row(origin, place, f"it is not JSON: {error}") from error
        if _SURROGATE.search(line) and not _encodable(row):
            raise broken_row(origin, place, "it spells half a character (a lone surrogate)")
        if not isinstance(row, dict):
            raise broken_row(origin, place, "it is not a JSON object")
        rows.append((place, row))
    if not rows:
        raise TaskError(f"The task file {origin} is empty", "a task needs at least one sample")
    return rows


def _encodable(row: Any) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def broken_row(origin: str, place: str, why: str) -> TaskError:
    """Return the error for one row that cannot be used."""
    return TaskError(f"{origin}, {place}: cannot be read", why, "Mend or remove that line.")


def _read_hub(source: SourceConfig, split: str) -> Rows:
    name = str(source.dataset)
    try:
        with _offline_unless_reachable(os.environ.get("HF_ENDPOINT", "https://huggingface.co")):
            from datasets import load_dataset

            table = load_dataset(name, source.config, split=split, revision=source.revision)
            rows: list[tuple[str, Row]] = [
                (f"row {index}", dict(row)) for index, row in enumerate(table)
            ]
    except Exception as error:
        raise _out_of_reach(name, error) from error
    parts = (name, source.config, split, source.revision)
    return Rows(rows, " ".join(part for part in parts if part))


def _out_of_reach(name: str, error: Exception) -> TaskError:
    reason = " ".join(str(error).split())[:200]
    return TaskError(
        f"Cannot get '{name}'",
        f"it is not cached and cannot be reached: {reason}",
        "Give the official file by task.path=FILE, or run an embedded one: task=tiny, task=shapes.",
    )


def _read_url(source: SourceConfig) -> Rows:
    """Return the rows of the official file, downloaded once and known by its digest."""
    assert source.url is not None and source.sha256 is not None
    kept = cache_dir() / "tasks" / f"{source.sha256}{Path(source.url).suffix}"
    if not kept.is_file():
        _download(source.url, source.sha256, kept)
    return Rows(read_file(kept, source.sha256).rows, source.url)


def _download(url: str, sha256: str, destination: Path) -> None:
    try:
        if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
            raise OSError("HF_HUB_OFFLINE is set")
        with urllib.request.urlopen(url, timeout=_DOWNLOAD_SECONDS) as response:
            data = response.read()
    except (OSError, ValueError) as error:
        raise _out_of_reach(url, error) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise TaskError(
            f"'{url}' is not the file that it was",
            f"its SHA-256 is not {sha256}",
            "Give the official file by task.path=FILE.",
        )
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with replacing(destination) as part:
            part.write_bytes(data)
    except OSError as error:
        raise TaskError(
            f"Cannot keep the task file in {destination.parent}",
            error.strerror or str(error),
            "Make room there, or set SPECBENCH_CACHE to another folder.",
        ) from error


@contextlib.contextmanager
def _offline_unless_reachable(address: str) -> Iterator[None]:
    """Let the hub's client use its cache alone where the host does not answer.

    The client would otherwise retry for most of a minute.
    """
    if _reachable(address):
        yield
        return
    import datasets.config
    import huggingface_hub.constants

    modules: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _reachable(address: str) -> bool:
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https"):
        return True
    if urllib.request.getproxies().get(parts.scheme):
        return True
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=_REACH_SECONDS):
            return True
    except OSError:
        return False
