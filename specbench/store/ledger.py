"""What the verification rounds of each measurement add up to, without one line a round in memory.

A turn's first round is its prefill; the others are verification rounds. Published quantities need
sums over a measurement's verification rounds and how many of them accepted how much of what was
proposed; both are computed here in one pass over the nested column. A field that a file does not
record leaves its sum unknown (NaN), never 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from specbench.store.outlying import outlying

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
    "sampling_ns",
)
"""Fields of a round that every ledger reads."""

_MOST_KINDS = 4096  # beyond, the pairs that occur are numbered instead of all that could

_LIMITS = {
    **dict.fromkeys(("accepted", "proposed", "nodes"), LONGEST_PATH),
    **dict.fromkeys(("draft_ns", "target_ns", "host_ns", "sampling_ns"), LONGEST_ROUND_NS),
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
    "verification_sampling_ns",
    "drafting_rounds",
    "drafting_emitted",
    "prefill_forwards",
    "prefill_emitted",
    "outlying_round",
    "outlying_times",
)
"""Columns of a ledger, one value a measurement.

`turns`: rounds that are a turn's first. `verification_rounds`: the others. `_emitted`, `_proposed`,
`_accepted`, `_nodes`, `_ns`: their sums of the field of that name. `_tested`: draft tokens of the
longest proposed path that were put to the test: the accepted ones and, where not the whole path
was accepted, one more. `drafting_rounds`, `drafting_emitted`: verification rounds that proposed
anything, and what they emitted. `verification_sampling_ns` is 0 where it was not recorded: the
host's time holds it there. `prefill_forwards`, `prefill_emitted`: target and draft forwards
of the turns' first rounds, and the tokens that they emitted. `outlying_round`: the place of a
measurement's slowest verification round, from 0, where it took at least `outlying.TIMES` the median
of the file's rounds of its kind and `outlying.SHARE` of the measurement's time; -1 where none did.
`outlying_times`: how many times that median it took.
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

    Rounds of one kind accepted as many draft tokens as each other, and proposed as many.

    Attributes:
        lengths: Verification rounds of each measurement.
        kinds: Kind of every round, measurement after measurement, in a small integer type.
        accepted: Accepted draft tokens of each kind; `UNKNOWN` where not recorded.
        proposed: Draft tokens on the longest proposed path of each kind, likewise.
    """

    lengths: IntArray
    kinds: NDArray[np.unsignedinteger]
    accepted: IntArray
    proposed: IntArray


@dataclass(frozen=True)
class Drafts:
    """What the verification rounds of several files accepted, by the id of their measurement.

    The measurements of file i have the ids `starts[i]` up to `starts[i + 1]`.
    """

    files: tuple[FileDrafts, ...]

    def count(self, ids: NDArray[np.integer]) -> DraftCounts:
        """Count the verification rounds of some measurements.

        Rounds whose accepted number was not recorded are left out, and those whose proposed
        number was not recorded are left out of `tested` and `kept`.
        """
        counts = [_draft_counts(file, chosen) for file, chosen in self._chosen(ids)]
        names = DraftCounts._fields
        return DraftCounts(*(_total([getattr(part, name) for part in counts]) for name in names))

    def pairs(self, ids: NDArray[np.integer]) -> Counter[tuple[int, int]]:
        """Count the verification rounds of some measurements by what they proposed and accepted.

        A number that was not recorded counts as 0.

        Args:
            ids: As for `count`.
        """
        found = Counter[tuple[int, int]]()
        for file, chosen in self._chosen(ids):
            rounds = _rounds_by_kind(file, chosen)
            kinds = np.flatnonzero(rounds)
            lengths = np.maximum([file.proposed[kinds], file.accepted[kinds]], 0).T.tolist()
            for pair, count in zip(lengths, rounds[kinds].tolist(), strict=True):
                found[tuple(pair)] += count
        return found

    @cached_property
    def starts(self) -> IntArray:
        """The first id of each file, and one past the last file's ids."""
        return np.cumsum([0, *(len(file.lengths) for file in self.files)])

    def _chosen(self, ids: NDArray[np.integer]) -> Iterator[tuple[FileDrafts, NDArray[np.bool_]]]:
        ordered = np.sort(ids)
        edges = np.searchsorted(ordered, self.starts)
        for number in np.flatnonzero(np.diff(edges)):
            file = self.files[number]
            chosen = np.zeros(len(file.lengths), dtype=bool)
            chosen[ordered[edges[number] : edges[number + 1]] - self.starts[number]] = True
            yield file, chosen


def joined(drafts: Sequence[Drafts]) -> Drafts:
    """Return one `Drafts` of several; the ids of each begin where the earlier ones' end."""
    return Drafts(tuple(file for each in drafts for file in each.files))


class Ledger(NamedTuple):
    """The rounds of one file, measurement by measurement.

    Attributes:
        sums: One array for each name of `LEDGER_COLUMNS`, and for each further field that was
            asked for; NaN where a field was not recorded.
        drafts: What each verification round accepted.
    """

    sums: dict[str, SumArray]
    drafts: Drafts


def ledger_of(rounds: pa.ChunkedArray, more: Sequence[str] = ()) -> Ledger:
    """Add up the nested rounds of a file.

    Args:
        rounds: A list of rounds for each measurement, each a struct with `LEDGER_FIELDS` and
            `more` at least; null for a measurement without rounds.
        more: Fields whose sums over verification rounds are wanted beside `LEDGER_COLUMNS`.

    Raises:
        ValueError: If a number of tokens, forwards or nanoseconds is below 0, or a round claims
            more than `LONGEST_PATH` draft tokens or `LONGEST_ROUND_NS`.
    """
    column = rounds.combine_chunks()
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0), dtype=np.int64)
    known = np.asarray(column.is_valid())
    flat = pc.list_flatten(column)
    if flat.null_count:
        raise ValueError("a round is null")
    fields = {name: _Field.of(flat, name) for name in (*LEDGER_FIELDS, *more)}
    first = turn_starts(lengths, fields["turn"].values.astype(np.int64, copy=False))
    accepted, proposed = fields["accepted"], fields["proposed"]
    for name, limit in _LIMITS.items():
        largest = fields[name].values.max(initial=0)
        if largest > limit:
            raise ValueError(f"a round's '{name}' is {largest}")
    undecided = _either(accepted.unknown, proposed.unknown)
    tested = _Field(accepted.values + (accepted.values < proposed.values), undecided)
    totals = _Totals(lengths, known, first)
    sums = {"turns": totals.of_prefills(_Field(first, None))}
    sums["verification_rounds"] = np.where(known, lengths, np.nan) - sums["turns"]
    plain = ("emitted", "proposed", "accepted", "nodes", "draft_ns", "target_ns", "host_ns")
    for name in (*plain, *more):
        sums[f"verification_{name}"] = totals.of_verifications(fields[name])
    sampling = fields["sampling_ns"]._replace(unknown=None)
    sums["verification_sampling_ns"] = totals.of_verifications(sampling)
    sums["verification_tested"] = totals.of_verifications(tested)
    drafting = proposed.values > 0
    sums["drafting_rounds"] = totals.of_verifications(_Field(drafting, proposed.unknown))
    emitted = fields["emitted"]
    unknown = _either(emitted.unknown, proposed.unknown)
    sums["drafting_emitted"] = totals.of_verifications(_Field(emitted.values * drafting, unknown))
    forwards = [totals.of_prefills(fields[f"{model}_forwards"]) for model in ("target", "draft")]
    sums["prefill_forwards"] = forwards[0] + forwards[1]
    sums["prefill_emitted"] = totals.of_prefills(emitted)
    values = {name: field.values for name, field in fields.items()}
    sums["outlying_round"], sums["outlying_times"] = outlying(values, lengths, first)
    counts = np.nan_to_num(sums["verification_rounds"]).astype(np.int64)
    drafts = FileDrafts(counts, *_kinds(accepted.marked(~first), proposed.marked(~first)))
    return Ledger(sums, Drafts((drafts,)))


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

    values: NDArray[np.signedinteger | np.bool_]
    unknown: NDArray[np.bool_] | None

    @classmethod
    def of(cls, flat: pa.StructArray, name: str) -> _Field:
        array = flat.field(name)
        unknown = None
        if array.null_count:
            unknown = np.asarray(array.is_null())
            array = pc.fill_null(array, 0)
        values = np.asarray(array)
        if values.min(initial=0) < 0:
            raise ValueError(f"a round's '{name}' is {values.min()}")
        return cls(values, unknown)

    def marked(self, chosen: NDArray[np.bool_]) -> NDArray[np.signedinteger]:
        """Return the chosen values, `UNKNOWN` where they were not recorded."""
        values = self.values[chosen]
        if self.unknown is not None:
            values[self.unknown[chosen]] = UNKNOWN
        return values  # type: ignore[return-value]


def _kinds(
    accepted: NDArray[np.signedinteger], proposed: NDArray[np.signedinteger]
) -> tuple[NDArray[np.unsignedinteger], IntArray, IntArray]:
    """Number the pairs of two fields; return each round's number and the fields of each."""
    width = int(proposed.max(initial=0)) + 2
    largest = (int(accepted.max(initial=0)) + 2) * width
    if largest <= _MOST_KINDS:
        kinds = ((accepted + 1) * width + (proposed + 1)).astype(np.min_scalar_type(largest))
        number = np.arange(largest)
        return kinds, number // width - 1, number % width - 1
    joined = (accepted.astype(np.int64) + 1) * width + (proposed + 1)
    found, kinds = np.unique(joined, return_inverse=True)
    kinds = kinds.astype(np.min_scalar_type(len(found)))
    return kinds, found // width - 1, found % width - 1


class _Totals:
    """Sums of fields over the rounds of each measurement, those of prefills apart."""

    def __init__(
        self, lengths: IntArray, known: NDArray[np.bool_], first: NDArray[np.bool_]
    ) -> None:
        self._missing = ~known
        self._first = np.flatnonzero(first)
        self._filled = lengths > 0
        self._longest = int(lengths.max(initial=0))
        starts = (np.cumsum(lengths) - lengths)[self._filled]
        self._starts = starts
        self._first_starts = np.searchsorted(self._first, starts)

    def of_prefills(self, field: _Field) -> SumArray:
        """Sum the turns' first rounds; a measurement without rounds, or an unknown one, is NaN."""
        unknown = None if field.unknown is None else self._prefills(field.unknown)
        return self._known(self._prefills(field.values), unknown)

    def of_verifications(self, field: _Field) -> SumArray:
        """Sum the other rounds likewise."""
        total = self._all(field.values) - self._prefills(field.values)
        unknown = None
        if field.unknown is not None:
            unknown = self._all(field.unknown) - self._prefills(field.unknown)
        return self._known(total, unknown)

    def _all(self, values: NDArray[np.generic]) -> IntArray:
        return self._sum(values, self._starts, self._longest)

    def _prefills(self, values: NDArray[np.generic]) -> IntArray:
        return self._sum(values[self._first], self._first_starts, self._longest)

    @staticmethod
    def _sum(values: NDArray[np.generic], starts: IntArray, longest: int) -> IntArray:
        """Sum in 32 bits where that is sure to hold the sums: it is twice as fast."""
        if not len(starts):
            return np.zeros(0, dtype=np.int64)
        wide = values.dtype.itemsize > 4 or int(values.max()) * longest >= 2**31
        kind = np.int64 if wide else np.int32
        return np.add.reduceat(values, starts, dtype=kind).astype(np.int64, copy=False)

    def _known(self, sums: IntArray, unknown: IntArray | None) -> SumArray:
        """Return the sums of the measurements with rounds at their places among all."""
        total = np.zeros(len(self._filled))
        total[self._filled] = sums if unknown is None else np.where(unknown > 0, np.nan, sums)
        total[self._missing] = np.nan
        return total


def _either(
    one: NDArray[np.bool_] | None, other: NDArray[np.bool_] | None
) -> NDArray[np.bool_] | None:
    if one is None or other is None:
        return other if one is None else one
    return one | other


def _rounds_by_kind(file: FileDrafts, chosen: NDArray[np.bool_]) -> IntArray:
    kinds = file.kinds if chosen.all() else file.kinds[np.repeat(chosen, file.lengths)]
    return np.bincount(kinds, minlength=len(file.accepted))


def _draft_counts(file: FileDrafts, chosen: NDArray[np.bool_]) -> DraftCounts:
    """Count the rounds of one file's chosen measurements."""
    rounds = _rounds_by_kind(file, chosen)
    known = (file.accepted != UNKNOWN) & (rounds > 0)
    accepted, proposed, rounds = file.accepted[known], file.proposed[known], rounds[known]
    histogram = _counts(accepted, rounds)
    known = proposed != UNKNOWN
    accepted, proposed, rounds = accepted[known], proposed[known], rounds[known]
    tested = np.minimum(accepted, proposed - 1) + 1
    kept = np.minimum(accepted, proposed)
    return DraftCounts(histogram, _at_least(tested, rounds), _at_least(kept, rounds))


def _counts(values: IntArray, rounds: IntArray) -> IntArray:
    """Return how many rounds have the value 0, 1, 2, ..."""
    counts = np.zeros(int(values.max(initial=-1)) + 1, dtype=np.int64)
    np.add.at(counts, values, rounds)
    return counts


def _at_least(values: IntArray, rounds: IntArray) -> IntArray:
    """Return how many rounds reach 1, 2, 3, ..."""
    return _counts(values, rounds)[::-1].cumsum()[::-1][1:]


def _total(parts: Sequence[IntArray]) -> IntArray:
    """Add counts of different lengths."""
    total = np.zeros(max((len(part) for part in parts), default=0), dtype=np.int64)
    for part in parts:
        total[: len(part)] += part
    return total
