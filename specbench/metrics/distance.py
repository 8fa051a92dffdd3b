"""Frechet and kernel distances as metrics: features, a reference, and the floor of real pictures.

FID: Heusel et al., 2017. KID: Binkowski et al., 2018. What moves either number (network, weights,
resize filter, reference, n) is part of the protocol that stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from specbench.errors import ConfigError
from specbench.metrics.base import Better, CorpusValue, Picture
from specbench.metrics.cached import cached, key_of
from specbench.metrics.features import Features
from specbench.metrics.frechet import Floats, fit, frechet_distance, root
from specbench.metrics.kernel import kernel_distance, mean_within
from specbench.metrics.references import TRIALS, Pool, Reference, open_reference
from specbench.metrics.weights import option

REFERENCE_COUNT = 10_000


class _Distance:
    """What both distances share: features of the pictures against a pool.

    Args:
        name: The metric's id.
        features: The extractor.
        reference: "world", a folder of pictures or an `.npz` file of statistics.
        reference_count: How many renders "world" draws at least.
    """

    version = 1
    unit = ""
    better: Better = "lower"
    kind = ""

    def __init__(
        self,
        name: str,
        features: Features,
        reference: str | None = None,
        reference_count: int = REFERENCE_COUNT,
    ) -> None:
        if reference_count < 2:
            raise ConfigError(
                f"{option(name, 'reference_count')} is {reference_count}", "it must be at least 2"
            )
        self.name = name
        self._features = features
        self._reference: Reference = open_reference(reference, reference_count)
        against = reference or "no reference"
        self.protocol = f"{self.kind} of {features.protocol}; reference {against}"

    def prepare(self) -> None:
        """Look for the reference, then load the network."""
        self._reference.prepare(self.name)
        self._features.prepare(self.name)

    def _measured(self, pictures: Sequence[Picture]) -> tuple[Floats, Pool]:
        features = self._features.extract(picture.pixels for picture in pictures)
        return features, self._reference.pool(self._features, pictures)

    def _too_few(self, pictures: Sequence[Picture]) -> CorpusValue | None:
        if len(pictures) >= 2:
            return None
        detail = {"note": "a distance takes at least two pictures"}
        return CorpusValue(float("nan"), len(pictures), None, None, "", detail)


class FrechetDistance(_Distance):
    """Frechet distance between the features of generated and of real pictures."""

    kind = "Frechet distance"

    def measure(self, pictures: Sequence[Picture]) -> CorpusValue:
        """Return the distance, with the mean distance of n real pictures as its floor."""
        if (few := self._too_few(pictures)) is not None:
            return few
        features, pool = self._measured(pictures)
        n = len(features)
        value = frechet_distance(fit(features), pool.statistics)
        reached = cached(key_of("frechet floor", pool.digest, n), lambda: _frechet_trials(pool, n))
        detail: dict[str, Any] = {
            "features": features.shape[1],
            "floor": pool.floor,
            "floor_n": _floor_n(pool, n),
            "floor_deviation": float(np.std(reached, ddof=1)),
        }
        if n <= features.shape[1]:
            detail["warning"] = (
                f"{n} pictures for {features.shape[1]} features: the covariance is singular and "
                "the distance far above that of many pictures"
            )
        return CorpusValue(value, n, float(np.mean(reached)), None, pool.words, detail)


class KernelDistance(_Distance):
    """Squared maximum mean discrepancy between the features of generated and of real pictures.

    Its expectation does not depend on n, and is 0 for real pictures; its floor is therefore the
    root mean square of what real pictures reach by chance.
    """

    kind = "Unbiased polynomial kernel distance (all pairs)"

    def measure(self, pictures: Sequence[Picture]) -> CorpusValue:
        """Return the squared discrepancy with its jackknife error.

        Raises:
            ConfigError: If the reference has statistics but no features.
        """
        if (few := self._too_few(pictures)) is not None:
            return few
        features, pool = self._measured(pictures)
        if pool.features is None:
            raise ConfigError(
                f"{self.name} needs the features of the reference",
                f"there are only {pool.words}",
                f"Give a folder: {option(self.name, 'reference')}=PATH",
            )
        known = pool.features
        within = cached(
            key_of("kernel within", pool.digest), lambda: np.array(mean_within(known))
        ).item()
        estimate = kernel_distance(features, known, within)
        n = len(features)
        reached = cached(
            key_of("kernel floor", pool.digest, n), lambda: _kernel_trials(pool, n, within)
        )
        detail = {
            "features": features.shape[1],
            "floor": pool.floor.replace("mean of", "root mean square over"),
            "floor_n": _floor_n(pool, n),
        }
        floor = float(np.sqrt(np.mean(np.square(reached))))
        return CorpusValue(estimate.value, n, floor, estimate.error, pool.words, detail)


def _floor_n(pool: Pool, n: int) -> int:
    return n if pool.most is None else min(n, pool.most)


def _frechet_trials(pool: Pool, n: int) -> Floats:
    shared = None
    reached = []
    for trial in pool.trials(n):
        if trial.statistics is pool.statistics and shared is None:
            shared = root(pool.statistics.covariance)
        own = shared if trial.statistics is pool.statistics else None
        reached.append(frechet_distance(fit(trial.real), trial.statistics, own))
    return np.array(reached)


def _kernel_trials(pool: Pool, n: int, within: float) -> Floats:
    reached = []
    for trial in pool.trials(n):
        assert trial.features is not None
        known = within if trial.features is pool.features else None
        reached.append(kernel_distance(trial.real, trial.features, known).value)
    assert len(reached) == TRIALS
    return np.array(reached)
