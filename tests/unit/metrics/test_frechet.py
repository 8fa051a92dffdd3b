"""The arithmetic of Frechet distances against closed forms and against clean-fid's own."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from specbench.metrics.frechet import Gaussian, fit, frechet_distance, root


def draw(n: int, width: int, seed: int) -> np.ndarray:
    source = np.random.default_rng(seed)
    mixed: np.ndarray = source.standard_normal((n, width)) @ source.standard_normal((width, width))
    return mixed + source.standard_normal(width)


def test_diagonal_gaussians_have_a_closed_form() -> None:
    a = Gaussian(np.array([1.0, 2.0, 0.0]), np.diag([4.0, 1.0, 9.0]), None)
    b = Gaussian(np.array([0.0, 2.0, 2.0]), np.diag([1.0, 1.0, 16.0]), None)
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + 1 + 0 + 1, abs=1e-9)


def test_two_rotated_gaussians_have_a_closed_form() -> None:
    # Covariances that commute: the distance is that of the roots of the eigenvalues.
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))
    first, second = np.array([1.0, 4.0, 9.0, 0.0]), np.array([4.0, 4.0, 1.0, 0.25])
    a = Gaussian(np.zeros(4), turn @ np.diag(first) @ turn.T, None)
    b = Gaussian(np.zeros(4), turn @ np.diag(second) @ turn.T, None)
    expected = np.square(np.sqrt(first) - np.sqrt(second)).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-9)


def test_equal_sets_are_at_distance_zero() -> None:
    features = draw(200, 16, 0)
    assert frechet_distance(fit(features), fit(features)) == pytest.approx(0.0, abs=1e-8)
    assert frechet_distance(fit(features), fit(features[::-1])) == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("width", [2, 24])
def test_it_equals_the_function_of_clean_fid(width: int) -> None:
    from cleanfid.fid import frechet_distance as published

    a, b = draw(300, width, 1), draw(250, width, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        expected = published(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))
    assert frechet_distance(fit(a), fit(b)) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(fit(a), fit(b), root(fit(b).covariance)) == pytest.approx(expected)


def test_fewer_pictures_than_features_do_not_break_it() -> None:
    a, b = draw(5, 40, 3), draw(6, 40, 4)
    forward, back = frechet_distance(fit(a), fit(b)), frechet_distance(fit(b), fit(a))
    assert np.isfinite(forward) and forward > 0
    assert forward == pytest.approx(back, rel=1e-9)


def test_the_root_is_one() -> None:
    covariance = fit(draw(8, 12, 5)).covariance
    assert root(covariance) @ root(covariance).T == pytest.approx(covariance, abs=1e-9)
