"""Intervals, noise floors and corrections for timings and scores (numpy only).

Timings of one run drift: a fresh process, a warm machine or a busy neighbour moves every
sample of a pass together, and an interval over samples alone calls that movement a speedup.
The estimators here therefore resample every level that can move (sample, repeat, process), keep
the two arms paired, and say nothing (None) where there is too little to say.

Arrays of timings have the shape (samples, passes): one row a sample, one column a pass, that is
one repeat in one process. A missing or failed pair is NaN in both arms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

CONFIDENCE = 0.95
"""Confidence of every interval that the project publishes."""

DEFAULT_RESAMPLES = 2000
"""Bootstrap resamples; the interval's own error is then about 2% of its width."""


_CHUNK = 250  # resamples at a time: the counts of 500 samples then stay in the cache


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
        p_value: Two-sided p-value of "no effect", or None where there is no interval.
        n: Number of independent samples.
    """

    value: float
    interval: Interval | None
    p_value: float | None
    n: int


def paired_ratio(
    baseline: ArrayLike,
    method: ArrayLike,
    process: Sequence[int] | None = None,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> Estimate | None:
    """Return total baseline time over total method time, with a hierarchical interval.

    Each resample draws samples with replacement, processes with replacement, and within each
    drawn process its repeats with replacement. A pass is drawn for all samples at once, because
    drift moves all samples of a pass together (crossed, not nested, resampling: A. B. Owen,
    "The pigeonhole bootstrap", 2007). The interval is the log ratio plus and minus its bootstrap
    standard error times a Student quantile with Satterthwaite's degrees of freedom, the variance
    of a level with n units corrected by n/(n-1): percentiles of three repeats or processes would
    be far too narrow (T. Hesterberg, "What Teachers Should Know About the Bootstrap", 2015).
    Noise inside a cell is met at every level, so that the interval is conservative where noise
    outweighs the differences between samples.

    Args:
        baseline: Times of the baseline, shape (samples, passes), any unit.
        method: Times of the method in the same unit and shape.
        process: Process of each pass; None means one process.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.

    Returns:
        The ratio (above 1: the method is faster), or None without any complete pair. With one
        sample there is a value but no interval.
    """
    times_baseline, times_method = _paired(baseline, method)
    seen = np.isfinite(times_baseline)
    rows, columns = seen.any(axis=1), seen.any(axis=0)
    if not rows.any():
        return None
    label = np.zeros(seen.shape[1], int) if process is None else np.asarray(process)
    times_baseline = np.nan_to_num(times_baseline[rows][:, columns])
    times_method = np.nan_to_num(times_method[rows][:, columns])
    label = label[columns]
    total_baseline, total_method = times_baseline.sum(), times_method.sum()
    if total_baseline <= 0 or total_method <= 0:
        return None
    point = math.log(total_baseline / total_method)
    samples = len(times_baseline)
    if samples < 2:
        return Estimate(math.exp(point), None, None, samples)

    drawn = _drawn_log_ratios(times_baseline, times_method, label, resamples, seed)
    influence = times_baseline / total_baseline - times_method / total_method
    widen, degrees = _small_sample_correction(influence, label)
    error = float(drawn.std()) * widen
    reach = student_quantile(0.5 + CONFIDENCE / 2, degrees) * error
    return Estimate(
        value=math.exp(point),
        interval=Interval(math.exp(point - reach), math.exp(point + reach)),
        p_value=_two_sided(point, error, degrees),
        n=samples,
    )


def noise_floor(
    baseline: ArrayLike,
    process: Sequence[int] | None = None,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
    draws: ArrayLike | None = None,
) -> float | None:
    """Return the A/A ratio below which a speedup of this run means nothing.

    The baseline is set against itself: repeat i over repeat j on the same samples, for every pair
    of repeats of one process (of different processes only where no process has two), with the
    samples resampled. Only times of one draw are compared: another seed writes another text, whose
    time differs without any noise. The floor is the 95% quantile of the ratio's distance from 1,
    written as a ratio above 1: with a floor of 1.03, speedups between 0.97 and 1.03 are noise.

    Args:
        baseline: Times of the baseline, shape (samples, passes).
        process: Process of each pass; None means one process.
        resamples: Number of bootstrap resamples, shared by the pairs.
        seed: Seed of the resampling.
        draws: Which draw each time belongs to, in the shape of `baseline`; None means one draw.

    Returns:
        The floor, or None with fewer than two repeats of a draw.
    """
    times = np.asarray(baseline, dtype=float)
    drawn = np.zeros(times.shape) if draws is None else np.asarray(draws, dtype=float)
    label = np.zeros(times.shape[1], int) if process is None else np.asarray(process)
    pairs = list(combinations(range(times.shape[1]), 2))
    within = [(i, j) for i, j in pairs if label[i] == label[j]]
    generator = np.random.default_rng(seed)
    measured = np.isfinite(times)
    used = [
        (i, j, common)
        for i, j in (within or pairs)
        if (common := measured[:, i] & measured[:, j] & (drawn[:, i] == drawn[:, j])).any()
    ]
    distances = []
    for i, j, common in used:
        columns = times[common][:, [i, j]]
        share = max(1, math.ceil(resamples / len(used)))
        totals = _resample_counts(generator, len(columns), share) @ columns
        totals = totals[(totals > 0).all(axis=1)]
        distances.append(np.abs(np.log(totals[:, 0] / totals[:, 1])))
    if not distances:
        return None
    pooled = np.concatenate(distances)
    return float(np.exp(np.quantile(pooled, CONFIDENCE))) if pooled.size else None


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
    scores_baseline, scores_method = _paired(baseline, method)
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
    p_value = _two_sided(value, error, n - 1)
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
    """Return the two-sided p-value of a t statistic; non-whole degrees are rounded down."""
    if degrees > 200:
        return 2 * NormalDist().cdf(-abs(statistic))
    return max(0.0, 1.0 - _student_central(abs(statistic), max(1, math.floor(degrees))))


def _drawn_log_ratios(
    baseline: FloatArray,
    method: FloatArray,
    label: NDArray[np.int_],
    resamples: int,
    seed: int,
) -> FloatArray:
    """Return the log ratio of totals of each resample that drew anything in both arms."""
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        of_samples = _resample_counts(generator, len(baseline), count)
        of_passes = _resample_passes(generator, label, count)
        totals_baseline = ((of_samples @ baseline) * of_passes).sum(axis=1)
        totals_method = ((of_samples @ method) * of_passes).sum(axis=1)
        usable = (totals_baseline > 0) & (totals_method > 0)
        drawn.append(np.log(totals_baseline[usable] / totals_method[usable]))
    return np.concatenate(drawn)


def _paired(first: ArrayLike, second: ArrayLike) -> tuple[FloatArray, FloatArray]:
    one = np.array(first, dtype=float)
    two = np.array(second, dtype=float)
    assert one.shape == two.shape, f"paired arrays differ in shape: {one.shape} and {two.shape}"
    missing = ~(np.isfinite(one) & np.isfinite(two))
    one[missing] = np.nan
    two[missing] = np.nan
    return one, two


def _resample_counts(generator: np.random.Generator, n: int, resamples: int) -> FloatArray:
    """Return how often each of n items is drawn, shape (resamples, n)."""
    drawn = generator.integers(0, n, size=(resamples, n))
    drawn += np.arange(resamples)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(float)


def _resample_passes(
    generator: np.random.Generator, label: NDArray[np.int_], resamples: int
) -> FloatArray:
    """Return how often each pass is drawn: processes first, then repeats inside of each."""
    names, index = np.unique(label, return_inverse=True)
    of_process = _resample_counts(generator, len(names), resamples).astype(int)
    counts = np.zeros((resamples, len(label)))
    for number in range(len(names)):
        members = np.flatnonzero(index == number)
        share = np.full(len(members), 1.0 / len(members))
        draws = of_process[:, number] * len(members)
        counts[:, members] = generator.multinomial(draws, share)
    return counts


def _small_sample_correction(influence: FloatArray, label: NDArray[np.int_]) -> tuple[float, float]:
    """Return the widening of the standard error and Satterthwaite's degrees of freedom.

    Args:
        influence: Each cell's linear contribution to the log ratio, shape (samples, passes).
        label: Process of each pass.
    """
    names = np.unique(label)
    of_pass = influence.sum(axis=0)
    levels = [_level(influence.sum(axis=1))]
    for name in names:
        levels.append(_level(of_pass[label == name]))
    levels.append(_level(np.array([of_pass[label == name].sum() for name in names])))
    raw = sum(squares for squares, _ in levels)
    if raw <= 0:
        return 1.0, float(influence.shape[0] - 1)
    corrected = [(squares * (n / (n - 1)), n - 1) for squares, n in levels if n > 1]
    total = sum(variance for variance, _ in corrected)
    spread = sum(variance**2 / degrees for variance, degrees in corrected)
    return math.sqrt(total / raw), total**2 / spread


def _level(contributions: FloatArray) -> tuple[float, int]:
    """Return the bootstrap variance that one level contributes, and its number of units."""
    if len(contributions) < 2:
        return 0.0, len(contributions)
    return float(((contributions - contributions.mean()) ** 2).sum()), len(contributions)


def _two_sided(effect: float, error: float, degrees: float) -> float:
    if error <= 0:
        return 1.0 if effect == 0 else 0.0
    return student_tail(effect / error, degrees)


def _wilson(share: float, n: int) -> Interval:
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low, high = max(0.0, centre - reach), min(1.0, centre + reach)
    return Interval(min(low, share), max(high, share))


def _whole_student_quantile(probability: float, degrees: int) -> float:
    central = 2 * probability - 1
    low, high = 0.0, 1.0
    while _student_central(high, degrees) < central:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        if _student_central(middle, degrees) < central:
            low = middle
        else:
            high = middle
    return (low + high) / 2


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
