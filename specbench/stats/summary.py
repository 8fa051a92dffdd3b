"""Means and paired differences of scores, corrections for many comparisons, and outliers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from specbench.stats.estimate import CONFIDENCE, Estimate, Interval, paired_arrays
from specbench.stats.student import student_quantile, two_sided


def paired_difference(baseline: ArrayLike, method: ArrayLike, span: float = 1.0) -> Estimate | None:
    """Return the mean of method minus baseline over samples that both arms scored.

    The interval is Student's over the samples' differences. Where every difference is the same,
    that interval has no width although other samples may differ: then its half-width is the
    largest share of differing samples that n samples could hide with 95% confidence
    (1 - 0.05^(1/n), about 3/n) times the largest change that one sample can make.

    Args:
        baseline: One score a sample (a mean over its repeats); NaN where there is none.
        method: Scores of the same samples.
        span: Largest change of one sample's score; 1 for a score between 0 and 1.

    Returns:
        The difference (above 0: the method scores higher), None without a common sample. One
        sample has no interval.
    """
    scores_baseline, scores_method = paired_arrays(baseline, method)
    differences = scores_method - scores_baseline
    differences = differences[np.isfinite(differences)]
    n = differences.size
    if n == 0:
        return None
    value = float(differences.mean())
    if n < 2:
        return Estimate(value, None, None, n)
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    if error <= 1e-12 * max(1.0, abs(value)):
        hidden = (1.0 - (1.0 - CONFIDENCE) ** (1.0 / n)) * span
        p_value = 1.0 if value == 0 else 0.0
        return Estimate(value, Interval(value - hidden, value + hidden), p_value, n)
    reach = student_quantile(0.5 + CONFIDENCE / 2, n - 1) * error
    p_value = two_sided(value, error, n - 1)
    return Estimate(value, Interval(value - reach, value + reach), p_value, n)


def mean_interval(values: ArrayLike) -> Estimate | None:
    """Return the mean of independent values with its 95% interval.

    Values that are all 0 or 1 are a proportion and get Wilson's score interval, which stays
    inside [0, 1] and has a width even where all are right; others get Student's.

    Args:
        values: One value a sample; NaN where there is none.

    Returns:
        The mean, None without a value. One value has no interval.
    """
    array = np.asarray(values, dtype=float)
    array = array[np.isfinite(array)]
    n = array.size
    if n == 0:
        return None
    mean = float(array.mean())
    if n < 2:
        return Estimate(mean, None, None, n)
    if np.isin(array, (0.0, 1.0)).all():
        return Estimate(mean, _wilson(mean, n), None, n)
    reach = student_quantile(0.5 + CONFIDENCE / 2, n - 1)
    reach *= float(array.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, Interval(mean - reach, mean + reach), None, n)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased estimate of pass@k from n samples of which c are correct.

    One minus the chance that k of the n samples, drawn without replacement, are all wrong
    (Chen et al., 2021, equation 1), as a product of ratios that cannot overflow.

    Args:
        n: Samples drawn.
        c: Correct ones among them.
        k: Tries allowed; at most n.
    """
    assert 0 <= c <= n and 1 <= k <= n, (n, c, k)
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's step-down procedure.

    Comparing an adjusted value with 0.05 keeps the chance of any false claim among all of them
    at 5% (S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979).
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def mad_outliers(values: ArrayLike, threshold: float = 3.5) -> NDArray[np.bool_]:
    """Mark values far from the median, by the median absolute deviation.

    The modified z-score 0.6745 (x - median) / MAD is compared with `threshold` (B. Iglewicz and
    D. Hoaglin, "How to Detect and Handle Outliers", 1993). Where more than half of the values
    are equal the deviation is 0, and every other value would be an outlier: none is marked.

    Args:
        values: Array of any length; NaN is never an outlier.
        threshold: Modified z-score above which a value is an outlier.

    Returns:
        A mask of the same length.
    """
    array = np.asarray(values, dtype=float)
    if not np.isfinite(array).any():
        return np.zeros(array.shape, dtype=bool)
    distance = np.abs(array - np.nanmedian(array))
    deviation = np.nanmedian(distance)
    if deviation == 0:
        return np.zeros(array.shape, dtype=bool)
    with np.errstate(invalid="ignore"):
        return np.asarray(0.6745 * distance / deviation > threshold)


def _wilson(share: float, n: int) -> Interval:
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low, high = max(0.0, centre - reach), min(1.0, centre + reach)
    return Interval(min(low, share), max(high, share))
