"""What a node rule is given and what it must answer.

A node rule decides, at one node of a draft tree, which of the offered children is kept, and from
which law the next token comes where none is. Because the verification walk looks at the target's
law only at the nodes that it visits, a method on trees is exact as soon as its rule is: at a
single node, the emitted token must have the target's law.

Rules judge many nodes at once. The same code serves one visited node on a CPU and all nodes of a
tree on a GPU.

Shapes: M nodes, K most offers at one of them, P draws records, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from specbench.choices import BY_NUMBER, Choices
from specbench.decoding.tree import DrawKind
from specbench.models.pair import ModelPair


class Offers(NamedTuple):
    """The children that were drawn at each node, in draw order.

    Attributes:
        tokens: [M, K] int64 offered tokens.
        valid: [M, K] bool, False behind a node's last offer.
        records: [M, K] int64, the record that each offer was drawn by; 0 where there is none.
        laws: [P, V] the law of each record, or None.
        mixed: Whether some node's offers come from several records.
        choices: Decides what is drawn.
    """

    tokens: Tensor
    valid: Tensor
    records: Tensor
    laws: Tensor | None
    mixed: bool
    choices: Choices = BY_NUMBER

    def law(self, index: int, dtype: torch.dtype) -> Tensor:
        """Return the law that offer `index` of each node was drawn from, [M, V]."""
        assert self.laws is not None
        return self.laws[self.records[:, index]].to(dtype)


class Judgement(NamedTuple):
    """What a rule decided.

    Attributes:
        accepted: [M] int64 index of the accepted offer, -1 where none is.
        leftover: [M, V] law of the next token where none is, up to a factor.
    """

    accepted: Tensor
    leftover: Tensor


class NodeRule:
    """Judges the offers of nodes.

    Attributes:
        needs: What the model pair must have, such as "image" for a rule over codebooks.
        kinds: How children may have been drawn for the rule to hold.
        follows: Whether a token drawn from the leftover law that equals a child is a step into
            that child.
        lenience: Divides the acceptance of a deterministic child; 1 for exact rules.
    """

    needs: frozenset[str] = frozenset()
    kinds: frozenset[DrawKind]
    follows: bool = False
    lenience: float = 1.0

    def prepare(self, models: ModelPair) -> None:
        """Look at the loaded models once, before anything is timed."""

    def judge(self, target: Tensor, offers: Offers, uniforms: Tensor) -> Judgement:
        """Decide at each node.

        Args:
            target: [M, V] the target's law at each node.
            offers: What was drawn there.
            uniforms: [M, K] independent numbers in [0, 1), one for each offer.
        """
        raise NotImplementedError


def normalised(weights: Tensor, otherwise: Tensor) -> Tensor:
    """Return weights [M, V] divided by their sum, and other laws where the sum is zero.

    A residual without mass means that the two laws agree to the last bit; a rejection has
    probability zero there, and the other law keeps the walk from drawing out of nothing.
    """
    mass = weights.sum(-1, keepdim=True)
    return torch.where(mass > 0, weights / mass, otherwise)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return numerator / denominator, and 0 where the denominator is not positive."""
    return torch.where(denominator > 0, numerator / denominator, 0.0)
