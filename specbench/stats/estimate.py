"""What every estimator returns, and the constants that all of them share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

CONFIDENCE = 0.95
"""Confidence of every interval that the project publishes."""

DEFAULT_RESAMPLES = 2000
"""Bootstrap resamples; the interval's own error is then about 2% of its width."""


class Interval(NamedTuple):
    """A two-sided confidence interval.

    Attributes:
        low: Lower end.
        high: Upper end.
    """

    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Return whether `value` lies outside of the interval."""
        return not self.low <= value <= self.high


class Estimate(NamedTuple):
    """A value with what is known about its uncertainty.

    Attributes:
        value: The point estimate.
        interval: Its 95% interval, or None where n is too small for one.
        p_value: Two-sided p-value of "no effect", or None where there is no interval or no
            value that would be no effect.
        n: Number of independent samples.
    """

    value: float
    interval: Interval | None
    p_value: float | None
    n: int


def paired_arrays(first: ArrayLike, second: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return copies of two arrays of one shape; what is missing in one is NaN in both."""
    one = np.array(first, dtype=float)
    two = np.array(second, dtype=float)
    assert one.shape == two.shape, f"paired arrays differ in shape: {one.shape} and {two.shape}"
    missing = ~(np.isfinite(one) & np.isfinite(two))
    one[missing] = np.nan
    two[missing] = np.nan
    return one, two
