"""Student's t distribution, by scipy; above 200 degrees of freedom the normal law serves."""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

from scipy.special import stdtr, stdtrit

_NORMAL = 200
"""Intervals of many samples have always had the normal quantile, which is 0.7% narrower here."""


@lru_cache(maxsize=4096)
def student_quantile(probability: float, degrees: float) -> float:
    """Return the quantile of Student's t distribution."""
    if degrees > _NORMAL:
        return NormalDist().inv_cdf(probability)
    return float(stdtrit(degrees, probability))


def student_tail(statistic: float, degrees: float) -> float:
    """Return the two-sided p-value of a t statistic."""
    if degrees > _NORMAL:
        return 2 * NormalDist().cdf(-abs(statistic))
    return float(2 * stdtr(degrees, -abs(statistic)))


def two_sided(effect: float, error: float, degrees: float) -> float:
    """Return the two-sided p-value of an effect with its standard error."""
    if error <= 0:
        return 1.0 if effect == 0 else 0.0
    return student_tail(effect / error, degrees)
