"""The same draft length in every round."""

from __future__ import annotations

from torch import Tensor


class Constant:
    """Always draft `draft_length` tokens (gamma in the papers).

    Args:
        draft_length: Tokens per round; at least one.
    """

    watches = False

    def __init__(self, draft_length: int) -> None:
        assert draft_length >= 1
        self._draft_length = draft_length

    def reset(self) -> None:
        """Nothing is remembered."""

    def limit(self) -> int:
        """Return the draft length."""
        return self._draft_length

    def should_stop(self, law: Tensor) -> bool:
        """Never stop early."""
        return False

    def update(self, proposed: int, accepted: int) -> None:
        """Nothing is learned."""
