"""What the rounds of many files add up to, one file in memory at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from specbench.schema.result import BASELINE, METHOD
from specbench.store import ResultSet
from specbench.store.result_set import damaged

_MORE = ("target_forwards", "target_tokens", "draft_forwards", "draft_tokens")
_TIMES = ("draft_ns", "target_ns", "host_ns", "sampling_ns")
_MEANS = ("emitted", "nodes", *_MORE, *_TIMES)
_COLUMNS = ("total_ns", "decode_ns", "target_forwards", "draft_forwards")

_Array = npt.NDArray[np.int64]


@dataclass
class Tally:
    """Sums over the successful measurements of one arm.

    Attributes:
        drafts: Verification rounds (those after each turn's prefill) by the lengths of what they
            proposed and accepted; a length that was not recorded counts as 0.
        sums: Of each field of the verification rounds, over the measurements that record it.
        recorded: How many rounds these have.
        totals: Of each column of the measurements, over those that record all of them.
    """

    drafts: Counter[tuple[int, int]] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    recorded: Counter[str] = field(default_factory=Counter)
    totals: Counter[str] = field(default_factory=Counter)

    @property
    def rounds(self) -> int:
        """Number of verification rounds."""
        return self.drafts.total()

    def mean(self, name: str) -> float:
        """Return the mean of a field over the rounds that record it, 0 where none does."""
        count = self.recorded[name]
        return self.sums[name] / count if count else 0.0

    def lengths(self) -> tuple[_Array, _Array, _Array]:
        """Return the lengths proposed, those accepted, and how many rounds had both."""
        items = sorted(self.drafts.items())
        table = np.array([(*pair, count) for pair, count in items], dtype=np.int64).reshape(-1, 3)
        return table[:, 0], table[:, 1], table[:, 2]

    def add(self, other: Tally) -> None:
        """Take the measurements of another tally in."""
        self.drafts.update(other.drafts)
        self.sums.update(other.sums)
        self.recorded.update(other.recorded)
        self.totals.update(other.totals)


def tallies_of(results: Iterable[ResultSet]) -> dict[str, Tally]:
    """Return the tally of each arm over some files.

    Raises:
        ResultsError: If a file is damaged.
    """
    whole = {BASELINE: Tally(), METHOD: Tally()}
    for result in results:
        for arm, tally in _of_file(result).items():
            whole[arm].add(tally)
    return whole


def _of_file(result: ResultSet) -> dict[str, Tally]:
    table, ledger = result.with_ledger(["arm", "error", *_COLUMNS], more=_MORE)
    sums, rounds = ledger.sums, ledger.sums["verification_rounds"]
    columns = {name: _values(result, table.column(name), name) for name in _COLUMNS}
    whole = np.logical_and.reduce([known for _, known in columns.values()])
    succeeded = np.asarray(pc.is_null(table.column("error")))
    found = {}
    for arm in (BASELINE, METHOD):
        rows = np.asarray(pc.equal(table.column("arm"), arm)) & succeeded
        tally = Tally(ledger.drafts.pairs(np.flatnonzero(rows)))
        for name in _MEANS:
            numbers = sums[f"verification_{name}"]
            known = rows & np.isfinite(numbers)
            tally.sums[name] = int(numbers[known].sum())
            tally.recorded[name] = int(rounds[known].sum())
        for name, (totals, _) in columns.items():
            tally.totals[name] = int(totals[rows & whole].sum())
        found[arm] = tally
    return found


def _values(
    result: ResultSet, column: pa.ChunkedArray, name: str
) -> tuple[_Array, npt.NDArray[np.bool_]]:
    """Return the numbers of a column, 0 where one is not recorded, and which ones are."""
    known = np.asarray(column.is_valid())
    values = np.asarray(pc.fill_null(column, 0)).astype(np.int64, copy=False)
    if values.min(initial=0) < 0:
        raise damaged(result.path, ValueError(f"'{name}' is {values.min()}"))
    return values, known
