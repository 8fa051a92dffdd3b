"""What a length policy answers.

A policy that looks at the target (say, to stop because the token would be rejected) breaks
exactness; the protocol gives it draft information only.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class LengthPolicy(Protocol):
    """Decides how many tokens a chain drafter proposes.

    Attributes:
        watches: Whether `should_stop` must be asked after each token. A policy that does not
            watch costs no device synchronisation.
    """

    watches: bool

    def reset(self) -> None:
        """Begin a new request."""

    def limit(self) -> int:
        """Return the most tokens to draft in this round."""

    def should_stop(self, law: Tensor) -> bool:
        """Say whether to stop after a token drawn from `law`, [B, V]; the token is kept."""

    def update(self, proposed: int, accepted: int) -> None:
        """Learn how many of the proposed tokens were accepted."""
