"""A block drafter behind the target's states drafts: one forward for a whole block.

As in the release (github.com/z-lab/dflash, dflash/model.py): the newest token and mask tokens, as
many as shall be guessed, are one block; the states of accepted tokens join the context, and the
block leaves the cache again. At temperature 0 the draft is the argmax at each mask. Above it, every
position is drawn from its own warped law and verified by speculative sampling; the first release
kept the argmax and compared it with the target's draws.
"""

from __future__ import annotations

from typing import cast

from specbench.clock import Segment
from specbench.decoding.drafters.base import Drafter, Drafting, Outcome, Plan, Prefill
from specbench.decoding.drafters.block import Block
from specbench.decoding.session import Role, Session
from specbench.decoding.tree import DraftTree
from specbench.models.heads.dflash import DFlashHead
from specbench.models.pair import ModelPair
from specbench.transfer import to_device


class BlockHeadDrafter(Drafter):
    """Draft from the pair's block drafter, under the target's sampling settings."""

    needs = frozenset({"head", "hidden_states", "features"})
    prompt_states = True

    def taps(self, models: ModelPair) -> tuple[int, ...]:
        """Return the states that the head reads."""
        return _head_of(models).taps

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Make the prompt the head's context."""
        head, role = _head_of(session.models), session.head()
        head.remember(prefill.hidden, role.cache)
        session.clock.lap(Segment.DRAFT)
        return _BlockDrafting(head, role)


class _BlockDrafting(Drafting):
    """One request's drafts; the cache holds every committed token but the newest as context."""

    def __init__(self, head: DFlashHead, role: Role) -> None:
        self._head = head
        self._role = role

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return the draft that the topology makes of one block."""
        head, role = self._head, self._role
        depth = min(plan.levels, head.block_size - 1)
        if depth < 1:
            return None
        session.clock.launch()
        tokens = [session.committed[-1], *[head.mask_token] * depth]
        logits = role.feed(to_device([tokens], head.device), last=depth)[0]
        role.cache.truncate([len(session.committed) - 1])
        return Block(logits, role.law, role.history).grow(session, plan)

    def observe(self, session: Session, outcome: Outcome) -> None:
        """Add the states of the root and of what was accepted to the context."""
        self._head.remember(outcome.kept, self._role.cache)


def _head_of(models: ModelPair) -> DFlashHead:
    assert models.head is not None
    return cast(DFlashHead, models.head)  # of a family that the method's file names
