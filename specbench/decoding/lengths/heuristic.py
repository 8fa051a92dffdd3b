"""Longer after full acceptance, shorter after a rejection."""

from __future__ import annotations

from specbench.decoding.lengths.base import LengthPolicy
from specbench.errors import ConfigError


class Heuristic(LengthPolicy):
    """Add `increase` tokens after full acceptance, else take `decrease` away.

    The first schedule of assisted generation in transformers (Gante 2023; since
    `"heuristic_transient"` of `num_assistant_tokens_schedule`, read in
    `generation/candidate_generator.py` 5.24, whose default is `"constant"`): plus two, minus one,
    at least one token, from five tokens on. Here every request begins anew; the `"heuristic"`
    schedule there carries the length from one call to the next.

    The length of a round depends on finished rounds alone, so any exact verifier stays exact.

    Args:
        draft_length: Tokens of a request's first round.
        increase: Tokens added after a round whose draft was accepted in full.
        decrease: Tokens taken away after any other round.
        max_length: Most tokens of a round. transformers has no cap; the code of SVIP, which has
            this schedule as a baseline, caps it at 40.

    Raises:
        ConfigError: If a value is out of range.
    """

    def __init__(
        self, draft_length: int = 5, increase: int = 2, decrease: int = 1, max_length: int = 40
    ) -> None:
        if not 1 <= draft_length <= max_length:
            raise ConfigError(
                f"A first draft length of {draft_length} is not possible",
                f"A round proposes at least one token and at most 'max_length', {max_length}",
                f"Choose 1 to {max_length}, or raise 'max_length'.",
            )
        if increase < 0 or decrease < 0:
            raise ConfigError(
                f"Steps of +{increase} and -{decrease} tokens are not possible",
                "A draft length grows by 'increase' and shrinks by 'decrease'",
                "Choose 0 or more for both.",
            )
        self._increase = increase
        self._decrease = decrease
        self._max_length = max_length
        self._length = draft_length

    def limit(self) -> int:
        """Return the present length."""
        return self._length

    def update(self, proposed: int, accepted: int) -> None:
        """Lengthen or shorten the next draft; rounds without a draft say nothing."""
        if proposed == 0:
            return
        step = self._increase if accepted == proposed else -self._decrease
        self._length = min(max(self._length + step, 1), self._max_length)
