"""Ratios with intervals: speedups over samples and passes, and quotients of totals over samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from specbench.stats.estimate import (
    CONFIDENCE,
    DEFAULT_RESAMPLES,
    Estimate,
    FloatArray,
    Interval,
    paired_arrays,
)
from specbench.stats.resampling import resample_table
from specbench.stats.student import student_quantile, two_sided
from specbench.stats.variance import (
    Components,
    bootstrap_variance,
    components,
)

LINEAR_SAMPLES = 1000
"""Above this many samples a log ratio is linear in them, and is not resampled."""


class LogRatio(NamedTuple):
    """The log of a ratio of totals.

    Attributes:
        value: Log of the ratio.
        components: What moves it; None with one sample.
        samples: Number of samples in it.
    """

    value: float
    components: Components | None
    samples: int


def paired_ratio(
    baseline: ArrayLike,
    method: ArrayLike,
    process: Sequence[int] | None = None,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
    measured: LogRatio | None = None,
) -> Estimate | None:
    """Return total baseline time over total method time, with a hierarchical interval.

    Each resample draws samples with replacement, processes with replacement, and within each
    drawn process its repeats with replacement. A pass is drawn for all samples at once, because
    drift moves all samples of a pass together (crossed, not nested, resampling: A. B. Owen,
    "The pigeonhole bootstrap", 2007). Such a bootstrap counts the noise of a single cell at every
    level and sees too little spread among few passes; its variance is therefore set to that of
    the components (`variance.components`), and each level meets Student's quantile for its own
    number of units (`Components.reach`). What is left of the bootstrap is how much wider a ratio
    of few samples spreads than its linear part.

    Args:
        baseline: Times of the baseline, shape (samples, passes), any unit.
        method: Times of the method in the same unit and shape.
        process: Process of each pass; None means one process.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.
        measured: What `log_ratio` returned for the same arguments, where it is at hand.

    Returns:
        The ratio (above 1: the method is faster), or None without any complete pair. With one
        sample there is a value but no interval.
    """
    measured = measured or log_ratio(baseline, method, process, resamples, seed)
    if measured is None:
        return None
    value, parts, samples = measured
    if parts is None:
        return Estimate(math.exp(value), None, None, samples)
    reach = parts.reach(0.5 + CONFIDENCE / 2)
    return Estimate(
        value=math.exp(value),
        interval=Interval(math.exp(value - reach), math.exp(value + reach)),
        p_value=parts.p_value(value),
        n=samples,
    )


def mean_ratio(
    baseline: ArrayLike,
    method: ArrayLike,
    process: Sequence[int] | None = None,
    resamples: int = DEFAULT_RESAMPLES,
) -> Estimate | None:
    """Return the mean of the method's rates over the mean of the baseline's.

    The quotient of two means over samples, which several papers publish as their speedup with
    tokens per second as the rate. A sample counts by its rate and not by its length, so that the
    value differs from a ratio of total times.

    Args:
        baseline: Rates of the baseline, shape (samples,) or (samples, passes).
        method: Rates of the method in the same unit and shape.
        process: Process of each pass; None means one process.
        resamples: Number of bootstrap resamples.

    Returns:
        The ratio (above 1: the method is faster) with the interval of `paired_ratio`.
    """
    rates = [np.asarray(rate, dtype=float) for rate in (baseline, method)]
    base, other = [rate[:, None] if rate.ndim == 1 else rate for rate in rates]
    return paired_ratio(other, base, process, resamples)


def ratio_of_totals(numerator: ArrayLike, denominator: ArrayLike) -> Estimate | None:
    """Return the quotient of two totals over samples, with an interval over samples.

    For quantities without noise of timing, such as the mean acceptance length (tokens over
    rounds) or the tokens of a target forward. The interval is Student's on the log of the
    quotient, by its influence values (the delta method); it has no width where every sample has
    the same quotient.

    Args:
        numerator: One value a sample, of any sign but the total not negative; NaN: no value.
        denominator: One value a sample.

    Returns:
        The quotient without a p-value; None without a sample or with a total of 0 below. One
        sample, or a total of 0 above, has no interval.
    """
    above, below = _common([numerator, denominator])
    n = len(above)
    if not n or below.sum() <= 0:
        return None
    value = float(above.sum() / below.sum())
    if n < 2 or value <= 0:
        return Estimate(value, None, None, n)
    influence = above / above.sum() - below / below.sum()
    return _student(math.log(value), influence)._replace(p_value=None)


def paired_total_ratio(
    baseline_numerator: ArrayLike,
    baseline_denominator: ArrayLike,
    method_numerator: ArrayLike,
    method_denominator: ArrayLike,
) -> Estimate | None:
    """Return the method's quotient of totals over the baseline's, paired by sample.

    For changes of quantities without noise of timing between two arms or two versions, such as
    acceptance length or forwards per token. Samples that any of the four lacks are left out.

    Args:
        baseline_numerator: One value a sample.
        baseline_denominator: One value a sample.
        method_numerator: One value a sample, in the same order.
        method_denominator: One value a sample.

    Returns:
        The ratio (1: no change) with an interval over samples and the p-value of no change; None
        where a total is 0. One sample has no interval. Where all samples agree the interval has
        no width.
    """
    totals = _common(
        [baseline_numerator, baseline_denominator, method_numerator, method_denominator]
    )
    n = len(totals[0])
    if not n or any(total.sum() <= 0 for total in totals):
        return None
    shares = [total / total.sum() for total in totals]
    sums = [float(total.sum()) for total in totals]
    value = math.log(sums[2] / sums[3]) - math.log(sums[0] / sums[1])
    if n < 2:
        return Estimate(math.exp(value), None, None, n)
    return _student(value, shares[2] - shares[3] - shares[0] + shares[1])


def log_ratio(
    baseline: ArrayLike,
    method: ArrayLike,
    process: Sequence[int] | None = None,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> LogRatio | None:
    """Return the log of total baseline time over total method time, and what moves it.

    Args:
        baseline: Times of the baseline, shape (samples, passes).
        method: Times of the method in the same unit and shape.
        process: Process of each pass; None means one process.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.

    Returns:
        None without any complete pair.
    """
    times_baseline, times_method = paired_arrays(baseline, method)
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
    value = math.log(total_baseline / total_method)
    samples = len(times_baseline)
    if samples < 2:
        return LogRatio(value, None, samples)
    influence = times_baseline / total_baseline - times_method / total_method
    parts = components(influence, label)
    linear = bootstrap_variance(influence, label)
    if samples <= LINEAR_SAMPLES and linear > 0:
        drawn = _drawn_log_ratios(times_baseline, times_method, label, resamples, seed)
        parts = parts.scaled(float(drawn.var()) / linear)
    return LogRatio(value, parts, samples)


def _drawn_log_ratios(
    baseline: FloatArray,
    method: FloatArray,
    label: NDArray[np.int_],
    resamples: int,
    seed: int,
) -> FloatArray:
    """Return the log ratio of totals of each resample that drew anything in both arms."""
    drawn = []
    for of_samples, of_passes in resample_table(len(baseline), label, resamples, seed):
        totals_baseline = ((of_samples @ baseline) * of_passes).sum(axis=1)
        totals_method = ((of_samples @ method) * of_passes).sum(axis=1)
        usable = (totals_baseline > 0) & (totals_method > 0)
        drawn.append(np.log(totals_baseline[usable] / totals_method[usable]))
    return np.concatenate(drawn)


def _common(columns: Sequence[ArrayLike]) -> list[FloatArray]:
    """Return the columns restricted to samples that all of them have."""
    arrays = [np.asarray(column, dtype=float) for column in columns]
    assert len({array.shape for array in arrays}) == 1, "the columns differ in length"
    kept = np.isfinite(np.stack(arrays)).all(axis=0)
    return [array[kept] for array in arrays]


def _student(value: float, influence: FloatArray) -> Estimate:
    """Return Student's interval of a log over samples, as an interval of the quotient."""
    n = len(influence)
    error = math.sqrt(float((influence**2).sum()) * n / (n - 1))
    if error < 1e-12:
        error = 0.0
    reach = student_quantile(0.5 + CONFIDENCE / 2, n - 1) * error
    return Estimate(
        math.exp(value),
        Interval(math.exp(value - reach), math.exp(value + reach)),
        two_sided(0.0 if abs(value) < 1e-12 else value, error, n - 1),
        n,
    )
