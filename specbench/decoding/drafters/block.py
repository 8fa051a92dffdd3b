"""Drafts of which every token is drawn without a look at the others: one forward for all.

A block drafter gives a law for each depth before anything is drawn. A chain is then drawn at
once; a tree grows from the same laws, one for each level.

Shapes: K depths, n nodes of one call, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from specbench.decoding.drafters.base import Plan
from specbench.decoding.growth import Growth
from specbench.decoding.session import Session
from specbench.decoding.tree import DraftTree, DrawKind, Draws, TreeMask
from specbench.law import History, Law
from specbench.rng import Purpose
from specbench.transfer import to_device


class Block:
    """The logits of one block, which a draft grows from; see `decoding.ground.Ground`.

    Args:
        logits: [K, V]; row d is the guess at depth d + 1, whatever stands before it.
        law: What drafts are drawn from.
        history: The committed tokens, as far as the law needs them.
    """

    def __init__(self, logits: Tensor, law: Law, history: History) -> None:
        self.logits = logits
        self.law = law
        self.history = history
        self.device: torch.device = logits.device
        self._depth = 0

    def plant(self, committed: Sequence[int]) -> Tensor:
        """Return the first row."""
        return self.logits[:1]

    def feed(self, tokens: Tensor, parents: Tensor | None, mask: TreeMask | None) -> Tensor:
        """Return the row behind each node's depth; nothing is computed."""
        if mask is not None:
            return self.logits[mask.offsets[-tokens.shape[0] :]]
        self._depth += 1
        return self.logits[self._depth, None]

    def keep(self, slots: Sequence[int]) -> None:
        """Keep nothing: a node has no state."""

    def grow(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return the draft that the plan's topology makes of the block.

        A chain is drawn at once, unless its laws look at its tokens (a repetition penalty) or its
        length policy looks at the laws.
        """
        depth = self.logits.shape[0]
        if plan.topology.several or plan.length.watches or self.law.needs_history:
            return plan.topology.grow(
                Growth(self, session, plan.length, depth, plan.topology.nodes)
            )
        if self.law.greedy:
            return DraftTree.chain(self.law.argmax(self.logits)[None], Draws(DrawKind.POINT))
        laws = self.law.probabilities(self.logits)
        numbers = session.request.streams.uniforms(len(session.committed), depth, Purpose.DRAFT)
        uniforms = to_device(numbers, self.device, torch.float64)
        tokens = session.request.choices.draw(laws, uniforms)
        parents = tuple(range(-1, depth - 1))
        draws = Draws(DrawKind.WITH_REPLACEMENT, parents, laws[None])
        return DraftTree.chain(tokens[None], draws)
