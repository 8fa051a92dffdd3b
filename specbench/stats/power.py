"""The smallest effect that a run could have found, and how many samples a smaller one needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from specbench.stats.estimate import CONFIDENCE, DEFAULT_RESAMPLES
from specbench.stats.ratio import LogRatio, log_ratio
from specbench.stats.student import student_quantile
from specbench.stats.variance import Components

POWER = 0.8
"""Chance with which a detectable effect is found."""

MOST_SAMPLES = 1_000_000
"""Beyond this many samples an effect counts as out of reach."""


def detectable_ratio(
    baseline: ArrayLike,
    method: ArrayLike,
    process: Sequence[int] | None = None,
    noise_floor: float | None = None,
    comparisons: int = 1,
    power: float = POWER,
    resamples: int = DEFAULT_RESAMPLES,
    measured: LogRatio | None = None,
) -> float | None:
    """Return the smallest ratio above 1 that a run of this size and noise would call better.

    A speedup is called better where its interval and its adjusted p-value exclude 1 and it lies
    beyond the noise floor. The estimate must therefore pass the larger of the interval's
    half-width, at a confidence adjusted for the number of comparisons, and the floor; it does so
    with the stated power where the true log ratio exceeds that bound by the normal quantile of
    the power times the standard error of their difference: another run has not only another
    estimate but also another bound, where few passes decide it. A slowdown to one over the ratio
    is found as often.

    Args:
        baseline: Times of the baseline, shape (samples, passes), as for `paired_ratio`.
        method: Times of the method in the same shape.
        process: Process of each pass; None means one process.
        noise_floor: The run's A/A ratio, as `noise_floor` returns it.
        comparisons: How many speedups are judged together. Holm's procedure is at least as kind
            to each as a level divided by their number.
        power: Chance of finding the effect.
        resamples: Number of bootstrap resamples.
        measured: What `log_ratio` returned for the same arguments, where it is at hand.

    Returns:
        The ratio, or None where no effect would be called better: with fewer than two samples,
        or without a noise floor.
    """
    measured = measured or log_ratio(baseline, method, process, resamples)
    parts = measured.components if measured else None
    if measured is None or parts is None or noise_floor is None:
        return None
    return math.exp(_detectable(parts, _Floor.of(noise_floor, baseline), comparisons, power))


def samples_for_ratio(
    ratio: float,
    baseline: ArrayLike,
    method: ArrayLike,
    process: Sequence[int] | None = None,
    noise_floor: float | None = None,
    comparisons: int = 1,
    power: float = POWER,
    resamples: int = DEFAULT_RESAMPLES,
    measured: LogRatio | None = None,
) -> int | None:
    """Return how many samples of this kind would find an effect, with as many passes as here.

    Args:
        ratio: The effect, a ratio above or below 1.
        baseline: Times of the baseline, shape (samples, passes).
        method: Times of the method in the same shape.
        process: Process of each pass; None means one process.
        noise_floor: The run's A/A ratio. It is taken to stay what it is.
        comparisons: How many speedups are judged together.
        power: Chance of finding the effect.
        resamples: Number of bootstrap resamples.
        measured: What `log_ratio` returned for the same arguments, where it is at hand.

    Returns:
        The number, at least 2; None where no number helps, because the effect lies inside of the
        noise floor or of what moves whole passes, as far as few of them can tell: then a quieter
        machine, more repeats or more processes do.
    """
    measured = measured or log_ratio(baseline, method, process, resamples)
    parts = measured.components if measured else None
    if measured is None or parts is None or noise_floor is None:
        return None
    floor = _Floor.of(noise_floor, baseline)
    effect = abs(math.log(ratio))

    def found(count: int) -> bool:
        of_run = parts.with_samples(count)
        return _detectable(of_run, floor, comparisons, power) <= effect

    if not found(MOST_SAMPLES):
        return None
    low, high = 1, MOST_SAMPLES
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


class _Floor(NamedTuple):
    """A noise floor as a log ratio, and how far it moves from run to run.

    Attributes:
        log: The floor.
        moves: Its standard deviation.
        relative: Relative error of any spread that this run's passes show.
    """

    log: float
    moves: float
    relative: float

    @classmethod
    def of(cls, floor: float, baseline: ArrayLike) -> _Floor:
        """Return the floor of a run; m passes know their spread up to 1 / sqrt(2(m-1))."""
        times = np.asarray(baseline, dtype=float)
        times = times[np.isfinite(times).all(axis=1)]
        passes = times.shape[1]
        relative = 1 / math.sqrt(2 * (passes - 1)) if passes > 1 else 0.0
        spread = float(np.log(times.sum(axis=0)).std(ddof=1)) if len(times) and relative else 0.0
        of_passes = min(math.log(floor), NormalDist().inv_cdf(0.975) * math.sqrt(2) * spread)
        return cls(math.log(floor), of_passes * relative, relative)


def _detectable(of_run: Components, floor: _Floor, comparisons: int, power: float) -> float:
    """Return the smallest detectable log ratio."""
    probability = 1 - (1 - CONFIDENCE) / max(1, comparisons) / 2
    reach = max(of_run.reach(0.5 + CONFIDENCE / 2), of_run.bound(probability))
    moves = floor.moves
    if reach > floor.log:
        of_samples = student_quantile(probability, of_run.sample_count - 1) ** 2 * of_run.samples
        moves = max(0.0, reach - math.sqrt(of_samples)) * floor.relative
    error = math.hypot(math.sqrt(of_run.total), moves)
    return max(reach, floor.log) + NormalDist().inv_cdf(power) * error
