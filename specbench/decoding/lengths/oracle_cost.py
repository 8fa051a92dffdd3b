"""The length that would be best if acceptance and costs stayed what they were."""

from __future__ import annotations

import math
import time
from statistics import median

import torch
from torch import Tensor

from specbench.cache import Cache
from specbench.decoding.lengths.base import LengthPolicy
from specbench.decoding.lengths.confidence import check_cap
from specbench.errors import ConfigError
from specbench.law import Law, draw
from specbench.models.base import Model, View
from specbench.models.pair import ModelPair

_PREFIX = 64
_DRAFTED = 4
_TIMINGS = 15
_WARM_UPS = 2
_GRID = 1.1
_UNMEASURED = 0.25


class OracleCost(LengthPolicy):
    """Pick the draft length g that maximises the expected speedup.

    With acceptance probability a of every draft token and c the cost of a draft step in target
    steps, a round of g draft tokens emits (1 - a^(g+1)) / (1 - a) tokens and costs g c + 1 target
    steps (Leviathan et al. 2023, Theorem 3.8). The policy maximises their ratio.

    a is estimated from finished rounds: of the draft tokens that were reached by the verifier,
    the share that was accepted. Early rounds fade, and the estimate starts from a few imagined
    tokens, so that one rejection does not settle it.

    c is the ratio of two times, measured once before anything is timed, behind 64 cached tokens: a
    draft step with its draw, and a verification of four draft tokens. It is rounded to steps of
    10 %, so that two runs mostly agree on it.

    The length of a round depends on finished rounds and on clock readings, never on the present
    draft's verdict: any exact verifier stays exact. Which random numbers meet which token depends
    on the length, so a sampled run is repeatable to the last token only where the measured c is
    the same; give `cost_ratio` to fix it.

    Args:
        max_length: Most tokens of a round.
        cost_ratio: c; None measures it.
        fading: Weight of each earlier round against the one after it, in (0, 1].
        first_acceptance: The estimate before the first round, in (0, 1).
        first_weight: How many draft tokens that estimate counts for.

    Raises:
        ConfigError: If a value is out of range.
    """

    def __init__(
        self,
        max_length: int = 16,
        cost_ratio: float | None = None,
        fading: float = 0.9,
        first_acceptance: float = 0.7,
        first_weight: float = 4.0,
    ) -> None:
        check_cap(max_length)
        if cost_ratio is not None and not 0 < cost_ratio < math.inf:
            raise ConfigError(
                f"A cost ratio of {cost_ratio:g} is not possible",
                "It is the time of a draft step in target steps",
                "Choose a number above 0, or null to measure it.",
            )
        if not (0 < fading <= 1 and 0 < first_acceptance < 1 and first_weight > 0):
            raise ConfigError(
                f"An acceptance estimate with fading {fading:g}, first acceptance "
                f"{first_acceptance:g} and first weight {first_weight:g} is not possible",
                "It is a weighted share of accepted tokens",
                "Choose fading in (0, 1], first acceptance in (0, 1) and a weight above 0.",
            )
        self._max_length = max_length
        self._given = cost_ratio
        self._cost_ratio = _UNMEASURED if cost_ratio is None else cost_ratio
        self._fading = fading
        self._accepted, self._reached = first_acceptance * first_weight, first_weight
        self._choose()

    @property
    def cost_ratio(self) -> float:
        """Time of a draft step in target steps; a guess of 0.25 until it is measured."""
        return self._cost_ratio

    def prepare(self, models: ModelPair) -> None:
        """Measure the cost ratio where it is not given and the pair has a draft model."""
        if self._given is None and models.draft is not None:
            self._cost_ratio = measured_cost_ratio(models.draft, models.target)
            self._choose()

    def _choose(self) -> None:
        self._length = best_length(self.acceptance, self._cost_ratio, self._max_length)

    @property
    def acceptance(self) -> float:
        """The running estimate of the probability that a draft token is accepted."""
        return self._accepted / self._reached

    def limit(self) -> int:
        """Return the length that the present estimates call for."""
        return self._length

    def update(self, proposed: int, accepted: int) -> None:
        """Count the tokens that the verifier reached; what follows a rejection was not tested."""
        if proposed == 0:
            return
        self._accepted = self._fading * self._accepted + accepted
        self._reached = self._fading * self._reached + min(accepted + 1, proposed)
        self._choose()


def expected_speedup(acceptance: float, length: int, cost_ratio: float) -> float:
    """Return emitted tokens per round over its cost in target steps.

    Args:
        acceptance: Probability that a draft token is accepted, in [0, 1].
        length: Draft tokens of a round.
        cost_ratio: Time of a draft step in target steps.
    """
    emitted = sum(acceptance**depth for depth in range(length + 1))
    return emitted / (length * cost_ratio + 1)


def best_length(acceptance: float, cost_ratio: float, max_length: int) -> int:
    """Return the draft length from 1 to `max_length` of the largest expected speedup.

    The expected speedup rises to its maximum and falls after it, so the search stops at the first
    length that gains nothing.
    """
    length, speedup = 1, expected_speedup(acceptance, 1, cost_ratio)
    while length < max_length:
        longer = expected_speedup(acceptance, length + 1, cost_ratio)
        if longer <= speedup:
            break
        length, speedup = length + 1, longer
    return length


def measured_cost_ratio(draft: Model, target: Model) -> float:
    """Time a step of each model in turns and return the ratio of the medians, in steps of 10 %."""
    steps = _draft, _verify
    caches = []
    for model in (draft, target):
        cache = model.new_cache(1, _PREFIX + _DRAFTED + 1)
        model.forward(_filled(model, _PREFIX, model.word), cache, View(last=1))
        caches.append(cache)
    for _ in range(_WARM_UPS):
        for model, cache, step in zip((draft, target), caches, steps, strict=True):
            step(model, cache)
            cache.truncate([_PREFIX])
    for model in (draft, target):
        model.settle()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(_TIMINGS):
        for model, cache, step, spent in zip((draft, target), caches, steps, times, strict=True):
            _wait(model.device)
            began = time.perf_counter()
            step(model, cache)
            _wait(model.device)
            spent.append(time.perf_counter() - began)
            cache.truncate([_PREFIX])
    ratio = median(times[0]) / _DRAFTED / median(times[1])
    return float(_GRID ** round(math.log(ratio, _GRID)))


def _draft(model: Model, cache: Cache) -> None:
    token = _filled(model, 1)
    for _ in range(_DRAFTED):
        logits = model.forward(token, cache, View(last=1))
        token = draw(Law().probabilities(logits), 0.5)


def _verify(model: Model, cache: Cache) -> None:
    Law().probabilities(model.forward(_filled(model, _DRAFTED + 1), cache))


def _filled(model: Model, count: int, token: int = 0) -> Tensor:
    return torch.full((1, count), token, device=model.device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
