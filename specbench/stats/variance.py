"""How far a ratio of totals would move with other samples and other passes.

A run is a table: samples are its rows; passes (repeats, or processes where there are several) its
columns. The log ratio of totals moves with both, and each cell has noise of its own. The three
are told apart by an analysis of variance of the ratio's influence values, so that the noise of
the cells, which rows and columns both show, is counted once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from specbench.stats.estimate import FloatArray
from specbench.stats.student import student_quantile, two_sided


class Components(NamedTuple):
    """Variance of a log ratio of totals by its sources.

    Attributes:
        samples: Variance over other samples, the cells' noise included.
        passes: Variance over other passes, the cells' noise included; 0 with one pass.
        cells: Variance by the cells' own noise.
        sample_count: Rows of the table.
        pass_count: Columns of the table: processes, or repeats where there is one process.
    """

    samples: float
    passes: float
    cells: float
    sample_count: int
    pass_count: int

    @property
    def drift(self) -> float:
        """Variance that moves a whole pass, beyond what the cells' noise explains."""
        return max(0.0, self.passes - self.cells)

    @property
    def total(self) -> float:
        """Variance of the log ratio: samples, drift, and the cells' noise once."""
        return self.samples + self.drift

    def scaled(self, factor: float) -> Components:
        """Return the components with every variance multiplied by `factor`."""
        return self._replace(
            samples=self.samples * factor, passes=self.passes * factor, cells=self.cells * factor
        )

    def with_samples(self, count: int) -> Components:
        """Return the components of a run with `count` samples of the same kind and as many passes.

        What moves a whole pass does not shrink with more samples.
        """
        share = self.sample_count / count
        return self._replace(
            samples=self.samples * share,
            passes=self.drift + self.cells * share if self.pass_count > 1 else 0.0,
            cells=self.cells * share,
            sample_count=count,
        )

    @property
    def error(self) -> float:
        """Standard error of the log ratio: never less than what whole passes alone would give."""
        return math.sqrt(max(self.total, self.passes))

    def degrees(self, of_passes: int | None = None) -> float:
        """Return the degrees of freedom of `error`, by Satterthwaite's rule (Biometrics 2, 1946).

        Near those of the samples where whole passes hardly move, near those of the passes where
        little else does. With one pass those of the samples.

        Args:
            of_passes: Degrees of freedom of `passes`; None for one less than there are passes.
        """
        of_samples = self.sample_count - 1
        of_passes = self.pass_count - 1 if of_passes is None else of_passes
        spread = self.samples**2 / of_samples if of_samples > 0 else 0.0
        spread += self.passes**2 / of_passes if of_passes > 0 else 0.0
        fewest = max(1, min(of_samples, of_passes))
        return (
            max(fewest, max(self.total, self.passes) ** 2 / spread)
            if spread > 0
            else float(max(1, of_samples))
        )

    def bound(self, probability: float, of_passes: int | None = None) -> float:
        """Return the distance from no effect that only noise exceeds with 1 - `probability`.

        For the small levels that an adjustment for many comparisons asks for. There the quantile
        of two passes is beyond every effect, however little they move, so that `reach` would
        call nothing; here the levels share one quantile, of the degrees of freedom of their sum.

        Args:
            probability: Of one side, 0.975 for a level of 5%.
            of_passes: See `degrees`.
        """
        return student_quantile(probability, self.degrees(of_passes)) * self.error

    def p_value(self, effect: float, of_passes: int | None = None) -> float:
        """Return the two-sided p-value of a log ratio, by the law of `bound`."""
        return two_sided(effect, self.error, self.degrees(of_passes))

    def reach(self, probability: float) -> float:
        """Return the half-width of the log ratio's interval.

        The variance of each level meets the Student quantile of that level's own count of units
        (after W. G. Cochran's rule for a sum of two variances, Biometrics 20, 1964): three passes
        say little of how passes move. Nor is the interval ever narrower than one that takes the
        passes alone as the units.

        Args:
            probability: Of the upper end, 0.975 for an interval of 95%.
        """
        of_samples = student_quantile(probability, self.sample_count - 1) ** 2 * self.samples
        if self.pass_count < 2:
            return math.sqrt(of_samples)
        quantile = student_quantile(probability, self.pass_count - 1) ** 2
        return math.sqrt(max(of_samples + quantile * self.drift, quantile * self.passes))


def components(influence: FloatArray, process: NDArray[np.int_]) -> Components:
    """Tell apart what moves a log ratio of totals.

    Args:
        influence: Each cell's linear contribution to the log ratio, shape (samples, passes) with
            at least two samples; 0 where a cell is missing. The sum is 0.
        process: Process of each pass. With several, the processes are the columns: whatever
            moves a repeat inside of one is then met between processes.
    """
    names = np.unique(process)
    table = influence
    if len(names) > 1:
        table = np.stack([influence[:, process == name].sum(axis=1) for name in names], axis=1)
    n, m = table.shape
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    samples = _spread(rows) * n / (n - 1)
    if m < 2:
        return Components(samples, 0.0, 0.0, n, m)
    filled = table != 0
    in_row = np.maximum(filled.sum(axis=1), 1)
    in_column = np.maximum(filled.sum(axis=0), 1)
    residual = np.where(filled, table - (rows / in_row)[:, None] - columns / in_column, 0.0)
    count = int(filled.sum())
    free = count - n - m + 1
    cells = float((residual**2).sum()) * count / free if free > 0 else 0.0
    return Components(samples, _spread(columns) * m / (m - 1), cells, n, m)


def bootstrap_variance(influence: FloatArray, process: NDArray[np.int_]) -> float:
    """Return the variance that hierarchical resampling gives a linear log ratio.

    The bootstrap meets the cells' noise at every level that it draws, and lacks the factor
    n/(n-1) of each; `components` has neither fault.

    Args:
        influence: Each cell's linear contribution, shape (samples, passes).
        process: Process of each pass.
    """
    rows = influence - influence.mean(axis=0)
    return (
        _spread(influence.sum(axis=1))
        + _pass_variance(influence.sum(axis=0)[None, :], process)
        + _pass_variance(rows, process)
    )


def two_sided_p_value(effect: float, reach: Callable[[float], float]) -> float:
    """Return the p-value at which an interval of half-width `reach` would just end at no effect.

    Args:
        effect: Distance from no effect.
        reach: Half-width for the probability of the upper end.
    """
    effect = abs(effect)
    if effect == 0 or reach(0.75) <= 0:
        return 1.0 if effect == 0 else 0.0
    low, high = 0.0, 6.0  # quantiles of the normal law: p between 1 and 2e-9
    if reach(NormalDist().cdf(high)) < effect:
        return 2 * NormalDist().cdf(-high)
    for _ in range(24):
        middle = (low + high) / 2
        if reach(NormalDist().cdf(middle)) < effect:
            low = middle
        else:
            high = middle
    return 2 * NormalDist().cdf(-(low + high) / 2)


def _pass_variance(table: FloatArray, process: NDArray[np.int_]) -> float:
    """Return the variance of the sum over drawn passes, for each row of `table`, added up."""
    names = np.unique(process)
    within, totals = 0.0, []
    for name in names:
        members = table[:, process == name]
        within += float(((members - members.mean(axis=1, keepdims=True)) ** 2).sum())
        totals.append(members.sum(axis=1))
    of_process = np.stack(totals, axis=1)
    between = ((of_process - of_process.mean(axis=1, keepdims=True)) ** 2).sum()
    return within + float(between)


def _spread(values: FloatArray) -> float:
    return float(((values - values.mean()) ** 2).sum())
