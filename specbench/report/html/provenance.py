"""Where the numbers of a page come from: files, versions, machine, digests, command lines."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from specbench.report import words
from specbench.report.columns import Cell
from specbench.report.html.tables import Line, Table
from specbench.store import ResultSet

_LONGEST = 160
"""Characters of a value; longer ones are cut."""

_SKIPPED = ("command",)


class Fact(NamedTuple):
    """One thing that is known of the measurement."""

    name: str
    value: str


class Source(NamedTuple):
    """What an imported file says of itself."""

    file: str
    format: str
    unknown: tuple[str, ...]
    odd: tuple[str, ...]


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from.

    Attributes:
        common: What all files share.
        files: A line for each file, with its digest.
        differing: What the files do not share; None where they share everything.
        commands: The command lines that measured.
        revisions: Git revisions of the program, marked where the tree was not clean.
        imported: What imported files lack.
    """

    common: tuple[Fact, ...]
    files: Table
    differing: Table | None
    commands: tuple[str, ...]
    revisions: tuple[str, ...]
    imported: tuple[Source, ...]


def provenance(results: Sequence[ResultSet]) -> Provenance:
    """Return where some files come from."""
    facts = [dict(_facts(result)) for result in results]
    names = list(dict.fromkeys(name for known in facts for name in known))
    shared = [name for name in names if len({known.get(name, "") for known in facts}) == 1]
    apart = [name for name in names if name not in shared]
    commands = dict.fromkeys(_command(result) for result in results)
    revisions = dict.fromkeys(_revision(result) for result in results)
    return Provenance(
        common=tuple(Fact(name, facts[0][name]) for name in shared),
        files=_files(results),
        differing=_differing(results, facts, apart) if apart else None,
        commands=tuple(command for command in commands if command),
        revisions=tuple(revision for revision in revisions if revision),
        imported=tuple(_imported(results)),
    )


def _facts(result: ResultSet) -> Iterable[Fact]:
    data = result.metadata
    timing = {f"timing.{key}": value for key, value in data.timing.items()}
    values: dict[str, Any] = {
        "model": data.model,
        "target law": data.law,
        "law hash": data.law_hash,
        "dtype": data.dtype,
        "device": data.device,
        "engine": data.engine,
        "task digest": f"{data.task} (version {data.task_version}): {data.task_digest}",
        "scorers": ", ".join(f"{name} version {v}" for name, v in sorted(data.scorer.items())),
        **timing,
    }
    known = {key: value for key, value in data.provenance.items() if key not in _SKIPPED}
    values.update(_leaves(known))
    for name, value in values.items():
        text = "" if value is None else str(value)
        if text:
            yield Fact(name, text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")


def _leaves(value: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, Any]]:
    for key, item in value.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(item, Mapping):
            yield from _leaves(item, name)
        else:
            yield name, item


def _files(results: Sequence[ResultSet]) -> Table:
    lines = []
    for result in results:
        data, count = result.metadata, result.size
        digest = _digest(result.path)
        cells = (
            Cell(result.path.name),
            Cell(data.method.name),
            Cell(data.task),
            Cell(str(count), count),
            Cell(data.job_id),
            Cell(digest[:16] or words.NOTHING, tone="code", more=digest),
        )
        lines.append(Line(cells))
    heads = ("file", "method", "task", "rows", "job", "SHA-256")
    return Table.of("The result files", heads, lines)


def _differing(
    results: Sequence[ResultSet], facts: Sequence[Mapping[str, str]], names: Sequence[str]
) -> Table:
    lines = tuple(
        Line(
            (
                Cell(result.path.name),
                *(Cell(known.get(name, words.NOTHING)) for name in names),
            )
        )
        for result, known in zip(results, facts, strict=True)
    )
    return Table.of("What differs between the files", ["file", *names], lines)


def _imported(results: Sequence[ResultSet]) -> Iterable[Source]:
    for result in results:
        source = result.metadata.source
        if source:
            yield Source(
                result.path.name,
                str(source.get("format", "")),
                tuple(str(sentence) for sentence in source.get("unknown", ())),
                tuple(str(sentence) for sentence in source.get("odd", ())),
            )


def _command(result: ResultSet) -> str:
    """Return the command line of a run as a shell takes it.

    The files of early versions lack the subcommand's name.
    """
    command = result.metadata.provenance.get("command")
    if not isinstance(command, Sequence) or isinstance(command, str):
        return str(command or "")
    words = [str(part) for part in command]
    if len(words) > 1 and (words[1].startswith("-") or "=" in words[1]):
        words.insert(1, "run")
    return shlex.join(words)


def _revision(result: ResultSet) -> str:
    git = result.metadata.provenance.get("git")
    if not isinstance(git, Mapping) or not git.get("revision"):
        return ""
    dirty = " (with uncommitted changes)" if git.get("dirty") else ""
    return f"{git['revision']}{dirty}"


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file; empty where it is gone."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""
