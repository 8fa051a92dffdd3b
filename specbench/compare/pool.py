"""Pool the files of each method and pair its measurements with the baseline's.

Runs of one method with the same parameters, under the same ruler, are one method measured by
several processes. A method's measurement is paired with the baseline's of the same file, sample,
repeat and process: across files nothing is paired, since time drifts between them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from specbench.compare.comparability import PER_TASK, PROMPTS, Ruler, ruler_of
from specbench.compare.load import Loaded, load
from specbench.compare.measurements import Measurements
from specbench.compare.quality import Abouts, CorpusRecord
from specbench.compare.table import Table
from specbench.schema.result import BASELINE, METHOD, MethodInfo
from specbench.stats import FloatArray
from specbench.store import Drafts, ResultSet

_NO_KEY = 2**60
_MOST_FILES = 1_000_000

MOST_PASSES = 30
"""Passes that a noise floor is taken from, where there are more."""


@dataclass(frozen=True)
class Pool:
    """Every measurement of one method and of the baseline beside it.

    Attributes:
        label: The method's id with whatever tells it from the comparison's other rows.
        baseline_label: The same for its baseline arm.
        method: What the method says about itself.
        baseline: What its baseline says about itself; None where no file has one.
        table: The measurements of all files of the comparison with the sums over their rounds and
            the columns `file` and `seed` (0 where the law is greedy: every seed then draws the
            same answer).
        drafts: What each verification round accepted, by the ids of `table`.
        places: Places in `table` of the pool's rows, both arms, failed ones too.
        files: Number of files.
        metrics: What the metrics of the pictures are, by id.
        corpus: What the files say of their sets of pictures.
        paths: Where its files were read from.
    """

    label: str
    baseline_label: str
    method: MethodInfo
    baseline: MethodInfo | None
    table: Table
    drafts: Drafts
    places: NDArray[np.integer]
    files: int
    metrics: Abouts
    corpus: tuple[CorpusRecord, ...]
    paths: tuple[Path, ...] = ()

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The pool's rows as a DataFrame; text columns are categorical."""
        return self.table.frame.iloc[self.places]

    def __len__(self) -> int:
        """Return the number of measurements, failed ones included."""
        return len(self.places)

    def names(self, column: str) -> list[str]:
        """Return the different texts of a column, in the order in which they were first seen."""
        return Measurements(self.table, self.drafts, self.places).text(column)

    def where(self, task: str | None = None, category: str | None = None) -> Pool:
        """Return the pool restricted to a task and one of its categories."""
        keep = np.ones(len(self.places), dtype=bool)
        for column, name in (("task", task), ("category", category)):
            if name is not None:
                keep &= self._codes(column) == self.table.code(column, name)
        corpus = tuple(
            record for record in self.corpus if category is None and task in (None, record.task)
        )
        return replace(self, places=self.places[keep], corpus=corpus)

    def records(self, arm: str) -> tuple[CorpusRecord, ...]:
        """Return what the files say of one arm's sets of pictures."""
        return tuple(record for record in self.corpus if record.arm == arm)

    def arm(self, name: str) -> Measurements:
        """Return the successful measurements of one arm."""
        chosen = (self._codes("arm") == self.table.code("arm", name)) & ~self._failed
        return Measurements(self.table, self.drafts, self.places[chosen])

    def failed_samples(self, arm: str | None = None) -> int:
        """Return the number of samples with a failed measurement in one arm, or in either."""
        failed = self._failed
        if arm is not None:
            failed = failed & (self._codes("arm") == self.table.code("arm", arm))
        return Measurements(self.table, self.drafts, self.places[failed]).sample_count

    @property
    def errors(self) -> list[str]:
        """What stopped the failed measurements, each once; not what followed from another arm."""
        failed = Measurements(self.table, self.drafts, self.places[self._failed])
        found = failed.text("error")
        return [error for error in found if not error.startswith("no history: ")] or found

    @property
    def failures(self) -> int:
        """Number of failed measurements in both arms."""
        return int(self._failed.sum())

    @cached_property
    def _failed(self) -> NDArray[np.bool_]:
        return self._codes("error") >= 0

    def _codes(self, column: str) -> NDArray[np.integer]:
        return np.asarray(self.table.arrays[column][self.places])


class PassTimes(NamedTuple):
    """One column of both arms as arrays of shape (samples, passes), NaN where there is no pair.

    Attributes:
        baseline: The baseline's values.
        method: The method's.
        process: Process of each pass.
        draws: Seed of each pair: passes of different seeds timed different texts.
        files: File of each pair: between files, hours may lie.
    """

    baseline: FloatArray
    method: FloatArray
    process: list[int]
    draws: FloatArray
    files: FloatArray

    def some(self) -> PassTimes:
        """Return whole files of the passes, at most about `MOST_PASSES` of them.

        A noise floor sets every pass against every other one; thirty passes have hundreds of
        pairs, which is as much as it can use.
        """
        if len(self.process) <= MOST_PASSES:
            return self
        file = np.nanmax(np.where(np.isfinite(self.files), self.files, -1), axis=0)
        names, sizes = np.unique(file, return_counts=True)
        wanted = max(2, MOST_PASSES // max(1, int(sizes.max())))
        chosen = names[np.unique(np.linspace(0, len(names) - 1, wanted).astype(int))]
        kept = np.flatnonzero(np.isin(file, chosen))
        process = [self.process[place] for place in kept]
        return PassTimes(
            self.baseline[:, kept],
            self.method[:, kept],
            process,
            self.draws[:, kept],
            self.files[:, kept],
        )


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

    @cached_property
    def _cells(self) -> tuple[NDArray[np.int64], list[int]]:
        """Number of the pass of each pair, and the process of each pass."""
        passes = self.method.codes("pass")
        processes = self.method.codes("process_key")
        first = np.unique(passes, return_index=True)[1]
        return passes, processes[first].tolist()

    def times(self, column: str) -> PassTimes:
        """Return a column of both arms, one pass for each file, process and repeat."""
        return self.passes(self.baseline.values(column), self.method.values(column))

    def passes(self, baseline: NDArray[np.float64], method: NDArray[np.float64]) -> PassTimes:
        """Return one value of each pair in both arms as arrays of samples and passes."""
        passes, processes = self._cells
        samples = self.method.samples
        shape = (self.method.sample_count, len(processes))
        arrays = []
        for values in (baseline, method, self.method.values("seed"), self.method.values("file")):
            array = np.full(shape, np.nan)
            array[samples, passes] = values
            arrays.append(array)
        return PassTimes(arrays[0], arrays[1], processes, arrays[2], arrays[3])


def pair(pool: Pool) -> Pairs:
    """Match the successful measurements of both arms of a pool."""
    baseline, method = pool.arm(BASELINE), pool.arm(METHOD)
    assert baseline.places is not None and method.places is not None
    plain, fast = baseline.raw("key"), method.raw("key")
    lowest = int(min(plain.min(initial=_NO_KEY), fast.min(initial=_NO_KEY)))
    highest = int(max(plain.max(initial=lowest), fast.max(initial=lowest)))
    partner = np.full(highest - lowest + 1, -1)
    partner[fast - lowest] = method.places
    found = partner[plain - lowest]
    matched = found >= 0
    partnerless = len(baseline) + len(method) - 2 * int(matched.sum())
    return Pairs(
        Measurements(pool.table, pool.drafts, baseline.places[matched]),
        Measurements(pool.table, pool.drafts, found[matched]),
        max(0, partnerless - pool.failures),
    )


def pools_of(results: Sequence[ResultSet], differing: Collection[str]) -> list[Pool]:
    """Group files by method, parameters and whatever ruler fields differ, in first-seen order.

    Args:
        results: Comparable files.
        differing: Names of `ALLOWABLE` that differ by allowance: fields of `Ruler` keep files
            apart and appear in the labels, and so do the files' names where prompts differ.
    """
    kept_apart = [name for name in Ruler._fields if name in differing and name not in PER_TASK]

    def apart_of(result: ResultSet) -> list[str]:
        ruler = ruler_of(result)
        file = [result.path.stem] if PROMPTS in differing else []
        return [*(getattr(ruler, name) for name in kept_apart), *file]

    groups: dict[str, list[ResultSet]] = {}
    identities: dict[str, dict[str, Any]] = {}
    for result in results:
        identity = identity_of(result)
        apart = apart_of(result)
        key = json.dumps([identity, apart], sort_keys=True, default=str)
        groups.setdefault(key, []).append(result)
        identities[key] = identity
    loaded = _loaded(list(groups.values()))
    of_pool = loaded.table.arrays["pool"]
    pools = []
    for number, (key, members) in enumerate(groups.items()):
        suffix = [_short(each) for each in apart_of(members[0])]
        siblings = [
            identities[other]
            for other in groups
            if identities[other]["name"] == identities[key]["name"]
        ]
        described = _description(identities[key], siblings)
        name = members[0].metadata.method.name
        baseline = next((m.metadata.baseline for m in members if m.metadata.baseline), None)
        first, end = np.searchsorted(of_pool, [number, number + 1])
        pools.append(
            Pool(
                label=_labelled(name, [*described, *suffix]),
                baseline_label=_labelled(baseline.name, suffix) if baseline else "",
                method=members[0].metadata.method,
                baseline=baseline,
                table=loaded.table,
                drafts=loaded.drafts,
                places=np.arange(first, end),
                files=len(members),
                metrics=_metrics(members),
                corpus=tuple(record for member in members for record in _records(member)),
                paths=tuple(member.path for member in members),
            )
        )
    return pools


def joined_baselines(pools: Sequence[Pool]) -> Measurements:
    """Return the successful baseline measurements of several pools together."""
    arms = [pool.arm(BASELINE).places for pool in pools]
    places = np.concatenate([places for places in arms if places is not None])
    return Measurements(pools[0].table, pools[0].drafts, places)


def _loaded(groups: Sequence[Sequence[ResultSet]]) -> Loaded:
    """Return the measurements of all files, one pool's after another's.

    Inside of a pool the column `file` numbers the files of one task, so that the first files of
    all tasks, which share no samples, count as one pass over all of them.
    """
    marks = []
    for pool, members in enumerate(groups):
        seen: dict[str, int] = {}
        for member in members:
            number = seen.get(member.metadata.task, 0)
            seen[member.metadata.task] = number + 1
            marks.append(
                {"pool": pool, "file": pool * _MOST_FILES + number, "seed": seed_of(member)}
            )
    return load([member for members in groups for member in members], marks)


def _metrics(members: Sequence[ResultSet]) -> Abouts:
    """Return what the metrics of some files are, in first-seen order."""
    return {name: about for m in members for name, about in m.metadata.metrics.items()}


def _records(result: ResultSet) -> Iterable[CorpusRecord]:
    for arm, metrics in result.metadata.corpus.items():
        for metric, values in metrics.items():
            yield CorpusRecord(result.metadata.task, arm, metric, values)


def seed_of(result: ResultSet) -> int:
    """Return which draw of its law a file holds: its seed, or 0 where the law is greedy."""
    return 0 if result.metadata.temperature == 0 else result.metadata.asked.seed


def identity_of(result: ResultSet) -> dict[str, Any]:
    """Return what makes two files runs of one method: its id, parameters, parts, draft, head."""
    asked = result.metadata.asked
    identity: dict[str, Any] = {"name": result.metadata.method.name}
    identity |= {"parameters": asked.parameters, "decoder": asked.decoder}
    if "draft" in asked.needs:  # another draft is another method
        identity |= {"draft": asked.draft, "draft_revision": asked.draft_revision}
    if "parallel_draft" in asked.needs:
        identity["parallel_draft"] = asked.parallel_draft
    if "head" in asked.needs:
        identity |= {"head": asked.head, "head_revision": asked.head_revision}
    return identity


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
