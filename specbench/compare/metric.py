"""What a derived metric is: how it is formed, what it means, and how it reads.

A comparison needs a metric's value; a gate and a history need to know how the value would move
with other samples, repeats or processes. Nearly every metric is a product of totals: they give its
value, and the share of one cell (one sample in one pass) in each total is the cell's influence on
the value's logarithm. Where totals do not say it, a metric names a function for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from specbench.compare.measurements import Measurements, ratio
from specbench.compare.pool import Pairs
from specbench.schema.result import BASELINE, METHOD

if TYPE_CHECKING:
    from specbench.compare.cells import Cells, Figure

COUNT = "count"
"""Stands for the number of measurements in the place of a column."""

ARM = "arm"
"""Place of a metric that stands in `ComparisonRow.quantities`, and so in every output."""

ROW = "row"
"""Place of a metric that is a field of `ComparisonRow`: `specbench.compare.build` fills it."""

NOWHERE = ""
"""Place of a metric that only a gate or an explanation has."""


class Total(NamedTuple):
    """One factor of a metric.

    Attributes:
        columns: Columns of the measurements that are added up, or `COUNT`.
        power: +1 for a factor, -1 for a divisor.
        arm: Whose measurements.
        less: Columns that are taken off.
    """

    columns: tuple[str, ...]
    power: int
    arm: str = METHOD
    less: tuple[str, ...] = ()

    def of(self, column: Callable[[str], Any]) -> Any:
        """Return the factor of each measurement from its columns."""
        return sum(map(column, self.columns)) - sum(map(column, self.less))


class Explained(NamedTuple):
    """How a published definition is told apart from the others of its name.

    Attributes:
        topic: The name that stands for many numbers: "mal" or "speedup".
        place: Its place among the definitions of the topic.
        title: What tables call it.
        formula: How it is computed, in words.
        users: Who publishes it, one sentence.
    """

    topic: str
    place: int
    title: str
    formula: str
    users: str


def quotient(over: str, under: str) -> tuple[Total, ...]:
    """Return the totals of one sum of the method's arm over another."""
    return (Total((over,), 1), Total((under,), -1))


def gain(column: str) -> tuple[Total, ...]:
    """Return the totals of a baseline's sum over the method's, such as those of a speedup."""
    return (Total((column,), 1, BASELINE), Total((column,), -1))


def always(_: Measurements) -> bool:
    """Return that every arm has a value."""
    return True


def verifies(measured: Measurements) -> bool:
    """Return whether tokens per round say what a round of one verification yields."""
    return measured.verifies


def settles_early(measured: Measurements) -> bool:
    """Return whether what happens after the first token says how fast an arm decodes."""
    return not measured.settles_late


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One derived metric; everything that prints, gates or lists it follows from this entry.

    Attributes:
        id: Its key in JSON, CSV, gates and histories.
        title: Its name for people.
        words: What it is. The first sentence is the legend of its column.
        unit: Unit of its value.
        better: "higher", "lower" or "neither".
        place: `ARM`, `ROW` or `NOWHERE`.
        totals: Its factors, where it is a product of totals.
        scale: Unit conversion of the totals.
        of_arm: The value of one arm, where totals do not say it.
        of_pairs: The value of a method beside its baseline, likewise.
        moves: Value and influence of each cell, where totals do not say them; None where a metric
            has several numbers.
        defined: Whether an arm has a value at all.
        paired: Whether it needs a baseline although no total of it says so.
        timing: Whether a clock measured it, so that it has a noise floor.
        raw: Whether it belongs to one machine and is no ratio of two arms on it.
        graded: Whether a scorer gave it, so that it need not repeat exactly.
        absolute: Whether its changes are differences and no shares of its value.
        signed: Whether it may lie on both sides of 0.
        gate_on: For a metric with several numbers, the one that a gate reads in its place.
        gate_title: Its name where a gate reads one share of it.
        charted: Whether it is a point of the charts for GitHub Actions.
        column: Title of its column; empty for none.
        rank: The higher, the earlier a terminal leaves its column out where the width is short;
            None where only the page has it.
        form: How a number of it reads.
        legend: What the column means, where the first sentence of `words` is not enough.
        explained: How `compare --explain` tells it from others of its name.
    """

    id: str
    title: str = ""
    words: str = ""
    unit: str = ""
    better: str = "neither"
    place: str = ARM
    totals: tuple[Total, ...] = ()
    scale: float = 1.0
    of_arm: Callable[[Measurements], Any] | None = None
    of_pairs: Callable[[Any], Any] | None = None
    moves: Callable[[Cells], Figure | None] | None = None
    defined: Callable[[Measurements], bool] = always
    paired: bool = False
    timing: bool = False
    raw: bool = False
    graded: bool = False
    absolute: bool = False
    signed: bool = False
    gate_on: str = ""
    gate_title: str = ""
    charted: bool = False
    column: str = ""
    rank: int | None = None
    form: str = "{:.2f}"
    legend: str = ""
    explained: Explained | None = None

    @property
    def counted(self) -> bool:
        """Whether it is counted in tokens and forwards, which repeat exactly."""
        return not (self.timing or self.raw or self.graded)

    @property
    def needs_baseline(self) -> bool:
        """Whether it sets a method against the baseline beside it."""
        beside = any(total.arm == BASELINE for total in self.totals)
        return self.paired or beside or self.of_pairs is not None

    @property
    def gated(self) -> bool:
        """Whether it is one number of which it is known how it moves."""
        return bool(self.totals or self.moves)

    @property
    def meaning(self) -> str:
        """The legend of its column, without a capital or an end."""
        first = self.words.partition(". ")[0].removesuffix(".")
        return self.legend or first[:1].lower() + first[1:]

    def entry(self) -> dict[str, str]:
        """Return the metric as the catalogue's entries are."""
        known = {"name": self.id, "title": self.title, "unit": self.unit, "better": self.better}
        return {**known, "definition": self.words}

    def value(self, measured: Measurements, pairs: Pairs | None = None) -> Any:
        """Return its value, None where it has none.

        Args:
            measured: The arm's measurements.
            pairs: The same with the baseline's, where there is one.
        """
        if not self.defined(measured):
            return None
        if self.of_arm is not None:
            return self.of_arm(measured)
        if pairs is None and self.needs_baseline:
            return None
        if self.of_pairs is not None:
            return self.of_pairs(pairs)
        return self._product(measured, pairs)

    def _product(self, measured: Measurements, pairs: Pairs | None) -> float | None:
        """Return the product of the totals over the measurements that have all of them."""
        factors = []
        for total in self.totals:
            arm = pairs.baseline if pairs is not None and total.arm == BASELINE else measured
            factors.append(total.of(partial(_column, arm)))
        known = np.logical_and.reduce([np.isfinite(factor) for factor in factors])
        above = below = 1.0
        for total, factor in zip(self.totals, factors, strict=True):
            if total.power > 0:
                above *= float(factor[known].sum())
            else:
                below *= float(factor[known].sum())
        found = ratio(above, below)
        return None if found is None else found * self.scale


def _column(arm: Measurements, name: str) -> np.ndarray:
    return np.ones(len(arm)) if name == COUNT else arm.values(name)
