"""Maximum mean discrepancy with KID's kernel: the arithmetic of KID, apart from any features.

k(x, y) = (x.y / D + 1)^3 and the unbiased estimator of the squared discrepancy (Binkowski et al.,
2018, section 4; Gretton et al., 2012, equation 3). Published scores average this estimator over
random subsets of at most 1,000 pictures; here it is computed once from all pictures, which has the
same expectation, less variance, and no randomness. The standard error is the jackknife over the
generated pictures, with the reference held fixed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_ROWS = 1024


class KernelEstimate(NamedTuple):
    """A squared discrepancy.

    Attributes:
        value: The unbiased estimate; below zero by chance where the sets agree.
        error: Jackknife standard error over the generated pictures; None below three of them.
    """

    value: float
    error: float | None


def kernel_sums(x: Floats, y: Floats) -> Floats:
    """Return, for each row of x [n, D], the sum of the kernel over all rows of y [m, D]: [n]."""
    parts = []
    for start in range(0, len(x), _ROWS):
        part = x[start : start + _ROWS] @ y.T
        part /= x.shape[1]
        part += 1.0
        parts.append((part * part * part).sum(axis=1))  # far faster than a power
    return np.concatenate(parts)


def own_sums(x: Floats) -> Floats:
    """Return, for each row of x [n, D], the sum of the kernel over all *other* rows: [n]."""
    own: Floats = kernel_sums(x, x) - ((x * x).sum(axis=1) / x.shape[1] + 1.0) ** 3
    return own


def kernel_distance(
    generated: Floats, reference: Floats, reference_term: float | None = None
) -> KernelEstimate:
    """Return the squared discrepancy between two sets of features.

    Args:
        generated: [n, D], n at least 2.
        reference: [m, D], m at least 2.
        reference_term: `mean_within(reference)`, where it is at hand.
    """
    n, m = len(generated), len(reference)
    assert n > 1 and m > 1, (n, m)
    within = own_sums(generated)
    across = kernel_sums(generated, reference)
    term = mean_within(reference) if reference_term is None else reference_term
    value = within.sum() / (n * (n - 1)) - 2.0 * across.sum() / (n * m) + term
    error = None
    if n > 2:
        left_within = (within.sum() - 2.0 * within) / ((n - 1) * (n - 2))
        left_across = (across.sum() - across) / ((n - 1) * m)
        left_out = left_within - 2.0 * left_across
        error = float(np.sqrt((n - 1) / n * np.square(left_out - left_out.mean()).sum()))
    return KernelEstimate(float(value), error)


def mean_within(features: Floats) -> float:
    """Return the mean kernel between different rows of features [m, D]."""
    m = len(features)
    return float(own_sums(features).sum() / (m * (m - 1)))
