"""What a length policy answers.

A policy that looks at the target (say, to stop because the token would be rejected) breaks
exactness; the protocol gives it draft information only.

A policy that keeps the token may look at it: whether a further token is drafted says nothing about
the ones that are proposed. One that drops it must decide by the law alone, before the draw;
leaving tokens out for what they are would change the law of the ones that remain.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Self

from torch import Tensor

if TYPE_CHECKING:
    from specbench.models.pair import ModelPair


class LengthPolicy:
    """Decides how many tokens a chain drafter proposes, and how deep a tree may grow.

    Attributes:
        watches: Whether it must be asked about each token. A policy that does not watch costs no
            device synchronisation.
        keep_last: Whether the token of the law that says stop is still drawn and proposed.
        raw: Whether it judges the draft's softmax, at temperature 1 and with nothing cut off,
            and not the law that tokens are drawn from. The two are one at temperature 0, where
            a point mass would say nothing, and at temperature 1 without a cut.
    """

    watches: bool = False
    keep_last: bool = True
    raw: bool = False

    def prepare(self, models: ModelPair) -> None:
        """Look at the loaded models once, before anything is timed."""

    def begin(self) -> Self:
        """Return a copy that follows one request and may learn from it."""
        return copy(self)

    def limit(self) -> int:
        """Return the most tokens to draft in this round."""
        raise NotImplementedError

    def measure(self, law: Tensor, token: Tensor | None) -> Tensor:
        """Return the number that decides, as a tensor without dimensions: one look at the device.

        Args:
            law: [1, V] the law after the draft so far.
            token: [1] the token drawn next, or None where the policy may drop it.
        """
        raise NotImplementedError

    def ends(self, measured: float) -> bool:
        """Say whether the draft ends here; asked once for every token, in order."""
        return False

    def update(self, proposed: int, accepted: int) -> None:
        """Learn how many of the proposed tokens were accepted."""
