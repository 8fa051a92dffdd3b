"""How often each unit is drawn in a bootstrap resample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from specbench.stats.estimate import FloatArray


def resample_counts(generator: np.random.Generator, n: int, resamples: int) -> FloatArray:
    """Return how often each of n items is drawn, shape (resamples, n)."""
    drawn = generator.integers(0, n, size=(resamples, n))
    drawn += np.arange(resamples)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(float)


def resample_passes(
    generator: np.random.Generator, label: NDArray[np.int_], resamples: int
) -> FloatArray:
    """Return how often each pass is drawn: processes first, then repeats inside of each."""
    names, index = np.unique(label, return_inverse=True)
    of_process = resample_counts(generator, len(names), resamples).astype(int)
    counts = np.zeros((resamples, len(label)))
    for number in range(len(names)):
        members = np.flatnonzero(index == number)
        share = np.full(len(members), 1.0 / len(members))
        draws = of_process[:, number] * len(members)
        counts[:, members] = generator.multinomial(draws, share)
    return counts
