"""Paired sources to result files: names, law, metadata, and writing them all at the end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import specbench
from specbench.errors import UsageError
from specbench.importing.formats import AUTO, read_source
from specbench.importing.pairing import paired
from specbench.importing.records import PLAIN_METHOD, Published
from specbench.importing.rows import rows_of
from specbench.schema.result import BASELINE, METHOD, FileMetadata, MethodInfo
from specbench.store import check_writable, job_id, next_free_path, result_stem, write_parquet

UNKNOWN = "unknown"
"""What stands where a source does not say and the user has not said."""

_TASKS = {
    frozenset(map(str, range(81, 161))): "mt_bench",  # lm-sys/FastChat, question.jsonl
    frozenset(map(str, range(81, 561))): "spec_bench",  # hemingkx/Spec-Bench, question.jsonl
}
"""Tasks by their question ids."""


@dataclass(frozen=True)
class Stated:
    """What the user says of the files; None leaves it to them.

    Attributes:
        model: The target model.
        task: The task.
        method: The method, where there is one method file.
        device: The device.
        dtype: The compute dtype.
        temperature: The target law's temperature.
    """

    model: str | None = None
    task: str | None = None
    method: str | None = None
    device: str | None = None
    dtype: str | None = None
    temperature: float | None = None


@dataclass(frozen=True)
class Imported:
    """One result file, made or to be made.

    Attributes:
        stem: Its name without suffix.
        rows: Its rows.
        metadata: Everything beside the rows.
        source: The method's file.
        baseline: The baseline's file, or None.
        same_answers: Questions whose text is the baseline's, and questions with both texts.
        path: Where it was written, or None before.
    """

    stem: str
    rows: Sequence[Mapping[str, Any]]
    metadata: FileMetadata
    source: Published
    baseline: Published | None
    same_answers: tuple[int, int]
    path: Path | None = None


def plan(
    files: Sequence[Path],
    stated: Stated = Stated(),
    format_name: str = AUTO,
    baseline: Path | None = None,
    skip_bad: bool = False,
    command: Sequence[str] = (),
) -> list[Imported]:
    """Read published measurements and work out their result files, without writing any.

    A file of plain decoding is recognised by its one token a step, or named; every other file
    becomes a result file of its own with the baseline's rows beside it.

    Args:
        files: The published files.
        stated: What the user says of them.
        format_name: Their format, or "auto".
        baseline: The file of plain decoding, if it is to be named; need not be among `files`.
        skip_bad: Whether lines that cannot be read are left out and counted.
        command: The command line, for the provenance.

    Raises:
        UsageError: If the files and what is stated do not go together.
        ResultsError: If a file cannot be read.
        NotComparable: If files cannot be paired.
    """
    paths = {path.resolve(): path for path in (*files, *((baseline,) if baseline else ()))}
    sources = [read_source(path, format_name, skip_bad) for path in paths.values()]
    digests: dict[str, Published] = {}
    for source in sources:
        same = digests.setdefault(source.sha256, source)
        if same is not source:
            raise UsageError(
                f"'{source.path}' and '{same.path}' hold the same bytes",
                "one measurement would count twice",
                "Give one of them.",
            )
    if stated.temperature is not None:
        law = {"temperature": float(stated.temperature)}
        sources = [replace(s, label=replace(s.label, sampling=law)) for s in sources]
    plain, methods = paired(sources, baseline)
    if stated.method is not None and len(methods) > 1:
        raise UsageError(
            "--method names one method",
            f"there are {len(methods)} method files",
            "Import them one by one, each with the baseline.",
        )
    return [_planned(source, plain, stated, command) for source in methods]


def write(planned: Sequence[Imported], results_dir: Path) -> list[Imported]:
    """Write planned result files under names that are free.

    Raises:
        ResultsError: If the folder cannot be written.
    """
    check_writable(results_dir)
    written = []
    for each in planned:
        path = next_free_path(results_dir, each.stem)
        write_parquet(path, each.rows, each.metadata)
        written.append(replace(each, path=path))
    return written


def _planned(
    source: Published, baseline: Published | None, stated: Stated, command: Sequence[str]
) -> Imported:
    both = (baseline, source) if baseline else (source,)
    unknown = _joined(baseline.unknown if baseline else None, source.unknown)
    odd = _joined(baseline.odd if baseline else None, source.odd)
    odd += _of_pair(baseline, source)
    method = stated.method or (PLAIN_METHOD if source.plain else source.label.method)
    if method is None:
        method = _stem(source.path)
        unknown.append("The method is not recorded: the file's name stands for it.")
    if baseline is None and not source.plain:
        unknown.append("There is no baseline: no speedup can be formed.")
    model = stated.model or _agreed("model", both)
    dtype = stated.dtype or _agreed("dtype", both)
    ids = frozenset(answer.sample_id for answer in source.answers)
    task = stated.task or _TASKS.get(ids, UNKNOWN)
    device = stated.device or UNKNOWN
    law, law_hash, temperature = _law(both)
    named = {"model": model, "dtype": dtype, "task": task, "device": device}
    missing = [name for name, value in named.items() if value == UNKNOWN]
    if missing:
        options = ", ".join(f"--{name}" for name in missing)
        unknown.append(f"Not recorded and not stated: {', '.join(missing)} (see {options}).")
    if law == UNKNOWN:
        unknown.append("The target law is not recorded: state it with --temperature.")
    elif temperature:
        unknown.append("Of the target law only what is named is recorded.")
    if baseline is not None:
        unknown.append("Whether the arms' tokens are the same is not recorded, only their texts.")
    info = _plain(source)
    if method != PLAIN_METHOD:
        info = MethodInfo(method, f"{method}, imported from {_name(source.path)}", UNKNOWN)
    rows = [
        *(rows_of(baseline, BASELINE, PLAIN_METHOD, model, task) if baseline else ()),
        *rows_of(source, METHOD, method, model, task),
    ]
    digests = [each.sha256 for each in both]
    job = job_id(
        {"import": digests, "method": method, "model": model, "task": task, "law": law_hash}
    )
    about: dict[str, Any] = {
        "format": source.format,
        "files": [{"name": _name(each.path), "sha256": each.sha256} for each in both],
        "unknown": list(dict.fromkeys(unknown)),
        "odd": odd,
        **({"totals": dict(source.totals)} if source.totals else {}),
    }
    metadata = FileMetadata(
        job_id=job,
        method=info,
        baseline=_plain(baseline) if baseline else None,
        model=model,
        task=task,
        task_version=0,
        task_digest=_digest(task, both),
        law=law,
        law_hash=law_hash,
        scorer={},
        dtype=dtype,
        device=device,
        engine=f"imported: {source.format}",
        temperature=temperature,
        timing={
            "repeats": max(answer.repeat for answer in source.answers) + 1,
            **({"load": source.load} if source.load else {}),
        },
        config={
            # What keeps two files of one method apart: they share a baseline's measurements, and
            # pooled, its copies would pass for a repeat without any noise.
            "method": {"name": method, "parameters": {"source": source.sha256[:6]}},
            "model": {"name": model, "modality": "text"},
        },
        provenance={"specbench": specbench.__version__, "command": list(command)},
        source=about,
    )
    stem = result_stem(method, model, task, job)
    return Imported(stem, rows, metadata, source, baseline, _same_answers(baseline, source))


def _plain(source: Published) -> MethodInfo:
    return MethodInfo(PLAIN_METHOD, f"Plain decoding, imported from {_name(source.path)}", "exact")


def _joined(theirs: Sequence[str] | None, own: Sequence[str]) -> list[str]:
    """Return the sentences of both files; those of one alone say whose they are."""
    if theirs is None:
        return list(own)
    out = [text if text in theirs else f"Method: {text}" for text in own]
    return out + [f"Baseline: {text}" for text in theirs if text not in own]


def _of_pair(baseline: Published | None, source: Published) -> list[str]:
    """Return what is odd about two files together."""
    if baseline is None:
        return []
    out = ["The arms were measured one after the other: drift is part of the speedup."]
    credits = [
        {bool(turn.prefill_tokens) for turn in turns if turn.rounds is not None}
        for turns in (
            [turn for answer in each.answers for turn in answer.turns]
            for each in (baseline, source)
        )
    ]
    if all(credits) and credits[0] != credits[1]:
        out.append(
            "The baseline's steps are counted by another rule than the method's: one of them "
            "counts the first token among its steps."
        )
    if baseline.format != source.format:
        out.append(f"The baseline is in the format {baseline.format}.")
    return out


def _agreed(name: str, sources: Sequence[Published]) -> str:
    """Return what the files' labels say with one voice, or "unknown".

    Raises:
        UsageError: If they contradict each other.
    """
    said = {value: each for each in sources if (value := getattr(each.label, name))}
    if len(said) > 1:
        raise UsageError(
            f"The files name different {name}s",
            ", ".join(f"{value} in '{source.path.name}'" for value, source in said.items()),
            f"State the right one with --{name}.",
        )
    return next(iter(said), UNKNOWN)


def _law(sources: Sequence[Published]) -> tuple[str, str, float | None]:
    """Return description, hash and temperature of the law; an unknown one equals no other."""
    laws = [source.label.sampling for source in sources]
    if not all(laws):
        digest = hashlib.sha256("".join(source.sha256 for source in sources).encode())
        return UNKNOWN, f"{UNKNOWN}-{digest.hexdigest()[:12]}", None
    text = ", ".join(f"{key} {value:g}" for key, value in sorted(laws[0].items()))
    digest = hashlib.sha256(f"imported {json.dumps(dict(laws[0]), sort_keys=True)}".encode())
    return text, f"imported-{digest.hexdigest()[:12]}", laws[0].get("temperature")


def _digest(task: str, sources: Sequence[Published]) -> str:
    """Return the digest of the questions' ids: the texts of the prompts are not in the files."""
    ids = sorted({answer.sample_id for source in sources for answer in source.answers})
    return hashlib.sha256(json.dumps(["imported", task, ids]).encode()).hexdigest()


def _name(path: Path) -> str:
    """Return a file's name as text that can be written."""
    return path.name.encode("utf-8", "replace").decode()


def _stem(path: Path) -> str:
    name = _name(path)
    for suffix in (".gz", ".jsonl", ".json"):
        name = name.removesuffix(suffix)
    return name


def _same_answers(baseline: Published | None, source: Published) -> tuple[int, int]:
    if baseline is None:
        return 0, 0
    texts = {(a.sample_id, a.repeat): [t.text for t in a.turns] for a in baseline.answers}
    same = both = 0
    for answer in source.answers:
        theirs = texts.get((answer.sample_id, answer.repeat))
        own = [turn.text for turn in answer.turns]
        if own and theirs and None not in (*own, *theirs):
            both += 1
            same += own == theirs
    return same, both
