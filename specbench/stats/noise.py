"""The A/A noise floor: how far plain decoding stands from itself in one run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from specbench.stats.estimate import CONFIDENCE, DEFAULT_RESAMPLES, FloatArray
from specbench.stats.resampling import resample_counts, resample_each

_MOST_PAIRS = 200


def noise_floor(
    baseline: ArrayLike,
    process: Sequence[int] | None = None,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
    draws: ArrayLike | None = None,
) -> float | None:
    """Return the A/A ratio below which a speedup of this run means nothing.

    The baseline is set against itself: one pass over another on the same samples, with the
    samples resampled. With several processes the two passes come from different ones, because a
    second run of the same thing is another process: what moves a whole process (where its memory
    lies, the clock of its core) moves a fresh run too, and repeats inside of one process are
    blind to it. With one process its repeats are set against each other. Only times of one draw
    are compared: another seed writes another text, whose time differs without any noise. The
    floor is the 95% quantile of the ratio's distance from 1, written as a ratio above 1: with a
    floor of 1.03, speedups between 0.97 and 1.03 are noise.

    Args:
        baseline: Times of the baseline, shape (samples, passes).
        process: Process of each pass; None means one process.
        resamples: Number of bootstrap resamples, shared by the pairs.
        seed: Seed of the resampling.
        draws: Which draw each time belongs to, in the shape of `baseline`; None means one draw.

    Returns:
        The floor, or None with fewer than two passes of a draw.
    """
    times = np.asarray(baseline, dtype=float)
    drawn = np.zeros(times.shape) if draws is None else np.asarray(draws, dtype=float)
    label = np.zeros(times.shape[1], int) if process is None else np.asarray(process)
    pairs = comparable_passes(np.isfinite(times), drawn, label)
    if not pairs:
        return None
    share = max(1, math.ceil(resamples / min(len(pairs), _MOST_PAIRS)))
    drawn_counts: Iterable[FloatArray]
    if len(pairs) > _MOST_PAIRS:
        generator = np.random.default_rng(seed)
        chosen = generator.choice(len(pairs), _MOST_PAIRS, replace=False)
        pairs = [pairs[k] for k in chosen]
        drawn_counts = (resample_counts(generator, int(c.sum()), share) for *_, c in pairs)
    else:
        drawn_counts = resample_each([int(c.sum()) for *_, c in pairs], share, seed)
    distances = []
    for (i, j, common), counts in zip(pairs, drawn_counts, strict=True):
        totals = counts @ times[common][:, [i, j]]
        totals = totals[(totals > 0).all(axis=1)]
        distances.append(np.abs(np.log(totals[:, 0] / totals[:, 1])))
    pooled = np.concatenate(distances)
    return float(np.exp(np.quantile(pooled, CONFIDENCE))) if pooled.size else None


def comparable_passes(
    measured: NDArray[np.bool_], draws: FloatArray, process: NDArray[np.int_]
) -> list[tuple[int, int, NDArray[np.bool_]]]:
    """Return the pairs of passes that may be set against each other, and their common samples.

    Two passes share samples of one draw, and come from different processes where any do.

    Args:
        measured: What was measured, shape (samples, passes).
        draws: Which draw each cell belongs to, in the same shape.
        process: Process of each pass.
    """
    used = [
        (i, j, common)
        for i, j in combinations(range(measured.shape[1]), 2)
        if (common := measured[:, i] & measured[:, j] & (draws[:, i] == draws[:, j])).any()
    ]
    return [entry for entry in used if process[entry[0]] != process[entry[1]]] or used
