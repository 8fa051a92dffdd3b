"""How often each unit is drawn in a bootstrap resample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from specbench.stats.estimate import FloatArray

_CHUNK = 250  # resamples at a time: the counts of 500 samples then stay in the cache
_MOST_KEPT = 4_000_000  # numbers; larger draws are made anew each time


class Draws(NamedTuple):
    """Some resamples of a table of samples and passes.

    Attributes:
        samples: How often each sample is drawn, shape (resamples, samples).
        passes: How often each pass is drawn, shape (resamples, passes).
    """

    samples: FloatArray
    passes: FloatArray


def resample_table(
    samples: int, label: NDArray[np.int_], resamples: int, seed: int
) -> Iterable[Draws]:
    """Return resamples of samples and of passes, a chunk at a time.

    They depend on the table's shape alone. The rows of a comparison mostly share it, so that the
    last draws are kept.

    Args:
        samples: Number of samples.
        label: Process of each pass.
        resamples: Number of resamples.
        seed: Seed of the drawing.
    """
    if resamples * (samples + len(label)) > _MOST_KEPT:
        return _draw_table(samples, label, resamples, seed)
    return _kept_table(samples, tuple(label.tolist()), resamples, seed)


def resample_each(sizes: Sequence[int], resamples: int, seed: int) -> Iterable[FloatArray]:
    """Return `resample_counts` for each of several numbers of items, drawn one after the other.

    Args:
        sizes: Numbers of items.
        resamples: Resamples of each.
        seed: Seed of the drawing.
    """
    if resamples * sum(sizes) > _MOST_KEPT:
        generator = np.random.default_rng(seed)
        return (resample_counts(generator, n, resamples) for n in sizes)
    return _kept_counts(tuple(sizes), resamples, seed)


@lru_cache(maxsize=4)
def _kept_table(
    samples: int, label: tuple[int, ...], resamples: int, seed: int
) -> tuple[Draws, ...]:
    return tuple(_draw_table(samples, np.array(label), resamples, seed))


@lru_cache(maxsize=4)
def _kept_counts(sizes: tuple[int, ...], resamples: int, seed: int) -> tuple[FloatArray, ...]:
    generator = np.random.default_rng(seed)
    return tuple(resample_counts(generator, n, resamples) for n in sizes)


def _draw_table(
    samples: int, label: NDArray[np.int_], resamples: int, seed: int
) -> Iterator[Draws]:
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        of_samples = resample_counts(generator, samples, count)
        yield Draws(of_samples, resample_passes(generator, label, count))


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
