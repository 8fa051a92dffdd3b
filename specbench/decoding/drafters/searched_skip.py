"""Self-drafting with the set of skipped sublayers that an offline search found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

from specbench.decoding.calibrated import Calibrating
from specbench.decoding.drafters.self_skip import SelfSkip, given_skip
from specbench.decoding.ledger import Generation
from specbench.decoding.search.bayesian import BayesianSearch
from specbench.decoding.search.sublayers import Sublayers, alternating
from specbench.errors import ConfigError
from specbench.models.base import LayerSkip


class Speed(NamedTuple):
    """How fast a set of skipped sublayers decodes.

    Attributes:
        speedup: Tokens after the first for each time of a verification.
        acceptance_rate: Share of the drafted tokens that were accepted.
        draft_cost: Time of a draft step over that of a verification.
    """

    speedup: float
    acceptance_rate: float
    draft_cost: float


class SearchedSkip(SelfSkip):
    """Skip the sublayers that decode fastest by a Bayesian search over 2 L binary choices.

    Zhang et al. 2024, "Draft & Verify", section 3.2; the settings are those of the release
    (github.com/dilab-zju/self-speculative-decoding, searching.py and search.ipynb): coordinates
    above one half are skipped, the objective is tokens per second over a few prompts of 32 new
    tokens, the search starts from sets that are known to be sound.

    The release times whole calls. Here time is put together from the medians of a round's parts,
    draft steps and verification, and counted in verifications, which cost the same whatever is
    skipped: tokens per second up to a factor, in which another process that slows the machine
    down for a while does not decide the search.

    Without a calibration, as in tests, every second block is skipped.

    Args:
        attention: Blocks whose attention is left out; None to use a calibration.
        feed_forward: Blocks whose feed-forward part is left out; None to use a calibration.
        calibration: A calibration file; None to look one up.
        iterations: Sets that a calibration tries.
        new_tokens: Tokens that it decodes of each prompt.

    Raises:
        ConfigError: If a number is out of its range.
    """

    calibration_name = "skipped_sublayers"

    def __init__(
        self,
        attention: Sequence[int] | None = None,
        feed_forward: Sequence[int] | None = None,
        calibration: str | None = None,
        iterations: int = 1000,
        new_tokens: int = 32,
    ) -> None:
        super().__init__(attention, feed_forward)
        if iterations < 1 or new_tokens < 2:
            raise ConfigError(
                f"A search of {iterations} sets with {new_tokens} new tokens is not possible",
                "every set decodes at least one round",
                "Choose at least 1 iteration and 2 new tokens.",
            )
        self.calibration_path = calibration
        self.needs_calibration = attention is None
        self._iterations = iterations
        self._new_tokens = new_tokens

    def use(self, values: Mapping[str, Any]) -> None:
        """Skip what a calibration found.

        Raises:
            ConfigError: If the values name no sublayers.
        """
        try:
            self._given = given_skip(values["attention"], values["feed_forward"])
        except (KeyError, TypeError) as error:
            raise ConfigError(
                "The calibration names no skipped sublayers",
                f"{type(error).__name__}: {error}",
                "Make it again with specbench calibrate.",
            ) from error

    def work(self, limits: Sequence[int]) -> int:
        """Return how many tokens `calibrate` decodes at most: some of each for every set."""
        return self._iterations * sum(min(self._new_tokens, limit) for limit in limits)

    def calibrate(self, context: Calibrating) -> dict[str, Any]:
        """Search for the fastest set and return it with what was measured of it."""
        before = self._given
        layers = context.models.target.layers
        space = Sublayers.of_all(layers)
        search = BayesianSearch(space.count)
        upper_attention = LayerSkip(attention=frozenset(range(layers // 2, layers - 1)))
        starts = [space.point(skip) for skip in (alternating(layers), upper_attention)]
        known: dict[LayerSkip, Speed] = {}
        try:
            for _ in range(self._iterations):
                point = starts.pop() if starts else search.ask()
                skip = space.above_half(point)
                if skip not in known:
                    known[skip] = self._measure(context, skip)
                search.tell(point, known[skip].speedup)
        finally:
            self._given = before
        best = max(known, key=lambda skip: known[skip].speedup)
        speed = known[best]
        return {
            "attention": sorted(best.attention),
            "feed_forward": sorted(best.feed_forward),
            "speedup": round(speed.speedup, 4),
            "acceptance_rate": round(speed.acceptance_rate, 4),
            "draft_cost": round(speed.draft_cost, 4),
            "sets_tried": len(known),
            "iterations": self._iterations,
        }

    def _measure(self, context: Calibrating, skip: LayerSkip) -> Speed:
        self._given = skip
        generations = []
        for request in context.requests:
            limit = min(self._new_tokens, request.max_new_tokens)
            shorter = replace(request, max_new_tokens=limit)
            context.models.settle()
            generations.append(context.generate(context.decoder, shorter))
        return speed_of(generations)


def speed_of(generations: Sequence[Generation]) -> Speed:
    """Return tokens per time of a verification, from the medians of the parts of a round.

    Raises:
        ConfigError: If there is no round with a draft.
    """
    rounds = [r for generation in generations for r in generation.rounds[1:]]
    drafting = [r for r in rounds if r.count.draft.forwards]
    if not drafting:
        raise ConfigError(
            "The calibration samples gave no round with a draft",
            "the answers are too short",
            "Calibrate on longer answers (max_new_tokens).",
        )
    step = median(r.draft_ns / r.count.draft.forwards for r in drafting)
    verification = median(r.target_ns + r.host_ns + (r.sampling_ns or 0) for r in rounds)
    steps = sum(r.count.draft.forwards for r in drafting)
    cost = step / max(verification, 1)
    return Speed(
        speedup=sum(r.count.emitted for r in rounds) / (len(rounds) + steps * cost),
        acceptance_rate=sum(r.count.accepted for r in drafting)
        / sum(r.count.proposed for r in drafting),
        draft_cost=cost,
    )
