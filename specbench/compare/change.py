"""How one quantity changed from one set of files to another, and how sure that is.

Both sets measured the same samples, so that a sample's own peculiarity cancels; their passes
(repeats, or processes where there are several) are their own. The error therefore adds up the
spread of the samples' differences and, for times, what moves whole passes of either set, as
`specbench.stats.paired_ratio` does for one set.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from specbench.compare.cells import Figure
from specbench.stats import CONFIDENCE, POWER, FloatArray, Interval, student_quantile
from specbench.stats.variance import Components, components, two_sided_p_value

_ROUNDING = 1e-9
"""Relative difference below which two counted values are one."""


class Change(NamedTuple):
    """A change from BASE to NEW.

    Attributes:
        value: NEW over BASE minus 1 where `relative`, else NEW minus BASE.
        relative: Whether the change is a share of BASE's value.
        interval: Its 95% interval, None where there is too little for one.
        p_value: Two-sided p-value of no change, None without an interval.
        detectable: Size of the smallest change that this many samples, repeats and processes
            would have told from none, and from the floor, with a chance of 80%; None without an
            interval.
        floor: Size of the changes that are noise, where a clock measured; None where it was not
            measured, or where no clock did.
        samples: Samples in common.
        differing: Samples whose value differs.
    """

    value: float
    relative: bool
    interval: Interval | None
    p_value: float | None
    detectable: float | None
    floor: float | None
    samples: int
    differing: int


class _Spread(NamedTuple):
    """Variance of a change: over samples, and over the passes of each set."""

    samples: float
    sample_count: int
    sets: tuple[Components, ...]

    @property
    def known(self) -> bool:
        """Whether there are two samples, or, where samples are no unit, two passes of each set."""
        if self.sample_count:
            return self.sample_count > 1
        return all(part.pass_count > 1 for part in self.sets)

    def reach(self, probability: float) -> float:
        """Return the half-width of the interval.

        As for one set (`specbench.stats.variance.Components.reach`): samples and passes each meet
        the quantile of their own number of units, and passes alone are never outdone. The passes
        of two sets have Welch's degrees of freedom.
        """
        squares = 0.0
        if self.sample_count > 1:
            squares = student_quantile(probability, self.sample_count - 1) ** 2 * self.samples
        sets = [part for part in self.sets if part.pass_count > 1]
        passes = sum(part.passes for part in sets)
        if passes <= 0:
            return math.sqrt(squares)
        degrees = passes**2 / sum(part.passes**2 / (part.pass_count - 1) for part in sets)
        quantile = student_quantile(probability, round(degrees, 1)) ** 2
        drift = sum(part.drift for part in sets)
        return math.sqrt(max(squares + quantile * drift, quantile * passes))

    @property
    def error(self) -> float:
        """Standard error of the change."""
        return math.sqrt(self.samples + sum(part.drift for part in self.sets))


def change(base: Figure, new: Figure, relative: bool) -> Change:
    """Return the change of a quantity between two sets over the same samples.

    Args:
        base: The quantity in BASE.
        new: In NEW, with the same samples in the same order.
        relative: Whether to return the change as a share of BASE's value. Where a value is not
            above 0 the difference is divided by BASE's value.
    """
    logarithmic = relative and base.centre > 0 and new.centre > 0
    unit = abs(base.centre) if relative and base.centre else 1.0
    units = (base.centre, new.centre) if logarithmic else (unit, unit)
    point = (new.centre - base.centre) / unit
    if logarithmic:
        point = math.log(new.centre / base.centre)

    def shown(amount: float) -> float:
        return math.expm1(amount) if logarithmic else amount

    spread = _spread(base.influence / units[0], new.influence / units[1], base, new)
    floor = _floor(base, new, relative)
    interval = p_value = detectable = None
    if spread.known:
        reach = max(spread.reach(0.5 + CONFIDENCE / 2), _hidden(spread, new.span / units[1]))
        interval = Interval(shown(point - reach), shown(point + reach))
        p_value = two_sided_p_value(0.0 if abs(point) <= _ROUNDING else point, spread.reach)
        bound = max(shown(reach), floor or 0.0)
        detectable = bound + shown(NormalDist().inv_cdf(POWER) * spread.error)
    return Change(
        value=shown(point),
        relative=relative,
        interval=interval,
        p_value=p_value,
        detectable=detectable,
        floor=floor,
        samples=_common(base, new),
        differing=_differing(base, new),
    )


def _hidden(spread: _Spread, span: float) -> float:
    """Return what samples that all changed alike may hide; see `stats.paired_difference`."""
    if not span or spread.samples > 1e-24:
        return 0.0
    return float((1.0 - (1.0 - CONFIDENCE) ** (1.0 / spread.sample_count)) * span)


def interval_of(found: Figure) -> Interval | None:
    """Return the 95% interval of one quantity by itself, None where there is too little."""
    positive = found.centre > 0 and found.timing
    moved = found.influence / found.centre if positive else found.influence
    still = found._replace(influence=np.zeros((len(moved), 1)), process=np.zeros(1, int))
    spread = _spread(still.influence, moved, still, found)
    spread = spread._replace(sets=spread.sets[1:])
    if not spread.known:
        return None
    reach = spread.reach(0.5 + CONFIDENCE / 2)
    if positive:
        return Interval(found.value * math.exp(-reach), found.value * math.exp(reach))
    return Interval(found.value - reach, found.value + reach)


def _spread(one: FloatArray, other: FloatArray, base: Figure, new: Figure) -> _Spread:
    """Tell apart what moves NEW minus BASE, given both sets' scaled influences."""
    by_sample = other.sum(axis=1) - one.sum(axis=1)
    if len(base.cells) == len(by_sample):
        by_sample = by_sample[np.isfinite(base.cells) & np.isfinite(new.cells)]
    n = len(by_sample)
    samples = float(((by_sample - by_sample.mean()) ** 2).sum()) * n / (n - 1) if n > 1 else 0.0
    return _Spread(samples, n, (_passes(one, base), _passes(other, new)))


def _passes(influence: FloatArray, found: Figure) -> Components:
    if len(influence) > 1:
        return components(influence, found.process)
    totals = np.array([influence[:, found.process == p].sum() for p in np.unique(found.process)])
    m = len(totals)
    spread = float(((totals - totals.mean()) ** 2).sum())
    return Components(0.0, spread * m / (m - 1) if m > 1 else 0.0, 0.0, 1, m)


def _floor(base: Figure, new: Figure, relative: bool) -> float | None:
    """Return how large a change the noise of either set explains.

    A floor is the distance of two passes of one run, which is at least what the means of two
    runs differ by.
    """
    if not new.timing or base.floor is None or new.floor is None:
        return None
    ratio = max(base.floor, new.floor)
    return ratio - 1 if relative else (ratio - 1) * abs(base.centre)


def _common(base: Figure, new: Figure) -> int:
    return int((np.isfinite(base.cells) & np.isfinite(new.cells)).sum())


def _differing(base: Figure, new: Figure) -> int:
    """Return how many samples have another value, rounding apart."""
    both = np.isfinite(base.cells) & np.isfinite(new.cells)
    one, other = base.cells[both], new.cells[both]
    return int((np.abs(one - other) > _ROUNDING * np.maximum(np.abs(one), 1.0)).sum())
