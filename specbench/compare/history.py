"""A metric over revisions: what each commit measured, and where it changed.

Files of one clean revision, method and ruler are runs of one thing and are pooled. A tree with
uncommitted changes may be any program, so that only files of one command are pooled then, and a
file without a revision goes by the folder that it lies in. Consecutive revisions are held against
each other as a gate does it, on the samples that both measured; revisions under different rulers
stand in different series and are never held against each other.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from specbench.compare.build import ALPHA, SAME_WITHIN
from specbench.compare.change import Change, change, interval_of
from specbench.compare.comparability import PER_TASK, check_comparable, ruler_of
from specbench.compare.comparison import BETTER, INCONCLUSIVE, SAME, WORSE
from specbench.compare.corpus_change import corpus_change, corpus_value
from specbench.compare.figure import figure
from specbench.compare.gate_rules import IDENTICAL, parse_rules
from specbench.compare.matching import Match, subjects_of
from specbench.compare.registry import METRICS
from specbench.compare.subject import Subject
from specbench.compare.warn import device_warnings, machine_warnings
from specbench.errors import NotComparable, ResultsError, UsageError, did_you_mean
from specbench.stats import Interval, holm
from specbench.store import ResultSet

UNKNOWN = "unknown"
"""Name of a revision of which nothing is known."""

GROUPINGS = ("method", "task")
"""Values of `by`."""

_SHORT = 9


@dataclass(frozen=True)
class Revision:
    """One state of the program.

    Attributes:
        name: Short name: the first characters of the commit, "+" behind it where the tree had
            uncommitted changes; a folder's name, or "unknown", without a commit.
        commit: The commit's full hash; empty where it is not known.
        dirty: Whether the tree had uncommitted changes.
        unix: Commit time where the repository knows it, else when the first sample started.
        committed: Whether `unix` is the commit time.
    """

    name: str
    commit: str
    dirty: bool
    unix: float
    committed: bool


@dataclass(frozen=True)
class Point:
    """A metric at one revision.

    Attributes:
        revision: The revision.
        value: The metric.
        interval: Its 95% interval, None where there is too little for one.
        samples: Samples that it rests on.
        files: Number of result files.
        change: Against the revision before, on the samples of both; None for the first one.
        verdict: "better", "worse", "same" or "inconclusive" against the revision before; for a
            metric without a direction "changed". Empty for the first one.
        note: Why there is no change to tell, else empty.
    """

    revision: Revision
    value: float
    interval: Interval | None
    samples: int
    files: int
    change: Change | None = None
    verdict: str = ""
    note: str = ""


@dataclass(frozen=True)
class Series:
    """The points of one method under one ruler, oldest first.

    Attributes:
        method: The method's id with whatever tells it from its likes.
        task: The task; several are joined by commas.
        setting: Model, law, dtype and device.
        points: The points.
    """

    method: str
    task: str
    setting: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class History:
    """A metric over revisions.

    Attributes:
        metric: Its id.
        title: Its name for people.
        unit: Its unit.
        better: "higher", "lower" or "neither".
        series: One for each method and ruler.
        warnings: One sentence for each thing that was left out.
    """

    metric: str
    title: str
    unit: str
    better: str
    series: tuple[Series, ...]
    warnings: tuple[str, ...]


class _State(NamedTuple):
    """What tells one revision's files from another's."""

    commit: str
    dirty: bool
    folder: str
    command: str


def history(
    results: Sequence[ResultSet],
    metric: str,
    by: str = "task",
    methods: Collection[str] = (),
    commit_times: Mapping[str, float] | None = None,
    root: Path | None = None,
) -> History:
    """Follow a metric over the revisions of some result files.

    Args:
        results: The files, in any order.
        metric: Id of the metric.
        by: "task" for a series for each method and task, "method" to pool the tasks.
        methods: Ids of methods to follow; all where empty.
        commit_times: Seconds since 1970 of each commit that a repository knows.
        root: Folder that names of folders are relative to.

    Raises:
        UsageError: If the metric, a method or `by` does not exist.
        ResultsError: If no file has the metric.
    """
    rule = _rule(metric, results)
    if by not in GROUPINGS:
        raise UsageError(
            f"Cannot draw a history by '{by}'",
            f"histories are by: {', '.join(GROUPINGS)}",
            did_you_mean(by, GROUPINGS),
        )
    kept = _chosen(_without_copies(results), methods)
    times = commit_times or {}
    groups: dict[str, dict[_State, list[ResultSet]]] = {}
    for result in kept:
        states = groups.setdefault(_series_key(result, by), {})
        states.setdefault(_state(result, root), []).append(result)
    warnings: list[str] = []
    series = []
    for states in groups.values():
        ordered = sorted(
            ((_revision(state, files, times), files) for state, files in states.items()),
            key=lambda entry: entry[0].unix,
        )
        found = _series(ordered, metric, warnings)
        if found.points:
            series.append(found)
    if not series:
        raise ResultsError(
            f"No result file has a value of {metric}",
            "the methods or tasks that were measured do not have it",
            "Choose another metric with --metric; 'specbench list metrics' shows them.",
        )
    better = {1: "lower", -1: "higher"}.get(rule.bad, "neither")
    judged = _judged(series, rule.bad)
    return History(metric, rule.title, rule.unit, better, tuple(judged), tuple(warnings))


def _rule(metric: str, results: Sequence[ResultSet]) -> Any:
    """Return what is known of the metric, by way of a rule without a tolerance."""
    if metric == IDENTICAL:
        raise UsageError(
            f"'{IDENTICAL}' has no history",
            "it compares two sets of files",
            "Gate on it with `specbench compare BASE NEW --fail-on identical:0`.",
        )
    known = {name: about for file in results for name, about in file.metadata.metrics.items()}
    return parse_rules([f"{metric}:0"], known)[0]


def _chosen(results: Sequence[ResultSet], methods: Collection[str]) -> list[ResultSet]:
    names = sorted({result.metadata.method.name for result in results})
    for method in methods:
        if method not in names:
            raise UsageError(
                f"No result file has the method '{method}'",
                f"there are: {', '.join(names)}",
                did_you_mean(method, names),
            )
    return [result for result in results if not methods or result.metadata.method.name in methods]


def _without_copies(results: Sequence[ResultSet]) -> list[ResultSet]:
    seen: dict[tuple[str, str, str, float], ResultSet] = {}
    for result in results:
        data = result.metadata
        seen.setdefault((data.job_id, data.method.name, data.task, _started(result)), result)
    return list(seen.values())


def _started(result: ResultSet) -> float:
    started = result.rows["started_unix"]
    return float(started.min()) if len(started) else 0.0


def _series_key(result: ResultSet, by: str) -> str:
    ruler = ruler_of(result)
    own = subjects_of([result])[0]
    parts = {
        name: value
        for name, value in ruler._asdict().items()
        if name not in (*PER_TASK, "fidelity")
    }
    if by == "task":
        parts |= {name: getattr(ruler, name) for name in PER_TASK} | {"id": result.metadata.task}
    return json.dumps([parts, own.parameters], sort_keys=True, default=str)


def _state(result: ResultSet, root: Path | None) -> _State:
    git = result.metadata.provenance.get("git")
    commit = str(git.get("revision") or "") if isinstance(git, Mapping) else ""
    dirty = bool(git.get("dirty")) if isinstance(git, Mapping) else False
    if commit and not dirty:
        return _State(commit, False, "", "")
    folder = result.path.parent
    named = folder.name
    if root is not None and folder.resolve().is_relative_to(root.resolve()):
        named = str(folder.resolve().relative_to(root.resolve()))
    command = json.dumps(result.metadata.provenance.get("command"), default=str)
    return _State(commit, dirty, "" if named == "." else named, command)


def _revision(state: _State, files: Sequence[ResultSet], times: Mapping[str, float]) -> Revision:
    started = min(_started(file) for file in files)
    if not state.commit:
        return Revision(state.folder or UNKNOWN, "", state.dirty, started, False)
    known = times.get(state.commit)
    name = state.commit[:_SHORT] + ("+" if state.dirty else "")
    if state.dirty:  # later than its commit, however the clocks stood
        return Revision(name, state.commit, True, max(started, known or started), False)
    unix = started if known is None else known
    return Revision(name, state.commit, False, unix, known is not None)


def _series(
    ordered: Sequence[tuple[Revision, list[ResultSet]]], metric: str, warnings: list[str]
) -> Series:
    points: list[Point] = []
    before: Subject | None = None
    subject: Subject | None = None
    for revision, files in ordered:
        try:
            check_comparable(files, frozenset())
        except NotComparable as error:
            warnings.append(f"{revision.name}: left out, since {error.why}.")
            continue
        for doubt in (*device_warnings(files), *machine_warnings(files)):
            warnings.append(f"{revision.name}: {doubt}")
        subject = subjects_of(files)[0]
        point = _point(revision, subject, metric)
        if point is None:
            continue
        if before is not None:
            point = _held(point, before, subject, metric)
        points.append(point)
        before = subject
    last = ordered[-1][1]
    data = last[0].metadata
    tasks = dict.fromkeys(file.metadata.task for _, files in ordered for file in files)
    return Series(
        method=subject.described if subject is not None else data.method.name,
        task=", ".join(tasks),
        setting=" · ".join(
            part for part in (data.model, data.law, data.dtype, data.device) if part
        ),
        points=tuple(points),
    )


def _point(revision: Revision, subject: Subject, metric: str) -> Point | None:
    corpus = corpus_value(subject, metric)
    if corpus is not None:
        value, interval, n = corpus
        return Point(revision, value, interval, n, len(subject.files))
    samples = subject.samples
    found = figure(subject, metric, samples) if len(samples) else None
    if found is None:
        return None
    measured = int(np.isfinite(found.cells).sum()) or len(samples)
    return Point(revision, found.value, interval_of(found), measured, len(subject.files))


def _held(point: Point, before: Subject, subject: Subject, metric: str) -> Point:
    """Add the change since the revision before."""
    relative = metric in METRICS and not METRICS[metric].absolute
    try:
        check_comparable([*before.files, *subject.files], frozenset())
    except NotComparable as error:
        return replace(point, note=error.why)
    corpus = corpus_change(before, subject, metric, relative)
    if corpus is not None:
        return replace(point, change=corpus[2])
    samples = before.samples.intersection(subject.samples, sort=None)
    if not len(samples):
        return replace(point, note="no sample in common with the revision before")
    one, other = figure(before, metric, samples), figure(subject, metric, samples)
    if one is None or other is None:
        return replace(point, note="no value on the samples in common")
    moved = change(one, other, relative)
    exact = other.exact and Match(before, subject).repeats_exactly
    if exact and not moved.differing:
        return replace(point, change=moved, verdict=SAME)
    if exact:  # counted: whatever differs, differs
        moved = moved._replace(p_value=0.0, interval=Interval(moved.value, moved.value))
    return replace(point, change=moved)


def _judged(series: Sequence[Series], bad: int) -> list[Series]:
    """Adjust the p-values for all changes of the history and give each its verdict."""
    tested = [
        point.change.p_value
        for one in series
        for point in one.points
        if point.change is not None and point.change.p_value is not None and not point.verdict
    ]
    adjusted = iter(holm(tested))
    judged = []
    for one in series:
        points = []
        for point in one.points:
            moved = point.change
            if moved is not None and not point.verdict:
                p_value = next(adjusted) if moved.p_value is not None else None
                point = replace(point, verdict=_verdict(moved, p_value, bad))
            points.append(point)
        judged.append(replace(one, points=tuple(points)))
    return judged


def _verdict(moved: Change, p_value: float | None, bad: int) -> str:
    if moved.interval is None or p_value is None:
        return INCONCLUSIVE
    floor = moved.floor or 0.0
    if moved.interval.excludes(0.0) and p_value < ALPHA and abs(moved.value) > floor:
        if not bad:
            return "changed"
        return WORSE if bad * moved.value > 0 else BETTER
    band = max(floor, SAME_WITHIN - 1) if moved.relative else floor
    return SAME if -band <= moved.interval.low and moved.interval.high <= band else INCONCLUSIVE
