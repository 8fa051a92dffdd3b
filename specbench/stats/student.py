"""Student's t distribution, without a library of special functions."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist


def student_quantile(probability: float, degrees: float) -> float:
    """Return the quantile of Student's t distribution, for a probability of at least 0.5.

    Between whole degrees of freedom the quantile's logarithm is interpolated in the reciprocal
    of the degrees, which is 3% too wide at worst (near 1.5) and close elsewhere. Above 200 the
    normal quantile serves.
    """
    assert 0.5 <= probability < 1.0 and degrees > 0
    if degrees > 200:
        return NormalDist().inv_cdf(probability)
    below = max(1, math.floor(degrees))
    low = _whole_student_quantile(probability, below)
    if degrees <= below:
        return low
    high = _whole_student_quantile(probability, below + 1)
    share = (1 / below - 1 / degrees) / (1 / below - 1 / (below + 1))
    return low * math.pow(high / low, share)


def student_tail(statistic: float, degrees: float) -> float:
    """Return the two-sided p-value of a t statistic.

    Between whole degrees of freedom its logarithm is interpolated in the reciprocal of the
    degrees, as the quantile's is.
    """
    if degrees > 200:
        return 2 * NormalDist().cdf(-abs(statistic))
    below = max(1, math.floor(degrees))
    low = max(0.0, 1.0 - _student_central(abs(statistic), below))
    if degrees <= below or low == 0:
        return low
    high = max(0.0, 1.0 - _student_central(abs(statistic), below + 1))
    share = (1 / below - 1 / degrees) / (1 / below - 1 / (below + 1))
    return low * math.pow(high / low, share)


@lru_cache(maxsize=4096)
def _whole_student_quantile(probability: float, degrees: int) -> float:
    """Return the quantile for whole degrees, by Newton's method.

    The distribution function is concave above 0 and the normal quantile lies below the root, so
    that no step passes it.
    """
    central = 2 * probability - 1
    if degrees == 1:
        return math.tan(math.pi / 2 * central)
    scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)
    scale -= math.log(math.pi * degrees) / 2
    root = NormalDist().inv_cdf(probability)
    for _ in range(100):
        power = (degrees + 1) / 2 * math.log1p(root * root / degrees)
        step = (central - _student_central(root, degrees)) / 2 / math.exp(scale - power)
        root += step
        if abs(step) <= 1e-12 * root:
            break
    return root


def _student_central(statistic: float, degrees: int) -> float:
    """Return P(|T| <= statistic), exactly, by the finite series for whole degrees.

    M. Abramowitz and I. Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
    """
    angle = math.atan(statistic / math.sqrt(degrees))
    cosine = math.cos(angle)
    total, term = 0.0, 1.0
    if degrees % 2 == 0:
        for k in range(degrees // 2):
            total += term
            term *= cosine * cosine * (2 * k + 1) / (2 * k + 2)
        return math.sin(angle) * total
    term = cosine
    for k in range((degrees - 1) // 2):
        total += term
        term *= cosine * cosine * (2 * k + 2) / (2 * k + 3)
    return 2 / math.pi * (angle + math.sin(angle) * total)


def two_sided(effect: float, error: float, degrees: float) -> float:
    """Return the two-sided p-value of an effect with its standard error."""
    if error <= 0:
        return 1.0 if effect == 0 else 0.0
    return student_tail(effect / error, degrees)
