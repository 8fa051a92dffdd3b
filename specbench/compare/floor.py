"""The noise floor of a speedup's change: how far a run's own speedups stand from each other.

The floor of a comparison sets plain decoding against itself, and so it includes whatever slows the
whole machine between two repeats. A speedup is a ratio of two arms that ran side by side, from
which that drift has cancelled; when one speedup is held against another, what counts as noise is
how much the speedup of one repeat differs from that of the next.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from specbench.stats import CONFIDENCE, DEFAULT_RESAMPLES, FloatArray
from specbench.stats.noise import comparable_passes

_MOST_PAIRS = 200


def speedup_floor(
    baseline: FloatArray,
    method: FloatArray,
    process: NDArray[np.int_],
    draws: FloatArray,
    resamples: int = DEFAULT_RESAMPLES,
) -> float | None:
    """Return the ratio of speedups below which a change of a speedup means nothing.

    As `specbench.stats.noise_floor`: the speedup of one pass over that of another on the same
    samples and draws, of different processes where there are several, with the samples resampled;
    the 95% quantile of the ratio's distance from 1.

    Args:
        baseline: Times of the baseline, shape (samples, passes); NaN where there is none.
        method: Times of the method in the same shape.
        process: Process of each pass.
        draws: Which draw each time belongs to, in the same shape.
        resamples: Number of resamples, shared by the pairs.

    Returns:
        A ratio above 1, or None with fewer than two passes of a draw.
    """
    known = np.isfinite(baseline) & np.isfinite(method)
    pairs = comparable_passes(known, draws, process)
    generator = np.random.default_rng(0)
    if len(pairs) > _MOST_PAIRS:
        pairs = [pairs[k] for k in generator.choice(len(pairs), _MOST_PAIRS, replace=False)]
    distances = []
    for i, j, common in pairs:
        columns = np.stack(
            [baseline[common, i], method[common, i], baseline[common, j], method[common, j]], axis=1
        )
        n, share = len(columns), max(1, math.ceil(resamples / len(pairs)))
        counts = generator.multinomial(n, np.full(n, 1 / n), size=share)
        totals = counts @ columns
        totals = totals[(totals > 0).all(axis=1)]
        logs = np.log(totals)
        distances.append(np.abs(logs[:, 0] - logs[:, 1] - logs[:, 2] + logs[:, 3]))
    pooled = np.concatenate(distances) if distances else np.zeros(0)
    return float(np.exp(np.quantile(pooled, CONFIDENCE))) if pooled.size else None
