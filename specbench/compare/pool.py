"""Pool the files of each method and pair its measurements with the baseline's.

Runs of one method with the same parameters, under the same ruler, are one method measured by
several processes. A method's measurement is paired with the baseline's of the same file, sample,
repeat and process: across files nothing is paired, since time drifts between them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from specbench.compare.comparability import PER_TASK, Ruler, ruler_of
from specbench.compare.derive import Measurements
from specbench.compare.quality import Abouts, CorpusRecord
from specbench.schema.result import BASELINE, METHOD, MethodInfo
from specbench.stats import FloatArray
from specbench.store import ResultSet

_PAIR = ["file", "task", "sample_id", "repeat", "process"]


@dataclass(frozen=True)
class Pool:
    """Every measurement of one method and of the baseline beside it.

    Attributes:
        label: The method's id with whatever tells it from the comparison's other rows.
        baseline_label: The same for its baseline arm.
        method: What the method says about itself.
        baseline: What its baseline says about itself; None where no file has one.
        rows: Rows of all its files, both arms, failed ones too, with the columns `file` and
            `seed` (0 where the law is greedy: every seed then draws the same answer).
        rounds: Rounds of all its files; `row` is an index of `rows`.
        files: Number of files.
        metrics: What the metrics of the pictures are, by id.
        corpus: What the files say of their sets of pictures.
    """

    label: str
    baseline_label: str
    method: MethodInfo
    baseline: MethodInfo | None
    rows: pd.DataFrame
    rounds: pd.DataFrame
    files: int
    metrics: Abouts
    corpus: tuple[CorpusRecord, ...]

    def where(self, task: str | None = None, category: str | None = None) -> Pool:
        """Return the pool restricted to a task and one of its categories."""
        keep = np.ones(len(self.rows), dtype=bool)
        if task is not None:
            keep &= (self.rows["task"] == task).to_numpy()
        if category is not None:
            keep &= (self.rows["category"] == category).to_numpy()
        rows = self.rows[keep]
        rounds = self.rounds[self.rounds["row"].isin(rows.index)]
        corpus = tuple(
            record for record in self.corpus if category is None and task in (None, record.task)
        )
        return replace(self, rows=rows, rounds=rounds, corpus=corpus)

    def records(self, arm: str) -> tuple[CorpusRecord, ...]:
        """Return what the files say of one arm's sets of pictures."""
        return tuple(record for record in self.corpus if record.arm == arm)

    def arm(self, name: str) -> Measurements:
        """Return the successful measurements of one arm."""
        rows = self.rows[(self.rows["arm"] == name) & self.rows["error"].isna()]
        return Measurements(rows, self.rounds[self.rounds["row"].isin(rows.index)])

    def failed_samples(self, arm: str | None = None) -> int:
        """Return the number of samples with a failed measurement in one arm, or in either."""
        failed = self.rows[self.rows["error"].notna()]
        if arm is not None:
            failed = failed[failed["arm"] == arm]
        return len(failed[["task", "sample_id"]].drop_duplicates())


class PassTimes(NamedTuple):
    """One column of both arms as arrays of shape (samples, passes), NaN where there is no pair.

    Attributes:
        baseline: The baseline's values.
        method: The method's.
        process: Process of each pass.
        draws: Seed of each pair: passes of different seeds timed different texts.
    """

    baseline: FloatArray
    method: FloatArray
    process: list[int]
    draws: FloatArray


@dataclass(frozen=True)
class Pairs:
    """Measurements of both arms, matched one to one.

    Attributes:
        baseline: The baseline's.
        method: The method's, in the same order.
        unpaired: Successful measurements that found no partner although both arms ran.
    """

    baseline: Measurements
    method: Measurements
    unpaired: int

    def times(self, column: str) -> PassTimes:
        """Return a column of both arms, one pass for each file, process and repeat."""
        rows = self.method.rows
        sample = pd.MultiIndex.from_frame(rows[["task", "sample_id"]]).factorize()[0]
        passes, labels = pd.MultiIndex.from_frame(rows[["file", "process", "repeat"]]).factorize()
        shape = (int(sample.max(initial=-1)) + 1, len(labels))
        arrays = []
        for values in (self.baseline.rows[column], rows[column], rows["seed"]):
            array = np.full(shape, np.nan)
            array[sample, passes] = values.to_numpy(dtype=float)
            arrays.append(array)
        baseline, method, draws = arrays
        processes = pd.MultiIndex.from_tuples([label[:2] for label in labels]).factorize()[0]
        return PassTimes(baseline, method, [int(process) for process in processes], draws)


def pair(pool: Pool) -> Pairs:
    """Match the successful measurements of both arms of a pool."""
    baseline, method = pool.arm(BASELINE), pool.arm(METHOD)
    left = baseline.rows[_PAIR].assign(baseline_id=baseline.rows.index)
    right = method.rows[_PAIR].assign(method_id=method.rows.index)
    matched = left.merge(right, on=_PAIR, how="inner")
    partnerless = pool.rows[pool.rows["error"].isna()].shape[0] - 2 * len(matched)
    failures = int(pool.rows["error"].notna().sum())
    return Pairs(
        baseline.take(pd.Index(matched["baseline_id"])),
        method.take(pd.Index(matched["method_id"])),
        max(0, partnerless - failures),
    )


def pools_of(results: Sequence[ResultSet], differing: Collection[str]) -> list[Pool]:
    """Group files by method, parameters and whatever ruler fields differ, in first-seen order.

    Args:
        results: Comparable files.
        differing: Fields of `Ruler` that differ by allowance: they keep files apart and appear
            in the labels.
    """
    kept_apart = [name for name in Ruler._fields if name in differing and name not in PER_TASK]
    groups: dict[str, list[ResultSet]] = {}
    identities: dict[str, dict[str, Any]] = {}
    for result in results:
        identity = _identity(result)
        apart = {name: getattr(ruler_of(result), name) for name in kept_apart}
        key = json.dumps([identity, apart], sort_keys=True, default=str)
        groups.setdefault(key, []).append(result)
        identities[key] = identity
    rulers = {key: ruler_of(members[0]) for key, members in groups.items()}
    pools = []
    for key, members in groups.items():
        suffix = [_short(getattr(rulers[key], name)) for name in kept_apart]
        siblings = [
            identities[other]
            for other in groups
            if identities[other]["name"] == identities[key]["name"]
        ]
        described = _description(identities[key], siblings)
        name = members[0].metadata.method.name
        baseline = next((m.metadata.baseline for m in members if m.metadata.baseline), None)
        rows, rounds = _joined(members)
        pools.append(
            Pool(
                label=_labelled(name, [*described, *suffix]),
                baseline_label=_labelled(baseline.name, suffix) if baseline else "",
                method=members[0].metadata.method,
                baseline=baseline,
                rows=rows,
                rounds=rounds,
                files=len(members),
                metrics=_metrics(members),
                corpus=tuple(record for member in members for record in _records(member)),
            )
        )
    return pools


def joined_baselines(pools: Sequence[Pool]) -> Measurements:
    """Return the successful baseline measurements of several pools together."""
    arms = [pool.arm(BASELINE) for pool in pools]
    offset = 0
    rows, rounds = [], []
    for number, arm in enumerate(arms):
        size = int(arm.rows.index.max()) + 1 if len(arm.rows) else 0
        moved = arm.rows.set_axis(arm.rows.index + offset)
        rows.append(moved.assign(file=moved["file"] + 1_000_000 * number))
        rounds.append(arm.rounds.assign(row=arm.rounds["row"] + offset))
        offset += size
    return Measurements(pd.concat(rows), pd.concat(rounds, ignore_index=True))


def _joined(members: Sequence[ResultSet]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return rows and rounds of several files with unique row ids.

    The column `file` numbers the files of one task, so that the first files of all tasks, which
    share no samples, count as one pass over all of them.
    """
    offset = 0
    seen: dict[str, int] = {}
    rows, rounds = [], []
    for member in members:
        number = seen.get(member.metadata.task, 0)
        seen[member.metadata.task] = number + 1
        frame = member.rows.set_axis(np.arange(len(member.rows)) + offset)
        frame = frame.drop_duplicates(["arm", *_PAIR[1:]], keep="last")
        rows.append(frame.assign(file=number, seed=_seed(member)))
        rounds.append(member.rounds.assign(row=member.rounds["row"] + offset))
        offset += len(member.rows)
    return pd.concat(rows), pd.concat(rounds, ignore_index=True)


def _metrics(members: Sequence[ResultSet]) -> Abouts:
    """Return what the metrics of some files are, in first-seen order."""
    return {name: about for m in members for name, about in m.metadata.metrics.items()}


def _records(result: ResultSet) -> Iterable[CorpusRecord]:
    for arm, metrics in result.metadata.corpus.items():
        for metric, values in metrics.items():
            yield CorpusRecord(result.metadata.task, arm, metric, values)


def _seed(result: ResultSet) -> int:
    """Return which draw of its law a file holds: its seed, or 0 where the law is greedy."""
    sampling = result.metadata.config.get("sampling")
    if result.metadata.temperature == 0 or not isinstance(sampling, Mapping):
        return 0
    return int(sampling.get("seed") or 0)


def _identity(result: ResultSet) -> dict[str, Any]:
    """Return what makes two files runs of one method: its id, parameters, parts and draft."""
    config = result.metadata.config
    method = config.get("method")
    model = config.get("model")
    identity: dict[str, Any] = {"name": result.metadata.method.name}
    if isinstance(method, Mapping):
        parameters = method.get("parameters")
        identity["parameters"] = parameters if isinstance(parameters, Mapping) else {}
        identity["decoder"] = method.get("decoder")
    if isinstance(model, Mapping) and isinstance(method, Mapping) and _drafts(method):
        identity["draft"] = model.get("draft")
        identity["draft_revision"] = model.get("draft_revision")
    return identity


def _drafts(method: Mapping[str, Any]) -> bool:
    """Return whether a method runs a draft model, so that another one is another method."""
    return "draft" in (method.get("needs") or ())


def _description(identity: Mapping[str, Any], siblings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return "key=value" for whatever tells a method from others of its name.

    A method's own parameters are named where they differ; the parts of its decoder, which follow
    from them, only where nothing else does.
    """
    flat = [dict(_leaves(sibling)) for sibling in siblings]
    own = dict(_leaves(identity))
    keys = [key for key in own if any(other.get(key) != own[key] for other in flat)]
    missing = [key for other in flat for key in other if key not in own]
    chosen = [key for key in keys if not key.startswith("decoder.")] or keys
    if not chosen and missing:
        return ["default"]
    return [f"{key.rpartition('.')[2]}={own[key]}" for key in chosen]


def _leaves(value: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _labelled(name: str, parts: Sequence[str]) -> str:
    return f"{name} ({', '.join(parts)})" if parts else name


def _short(value: str) -> str:
    return value.partition(" (")[0][:24] or "none"
