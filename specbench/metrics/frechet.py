"""Frechet distance between two Gaussians: the arithmetic of FID, apart from any features.

d(a, b) = |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) (Dowson and Landau, 1982; Heusel et al.,
2017, section 3). The trace of the root is the sum of the roots of the eigenvalues of
A^(1/2) B A^(1/2), which is symmetric: real and never negative, also where there are fewer pictures
than features and a general matrix root would fail or drift into complex numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Gaussian(NamedTuple):
    """Mean and covariance of features.

    Attributes:
        mean: [D].
        covariance: [D, D], with n - 1 in the denominator.
        n: From how many pictures it was estimated; None where nobody says.
    """

    mean: Floats
    covariance: Floats
    n: int | None


def fit(features: Floats) -> Gaussian:
    """Return mean and covariance of features [n, D], n at least 2."""
    assert features.ndim == 2 and len(features) > 1, features.shape
    mean = features.mean(axis=0)
    centred = features - mean
    return Gaussian(mean, centred.T @ centred / (len(features) - 1), len(features))


def root(covariance: Floats) -> Floats:
    """Return R [D, D] with R R^T = covariance; eigenvalues below zero are rounding and count 0."""
    values, vectors = np.linalg.eigh(covariance)
    scaled: Floats = vectors * np.sqrt(np.clip(values, 0.0, None))
    return scaled


def frechet_distance(a: Gaussian, b: Gaussian, root_b: Floats | None = None) -> float:
    """Return the Frechet distance of two Gaussians, at least zero up to rounding.

    Args:
        a: The one.
        b: The other.
        root_b: `root(b.covariance)`, where it is at hand.
    """
    assert a.mean.shape == b.mean.shape, (a.mean.shape, b.mean.shape)
    side = root(b.covariance) if root_b is None else root_b
    inner = side.T @ a.covariance @ side
    values = np.linalg.eigvalsh((inner + inner.T) / 2)
    shared = np.sqrt(np.clip(values, 0.0, None)).sum()
    difference = a.mean - b.mean
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    return float(difference @ difference + traces - 2.0 * shared)
