"""One round of a Jacobi window, as its parts see it.

Shapes: M drafts in the window, V vocabulary. Column j stands at absolute position
`position + j`; columns 0 to M - 1 hold drafts, column M holds none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from specbench.decoding.request import Request
from specbench.models.pair import ModelPair


@dataclass
class Trial:
    """Drafts, the laws that they were drawn from, and the target's laws after them.

    Attributes:
        models: The pair that decodes.
        request: Whose law and random streams apply.
        position: Absolute position of column 0.
        tokens: [M] the drafts.
        laws: [M + 1, V] the target's law at every column, given the drafts before it.
        old: [M + 1, V] the laws that the drafts were drawn from; a draft that was not drawn has
            a point mass, and the last row is zero because no draft stands there.
        ratio: [M] new over old probability of each draft.
        uniforms: [M] the numbers of this round's tests, one for each draft.
        draws: [M + 1] the numbers of this round's draws, one for each column.
        columns: [M + 1] 0 to M.
        exact: Whether `accepted` is the test of speculative sampling, probability min(1, ratio).
        accepted: [M] which drafts passed the acceptance rule.
        rejected: [1] the first column whose draft was rejected; M where all were accepted.
        weights: [M] factors w of the acceptance probability min(1, w p/q) where it was relaxed;
            None otherwise.
    """

    models: ModelPair
    request: Request
    position: int
    tokens: Tensor
    laws: Tensor
    old: Tensor
    ratio: Tensor
    uniforms: Tensor
    draws: Tensor
    columns: Tensor
    exact: bool = False
    accepted: Tensor = field(init=False)
    rejected: Tensor = field(init=False)
    weights: Tensor | None = None

    def correction(self) -> Tensor:
        """Return weights [1, V] of the token to commit at column `rejected`.

        The residual there; with weights w it is (p - min(q, w p))+, the law that keeps the
        output closest to the target, and the residual of speculative sampling where w >= 1.
        """
        laws = self.laws.index_select(0, self.rejected)
        old = self.old.index_select(0, self.rejected)
        if self.weights is not None:
            weight = self.weights.index_select(0, self.rejected.clamp(max=len(self.weights) - 1))
            old = torch.minimum(old, laws * weight[:, None])
        return residual(laws, old)


def residual(laws: Tensor, old: Tensor) -> Tensor:
    """Return weights of the law after a rejection, (p - q)+, row by row.

    Unnormalised, and never warped again. Nothing is added to them: a constant would give mass to
    tokens that the target forbids. Where nothing is left, which happens if p and q are equal in
    floating point, the weights are p.

    Args:
        laws: [R, V] p.
        old: [R, V] q; a row of zeros leaves p as it is.
    """
    weights = (laws - old).clamp_(min=0)
    empty = weights.sum(-1, keepdim=True) <= 0
    return weights.addcmul_(laws, empty.to(laws.dtype))
