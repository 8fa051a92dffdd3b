"""One arm's measurements: a choice of places in a table that all arms share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from specbench.compare.table import Table, codes_of
from specbench.store import DraftCounts, Drafts

_MOST_KEPT = 100_000  # measurements of an arm beyond which no column of it is held twice


@dataclass(frozen=True)
class Measurements:
    """The successful measurements of one arm.

    A comparison of many files holds their rows once; an arm is a choice of them.

    Attributes:
        table: Rows of result files with the sums over their verification rounds
            (`specbench.store.LEDGER_COLUMNS`).
        drafts: What each verification round accepted, by the ids of `table`.
        places: Places in `table` of the arm's measurements; None means all of them.
    """

    table: Table
    drafts: Drafts
    places: NDArray[np.integer] | None = None

    def __len__(self) -> int:
        """Return the number of measurements."""
        return len(self.table) if self.places is None else len(self.places)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The arm's rows as a DataFrame; text columns may be categorical."""
        return self.table.frame if self.places is None else self.table.frame.iloc[self.places]

    @cached_property
    def _taken(self) -> dict[str, NDArray[Any]]:
        """Columns that were asked for already: most quantities read the same few."""
        return {}

    def raw(self, column: str) -> NDArray[Any]:
        """Return one column: numbers, or the numbers of names."""
        values = self.table.arrays[column]
        if self.places is None:
            return values
        if column in self._taken:
            return self._taken[column]
        taken: NDArray[Any] = values[self.places]
        if len(taken) <= _MOST_KEPT:
            self._taken[column] = taken
        return taken

    def values(self, column: str) -> NDArray[np.float64]:
        """Return one column of numbers; NaN where a value is not known."""
        return np.asarray(self.raw(column), dtype=float)

    def known(self, column: str) -> NDArray[np.float64]:
        """Return the numbers of a column that are known."""
        values = self.values(column)
        return values[np.isfinite(values)]

    def codes(self, *columns: str) -> NDArray[np.int64]:
        """Number the different combinations of some columns from 0, in the order first seen."""
        return codes_of(self.raw(name).astype(np.int64) for name in columns)

    def count(self, *columns: str) -> int:
        """Return the number of different combinations of some columns."""
        return int(self.codes(*columns).max(initial=-1)) + 1

    def text(self, column: str) -> list[str]:
        """Return the different texts of a column, in the order first seen."""
        names = self.table.names.get(column, ())
        return [names[code] for code in pd.unique(self.raw(column)) if code >= 0]

    @cached_property
    def samples(self) -> NDArray[np.int64]:
        """The sample of each measurement, as a number from 0."""
        known = ("sample",) if "sample" in self.table.arrays else ("task", "sample_id")
        return self.codes(*known)

    @cached_property
    def sample_count(self) -> int:
        """Number of different samples."""
        return int(self.samples.max(initial=-1)) + 1

    @cached_property
    def settles_late(self) -> bool:
        """Whether most forwards belong to the turns' first rounds.

        Beam search and particle filters know their first token only when they are nearly done.
        What happens after it says nothing of how fast they decode.
        """
        first = self.values("prefill_forwards")
        known = np.isfinite(first)
        forwards = self.values("target_forwards") + self.values("draft_forwards")
        return bool(2 * first[known].sum() > np.nansum(forwards[known]))

    @cached_property
    def verifies(self) -> bool:
        """Whether tokens per round say what a round of one verification yields.

        They do not where tokens are settled only at the end, nor where nothing is drafted and a
        round ends when tokens are settled, however many forwards that took (beam search).
        """
        if self.settles_late:
            return False
        names = ("target_forwards", "draft_forwards", "prefill_forwards", "verification_rounds")
        target, draft, first, rounds = (self.values(name).sum() for name in names)
        emitted = self.values("verification_emitted").sum()
        alone = self.values("verification_proposed").sum() == 0  # a sum of unknown ones is none
        return not (alone and target + draft - first > rounds and emitted > rounds)

    @cached_property
    def draft_counts(self) -> DraftCounts:
        """The verification rounds, counted by what became of their draft tokens."""
        return self.drafts.count(self.raw(""))

    def take(self, ids: pd.Index) -> Measurements:
        """Return the measurements with these ids."""
        return Measurements(Table.of(self.rows.loc[ids]), self.drafts)

    def total(self, column: str, over: str) -> float | None:
        """Return the sum of one column over the sum of another.

        Measurements of which either is not known are left out of both.

        Returns:
            The ratio, None where nothing is known or the denominator is 0.
        """
        numerator, denominator = self.values(column), self.values(over)
        known = np.isfinite(numerator) & np.isfinite(denominator)
        return ratio(numerator[known].sum(), denominator[known].sum())

    def means(self, column: str) -> NDArray[np.float64]:
        """Return the mean of a column over each sample's measurements, NaN where none is known."""
        values = self.values(column)
        known = np.isfinite(values)
        counts = np.bincount(self.samples[known], minlength=self.sample_count)
        totals = np.bincount(self.samples[known], values[known], minlength=self.sample_count)
        with np.errstate(invalid="ignore"):
            return totals / counts


def ratio(numerator: float, denominator: float) -> float | None:
    """Return a quotient, None without a denominator."""
    return float(numerator) / float(denominator) if denominator > 0 else None
