"""Speedups of one method against its baseline, and the verdict on each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from specbench.compare.comparison import (
    BETTER,
    INCONCLUSIVE,
    SAME,
    WORSE,
    ComparisonRow,
    Speedup,
)
from specbench.compare.measurements import Measurements
from specbench.compare.pool import Pairs, PassTimes
from specbench.compare.table import codes_of
from specbench.stats import (
    DEFAULT_RESAMPLES,
    POWER,
    Estimate,
    FloatArray,
    Interval,
    PooledPasses,
    detectable_ratio,
    holm,
    log_ratio,
    mean_ratio,
    noise_floor,
    paired_ratio,
    samples_for_ratio,
)

SAME_WITHIN = 1.01
"""Ratio that counts as no difference where the noise floor is lower still."""

FULL_ROWS = 50
"""Rows of a comparison up to which each is given all bootstrap resamples."""

MOST_RESAMPLES = 40_000
"""Resamples of one quantity over all rows where there are more: with 200 rows the half-width of an
interval is 5% uncertain instead of 2%."""

FEWEST_RESAMPLES = 200

ALPHA = 0.05
"""Chance of any false "better" or "worse" among the rows of a comparison."""


class Effort(NamedTuple):
    """What a row of a comparison is judged with.

    Attributes:
        rows: Speedups that are judged together.
        resamples: Bootstrap resamples for each.
    """

    rows: int
    resamples: int

    @classmethod
    def of(cls, rows: int) -> Effort:
        """Share a bounded number of resamples among the rows of a comparison."""
        if rows <= FULL_ROWS:
            return cls(rows, DEFAULT_RESAMPLES)
        share = MOST_RESAMPLES // rows
        return cls(rows, max(share, FEWEST_RESAMPLES))


def speedup_of(pairs: Pairs, column: str, effort: Effort) -> Speedup | None:
    """Return the ratio of total times of one column, None without a pair that has it."""
    if not len(pairs.method):
        return None
    times = pairs.times(column)
    arrays = (times.baseline, times.method, times.process)
    measured = log_ratio(*arrays, effort.resamples)
    ratio = paired_ratio(*arrays, measured=measured) if measured else None
    if ratio is None:
        return None
    floor = _floor(times, effort.resamples)
    found = Speedup(
        value=ratio.value,
        interval=ratio.interval,
        p_value=ratio.p_value,
        adjusted_p_value=None,
        noise_floor=floor,
        verdict=INCONCLUSIVE,
        variance=measured.components if measured else None,
    )
    if ratio.interval is None or floor is None:
        return found
    smallest = detectable_ratio(*arrays, floor, effort.rows, measured=measured)
    needed = None
    if not ratio.interval.excludes(1.0):
        needed = samples_for_ratio(ratio.value, *arrays, floor, effort.rows, measured=measured)
    return found._replace(detectable=smallest, samples_needed=needed)


def mean_rate_speedup(pairs: Pairs, resamples: int = DEFAULT_RESAMPLES) -> Estimate | None:
    """Return the mean over samples of tokens per second, the method's over the baseline's.

    This is what Spec-Bench's evaluation/speed.py prints as its speedup, with a question as the
    sample and the tokens and times of its turns summed.
    """
    if not len(pairs.method):
        return None
    cells = pairs.passes(_rates(pairs.baseline), _rates(pairs.method))
    return mean_ratio(cells.baseline, cells.method, cells.process, resamples)


def pooled_rate_speedup(pairs: Pairs, resamples: int = DEFAULT_RESAMPLES) -> Estimate | None:
    """Return all tokens over all time, the method's over the baseline's.

    A quotient of four totals. A cell's influence on its logarithm is the sum of its shares in
    them, two with each sign, so that the interval is that of a ratio of two sums of shares.
    """
    if not len(pairs.method):
        return None
    times, tokens = pairs.times("total_ns"), pairs.times("new_tokens")
    cells = (times.baseline, times.method, tokens.baseline, tokens.method)
    known = np.isfinite(np.stack(cells)).all(axis=0)
    totals = [float(cell[known].sum()) for cell in cells]
    if not known.any() or min(totals) <= 0:
        return None
    shares = [
        np.where(known, cell / total, np.nan) for cell, total in zip(cells, totals, strict=True)
    ]
    value = totals[0] / totals[1] * totals[3] / totals[2]
    half = paired_ratio(shares[0] + shares[3], shares[1] + shares[2], times.process, resamples)
    assert half is not None
    interval = None
    if half.interval is not None:
        reach = 2 * math.log(half.interval.high / half.value)
        interval = Interval(value * math.exp(-reach), value * math.exp(reach))
    return Estimate(value, interval, None, half.n)


def with_verdicts(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """Adjust the p-values for the number of rows and give each speedup its verdict."""
    adjusted = _adjust([row.speedup_e2e for row in rows])
    decode = _adjust([row.speedup_decode for row in rows])
    return [
        replace(row, speedup_e2e=end_to_end, speedup_decode=after_prefill)
        for row, end_to_end, after_prefill in zip(rows, adjusted, decode, strict=True)
    ]


def verdict(speedup: Speedup) -> str:
    """Judge a speedup against its interval, the noise floor and the number of comparisons.

    "better" and "worse" need an interval clear of 1, a Holm-adjusted p-value below 0.05, and an
    effect beyond the noise floor; without a measured floor neither is claimed. "same" needs the
    whole interval within the noise floor (or within 1%, where the floor is lower).
    """
    if speedup.interval is None or speedup.noise_floor is None:
        return INCONCLUSIVE
    effect = max(speedup.value, 1 / speedup.value)
    significant = speedup.adjusted_p_value is not None and speedup.adjusted_p_value < ALPHA
    if speedup.interval.excludes(1.0) and significant and effect > speedup.noise_floor:
        return BETTER if speedup.value > 1 else WORSE
    band = max(speedup.noise_floor, SAME_WITHIN)
    if 1 / band <= speedup.interval.low and speedup.interval.high <= band:
        return SAME
    return INCONCLUSIVE


def _rates(arm: Measurements) -> FloatArray:
    """Return tokens per nanosecond of each measurement; NaN where it took no time."""
    times = arm.values("total_ns")
    return arm.values("new_tokens") / np.where(times > 0, times, np.nan)


def _adjust(speedups: Sequence[Speedup | None]) -> list[Speedup | None]:
    """Judge the speedups of all rows together; without a p-value one is not tested."""
    tested = [s for s in speedups if s is not None and s.p_value is not None]
    together = PooledPasses.of([speedup.variance for speedup in tested])
    adjusted = iter(holm([_p_value(speedup, together) for speedup in tested]))
    out: list[Speedup | None] = []
    for speedup in speedups:
        if speedup is None:
            out.append(None)
            continue
        value = next(adjusted) if speedup.p_value is not None else None
        detectable = _detectable(speedup, together, len(tested))
        speedup = speedup._replace(adjusted_p_value=value, detectable=detectable)
        out.append(speedup._replace(verdict=verdict(speedup)))
    return out


def _p_value(speedup: Speedup, together: PooledPasses) -> float:
    assert speedup.p_value is not None
    if speedup.variance is None:
        return speedup.p_value
    return together.p_value(math.log(speedup.value), speedup.variance)


def _detectable(speedup: Speedup, together: PooledPasses, rows: int) -> float | None:
    """Return the smallest ratio that is found, where all rows together say how passes move."""
    if speedup.detectable is None or speedup.variance is None:
        return speedup.detectable
    bound = together.bound(1 - ALPHA / rows / 2, speedup.variance)
    error = math.sqrt(speedup.variance.total)
    return max(speedup.detectable, math.exp(bound + NormalDist().inv_cdf(POWER) * error))


def _floor(times: PassTimes, resamples: int) -> float | None:
    """Return the noise floor inside of files, or between them where no file has two passes.

    A method is paired with the baseline of its own file, so that what happens to a machine between
    two files moves both and is no noise of their ratio.
    """
    columns = times.some()
    together = codes_of([_codes(columns.draws), _codes(columns.files)]).astype(float)
    shaped = together.reshape(columns.draws.shape)
    inside = noise_floor(columns.baseline, columns.process, resamples, draws=shaped)
    if inside is not None:
        return inside
    return noise_floor(columns.baseline, columns.process, resamples, draws=columns.draws)


def _codes(values: FloatArray) -> NDArray[np.int64]:
    return np.nan_to_num(values, nan=-1).astype(np.int64).ravel()
