"""How long assisted generation in transformers drafts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from specbench.decoding.lengths.confidence import ConfidenceStop
from specbench.decoding.lengths.heuristic import Heuristic

MISS_COST = 3.0
"""What ending a draft before a right token costs, in drafts of a wrong one."""

ENOUGH = 5
"""A threshold is fitted to more drafted tokens than these."""


class Assisted(ConfidenceStop):
    """End a draft below a confidence that is fitted anew after every round.

    The policy that assisted generation in transformers ships (read in 5.24,
    `generation/candidate_generator.py` and `configuration_utils.py`): up to 20 tokens, the draft
    ends with a token whose probability is below 0.4, and after every round that threshold becomes
    the one that would have separated the accepted from the rejected tokens of the request best, at
    fpr + 3 fnr. transformers fits only where scikit-learn is installed, else the threshold stays
    0.4. Tokens behind the first rejected one of a round are not looked at. Every request begins at
    0.4, as there, although the documentation there calls the threshold persistent.

    The number of tokens may follow the older schedule too, see `Heuristic`.

    Args:
        threshold: The first threshold, in [0, 1]; 0 neither stops nor fits.
        refit: Whether the threshold is fitted.
        draft_length: Most tokens of a request's first round.
        increase: Tokens added after a round whose draft was accepted in full.
        decrease: Tokens taken away after any other round.
        max_length: Most tokens of a round.

    Raises:
        ConfigError: If a value is out of range.
    """

    def __init__(
        self,
        threshold: float = 0.4,
        refit: bool = True,
        draft_length: int = 20,
        increase: int = 0,
        decrease: int = 0,
        max_length: int = 40,
    ) -> None:
        super().__init__(threshold, max_length)
        self._schedule = Heuristic(draft_length, increase, decrease, max_length)
        self._refit = refit and threshold > 0
        self._probabilities: list[float] = []
        self._accepted: list[bool] = []

    def begin(self) -> Self:
        """Return a copy with tokens of its own."""
        own = super().begin()
        own._schedule = self._schedule.begin()
        own._probabilities, own._accepted = [], []
        return own

    def limit(self) -> int:
        """Return the present length."""
        return self._schedule.limit()

    def ends(self, measured: float) -> bool:
        """Say whether the draft is unconfident, and remember how confident it was."""
        if self._refit:
            self._probabilities.append(measured)
        return super().ends(measured)

    def update(self, proposed: int, accepted: int) -> None:
        """Fit the threshold to all tokens of the request that were judged."""
        self._schedule.update(proposed, accepted)
        if not self._refit:
            return
        self._accepted += [True] * accepted
        if len(self._probabilities) > len(self._accepted):
            self._accepted.append(False)
        del self._probabilities[len(self._accepted) :]
        if len(self._probabilities) > ENOUGH and len(set(self._accepted)) == 2:
            self._threshold = best_threshold(self._probabilities, self._accepted)


def best_threshold(probabilities: Sequence[float], accepted: Sequence[bool]) -> float:
    """Return the probability from which on tokens should be drafted, at fpr + 3 fnr.

    fpr is the share of the rejected tokens that reach it, fnr the share of the accepted ones that
    do not. Of equally good ones the highest is returned.

    Args:
        probabilities: Of each drafted token.
        accepted: Whether it was; there is one of each kind at least.
    """
    order = np.argsort(-np.asarray(probabilities), kind="stable")
    values = np.asarray(probabilities)[order]
    right = np.asarray(accepted)[order].cumsum()
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    wrong = last + 1 - right[last]
    costs = wrong / wrong[-1] + MISS_COST * (1 - right[last] / right[-1])
    return float(values[last[int(costs.argmin())]])
