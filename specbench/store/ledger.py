"""What the verification rounds of each measurement add up to, without one line a round in memory.

A turn's first round is its prefill; the others are verification rounds. Published quantities need
sums over a measurement's verification rounds and how many of them accepted how much of what was
proposed; both are computed here in one pass over the nested column. A field that a file does not
record leaves its sum unknown (NaN), never 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
SumArray = NDArray[np.float64]

UNKNOWN = -1
"""Stands in `Drafts` for a number of tokens that was not recorded."""

LONGEST_PATH = 100_000
"""Draft tokens of one round beyond which a file is not believed."""

LONGEST_ROUND_NS = 10**14
"""Nanoseconds of one round, a little over a day, beyond which a file is not believed."""

LEDGER_FIELDS = (
    "turn",
    "proposed",
    "accepted",
    "emitted",
    "nodes",
    "target_forwards",
    "draft_forwards",
    "draft_ns",
    "target_ns",
    "host_ns",
)
"""Fields of a round that a ledger reads."""

_LIMITS = {
    "accepted": LONGEST_PATH,
    "proposed": LONGEST_PATH,
    "nodes": LONGEST_PATH,
    "draft_ns": LONGEST_ROUND_NS,
    "target_ns": LONGEST_ROUND_NS,
    "host_ns": LONGEST_ROUND_NS,
}

LEDGER_COLUMNS = (
    "turns",
    "verification_rounds",
    "verification_emitted",
    "verification_proposed",
    "verification_accepted",
    "verification_nodes",
    "verification_tested",
    "verification_draft_ns",
    "verification_target_ns",
    "verification_host_ns",
    "drafting_rounds",
    "drafting_emitted",
    "prefill_forwards",
    "prefill_emitted",
)
"""Columns of a ledger, one value a measurement.

`turns`: rounds that are a turn's first. `verification_rounds`: the others. `_emitted`, `_proposed`,
`_accepted`, `_nodes`, `_ns`: their sums of the field of that name. `_tested`: draft tokens of the
longest proposed path that were put to the test: the accepted ones and, where not the whole path
was accepted, one more. `drafting_rounds`, `drafting_emitted`: verification rounds that proposed
anything, and what they emitted. `prefill_forwards`, `prefill_emitted`: target and draft forwards
of the turns' first rounds, and the tokens that they emitted.
"""


class DraftCounts(NamedTuple):
    """Verification rounds, counted by what became of their draft tokens.

    Attributes:
        accepted: Element i: rounds that accepted i draft tokens.
        tested: Element i: rounds that put position i + 1 of the draft to the test, which takes
            that it was proposed and that all earlier positions were accepted.
        kept: Element i: rounds that accepted position i + 1.
    """

    accepted: IntArray
    tested: IntArray
    kept: IntArray


class FileDrafts(NamedTuple):
    """What each verification round of one file accepted and proposed, flat.

    Attributes:
        lengths: Verification rounds of each measurement.
        accepted: Accepted draft tokens of every round, measurement after measurement, in the
            smallest integer type that holds them; `UNKNOWN` where not recorded.
        proposed: Draft tokens on the longest proposed path, likewise.
    """

    lengths: IntArray
    accepted: NDArray[np.signedinteger]
    proposed: NDArray[np.signedinteger]


@dataclass(frozen=True)
class Drafts:
    """What the verification rounds of several files accepted, by the id of their measurement.

    The measurements of file i have the ids `starts[i]` up to `starts[i + 1]`.
    """

    files: tuple[FileDrafts, ...]

    @property
    def size(self) -> int:
        """Number of ids."""
        return sum(len(file.lengths) for file in self.files)

    def count(self, ids: NDArray[np.integer]) -> DraftCounts:
        """Count the verification rounds of some measurements.

        Rounds whose accepted number was not recorded are left out, and those whose proposed
        number was not recorded are left out of `tested` and `kept`.

        Args:
            ids: Ids of measurements, each once, in any order.
        """
        counts = [_draft_counts(file, chosen) for file, chosen in self._chosen(ids)]
        return DraftCounts(
            _total([part.accepted for part in counts]),
            _total([part.tested for part in counts]),
            _total([part.kept for part in counts]),
        )

    def _chosen(self, ids: NDArray[np.integer]) -> Iterator[tuple[FileDrafts, NDArray[np.bool_]]]:
        ordered = np.sort(ids)
        starts = np.cumsum([0, *(len(file.lengths) for file in self.files)])
        edges = np.searchsorted(ordered, starts)
        for number, file in enumerate(self.files):
            own = ordered[edges[number] : edges[number + 1]] - starts[number]
            if len(own):
                chosen = np.zeros(len(file.lengths), dtype=bool)
                chosen[own] = True
                yield file, chosen


def joined(drafts: Sequence[Drafts]) -> Drafts:
    """Return one `Drafts` of several; the ids of each begin where the earlier ones' end."""
    return Drafts(tuple(file for each in drafts for file in each.files))


class Ledger(NamedTuple):
    """The rounds of one file, measurement by measurement.

    Attributes:
        sums: One array for each name of `LEDGER_COLUMNS`; NaN where a field was not recorded.
        drafts: What each verification round accepted.
    """

    sums: dict[str, SumArray]
    drafts: Drafts


def ledger_of(rounds: pa.ChunkedArray) -> Ledger:
    """Add up the nested rounds of a file.

    Args:
        rounds: A list of rounds for each measurement, each a struct with `LEDGER_FIELDS` at
            least; null for a measurement without rounds.

    Raises:
        ValueError: If a number of tokens, forwards or nanoseconds is below 0, or a round claims
            more than `LONGEST_PATH` draft tokens or `LONGEST_ROUND_NS`.
    """
    column = rounds.combine_chunks()
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0), dtype=np.int64)
    known = np.asarray(column.is_valid())
    flat = _struct(pc.list_flatten(column))
    fields = {name: _Field.of(flat, name) for name in LEDGER_FIELDS}
    first = turn_starts(lengths, fields["turn"].values)
    later = ~first
    accepted, proposed = fields["accepted"], fields["proposed"]
    for name, limit in _LIMITS.items():
        largest = fields[name].values.max(initial=0)
        if largest > limit:
            raise ValueError(f"a round's '{name}' is {largest}")
    tested = _Field(
        accepted.values + (accepted.values < proposed.values),
        _either(accepted.unknown, proposed.unknown),
    )
    forwards = _Field(
        fields["target_forwards"].values + fields["draft_forwards"].values,
        _either(fields["target_forwards"].unknown, fields["draft_forwards"].unknown),
    )
    totals = _Totals(lengths, known)
    sums = {"verification_rounds": totals.of(_Field(later.astype(np.int64), None), later)}
    sums["turns"] = totals.of(_Field(first.astype(np.int64), None), first)
    for name in ("emitted", "proposed", "accepted", "nodes", "draft_ns", "target_ns", "host_ns"):
        sums[f"verification_{name}"] = totals.of(fields[name], later)
    sums["verification_tested"] = totals.of(tested, later)
    drafting = (proposed.values > 0).astype(np.int64)
    sums["drafting_rounds"] = totals.of(_Field(drafting, proposed.unknown), later)
    emitted = fields["emitted"]
    unknown = _either(emitted.unknown, proposed.unknown)
    sums["drafting_emitted"] = totals.of(_Field(emitted.values * drafting, unknown), later)
    sums["prefill_forwards"] = totals.of(forwards, first)
    sums["prefill_emitted"] = totals.of(emitted, first)
    counts = np.nan_to_num(sums["verification_rounds"]).astype(np.int64)
    drafts = FileDrafts(counts, accepted.small(later), proposed.small(later))
    return Ledger({name: sums[name] for name in LEDGER_COLUMNS}, Drafts((drafts,)))


def turn_starts(lengths: IntArray, turns: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Mark the first round of each turn.

    Args:
        lengths: Rounds of each measurement.
        turns: Turn of each round, measurement after measurement.
    """
    first = np.ones(len(turns), dtype=bool)
    first[1:] = turns[1:] != turns[:-1]
    starts = np.cumsum(lengths) - lengths
    first[starts[lengths > 0]] = True
    return first


class _Field(NamedTuple):
    """One field of all rounds: 0 where it is unknown."""

    values: IntArray
    unknown: NDArray[np.bool_] | None

    @classmethod
    def of(cls, flat: pa.StructArray, name: str) -> _Field:
        array = flat.field(name)
        unknown = None
        if array.null_count:
            unknown = np.asarray(array.is_null())
            array = pc.fill_null(array, 0)
        values = np.asarray(array).astype(np.int64, copy=False)
        if values.min(initial=0) < 0:
            raise ValueError(f"a round's '{name}' is {values.min()}")
        return cls(values, unknown)

    def small(self, chosen: NDArray[np.bool_]) -> NDArray[np.signedinteger]:
        """Return the chosen values in the smallest signed type, `UNKNOWN` where not recorded."""
        values = self.values[chosen]
        if self.unknown is not None:
            values[self.unknown[chosen]] = UNKNOWN
        return values.astype(np.min_scalar_type(-1 - int(values.max(initial=0))))


class _Totals:
    """Sums of fields over the rounds of each measurement."""

    def __init__(self, lengths: IntArray, known: NDArray[np.bool_]) -> None:
        self._missing = ~known
        self._filled = np.flatnonzero(lengths)
        self._starts = (np.cumsum(lengths) - lengths)[self._filled]
        self._size = len(lengths)

    def of(self, field: _Field, chosen: NDArray[np.bool_]) -> SumArray:
        """Sum the chosen rounds; a measurement without rounds, or with an unknown one, is NaN."""
        total = self._sum(np.where(chosen, field.values, 0))
        if field.unknown is not None:
            total[self._sum((field.unknown & chosen).astype(np.int64)) > 0] = np.nan
        total[self._missing] = np.nan
        return total

    def _sum(self, values: IntArray) -> SumArray:
        total = np.zeros(self._size)
        if len(self._filled):
            total[self._filled] = np.add.reduceat(values, self._starts)
        return total


def _struct(flat: pa.Array) -> pa.StructArray:
    """Return flattened rounds without nulls among them."""
    if flat.null_count:
        raise ValueError("a round is null")
    return flat


def _either(
    one: NDArray[np.bool_] | None, other: NDArray[np.bool_] | None
) -> NDArray[np.bool_] | None:
    if one is None or other is None:
        return other if one is None else one
    return one | other


def _draft_counts(file: FileDrafts, chosen: NDArray[np.bool_]) -> DraftCounts:
    """Count the rounds of one file's chosen measurements."""
    accepted, proposed = file.accepted, file.proposed
    if not chosen.all():
        rounds = np.repeat(chosen, file.lengths)
        accepted, proposed = accepted[rounds], proposed[rounds]
    known = accepted != UNKNOWN
    if not known.all():
        accepted, proposed = accepted[known], proposed[known]
    histogram = np.bincount(accepted)
    known = proposed != UNKNOWN
    if not known.all():
        accepted, proposed = accepted[known], proposed[known]
    tested = np.minimum(accepted, proposed - 1) + 1
    kept = np.minimum(accepted, proposed)
    return DraftCounts(histogram, _at_least(tested), _at_least(kept))


def _at_least(values: NDArray[np.signedinteger]) -> IntArray:
    """Return how many values reach 1, 2, 3, ..."""
    counts = np.bincount(values)
    return np.asarray(counts[::-1].cumsum()[::-1][1:], dtype=np.int64)


def _total(parts: Sequence[IntArray]) -> IntArray:
    """Add counts of different lengths."""
    total = np.zeros(max((len(part) for part in parts), default=0), dtype=np.int64)
    for part in parts:
        total[: len(part)] += part
    return total
