"""The kernel distance: torchmetrics' value, no bias on a small world, and the jackknife."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from specbench.metrics import kernel
from specbench.metrics.kernel import kernel_distance, mean_within


def draw(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 6)) + shift


def test_it_equals_torchmetrics_for_sets_of_one_size() -> None:
    from torchmetrics.image.kid import poly_mmd

    a, b = draw(40, 0), draw(40, 1, 0.3)
    expected = poly_mmd(torch.from_numpy(b), torch.from_numpy(a)).item()
    assert kernel_distance(a, b).value == pytest.approx(expected, rel=1e-10)


def test_it_equals_the_definition_for_sets_of_different_sizes() -> None:
    a, b = draw(5, 2), draw(7, 3, 0.5)

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 6 + 1) ** 3)

    within = np.mean([k(x, y) for x, y in itertools.permutations(a, 2)])
    beyond = np.mean([k(x, y) for x, y in itertools.permutations(b, 2)])
    across = np.mean([k(x, y) for x, y in itertools.product(a, b)])
    assert kernel_distance(a, b).value == pytest.approx(within + beyond - 2 * across, rel=1e-10)
    assert mean_within(b) == pytest.approx(beyond, rel=1e-10)
    assert kernel_distance(a, b, beyond).value == kernel_distance(a, b).value


def test_parts_of_the_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = draw(23, 4), draw(31, 5)
    whole = kernel_distance(a, b)
    monkeypatch.setattr(kernel, "_ROWS", 4)
    assert kernel_distance(a, b).value == pytest.approx(whole.value, rel=1e-12)


def test_it_is_unbiased_exactly() -> None:
    # Every sample of three from a world of three points, each with its probability: the mean of
    # the estimates is the true discrepancy, which is 0 between a world and itself.
    points = np.array([[0.0, 1.0], [2.0, -1.0], [1.0, 1.0]])

    def expectation(source: np.ndarray, reference: np.ndarray) -> float:
        ways = itertools.product(range(3), repeat=3)
        return float(
            np.mean(
                [
                    kernel_distance(source[list(way)], reference[list(other)]).value
                    for way in ways
                    for other in itertools.product(range(3), repeat=2)
                ]
            )
        )

    assert expectation(points, points) == pytest.approx(0.0, abs=1e-10)
    moved = points + 1.0
    gram = ((np.concatenate([points, moved]) @ np.concatenate([points, moved]).T) / 2 + 1) ** 3
    true = gram[:3, :3].mean() + gram[3:, 3:].mean() - 2 * gram[:3, 3:].mean()
    assert expectation(moved, points) == pytest.approx(true, rel=1e-9)


def test_the_diagonal_would_bias_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "own_sums", lambda x: kernel.kernel_sums(x, x))
    with pytest.raises(AssertionError):
        test_it_is_unbiased_exactly()


def test_the_error_is_the_jackknife() -> None:
    a, b = draw(9, 6, 0.2), draw(12, 7)
    left_out = [kernel_distance(np.delete(a, row, axis=0), b).value for row in range(9)]
    spread = np.square(np.array(left_out) - np.mean(left_out)).sum()
    assert kernel_distance(a, b).error == pytest.approx(np.sqrt(8 / 9 * spread), rel=1e-9)
    assert kernel_distance(a[:2], b).error is None


def test_the_error_covers_the_spread_of_estimates() -> None:
    # Seeded; sets that differ, where the jackknife is consistent.
    reference = draw(400, 8)
    estimates = [kernel_distance(draw(60, 100 + seed, 0.6), reference) for seed in range(60)]
    spread = float(np.std([estimate.value for estimate in estimates]))
    error = float(np.mean([estimate.error or 0.0 for estimate in estimates]))
    assert 0.7 < error / spread < 1.4
