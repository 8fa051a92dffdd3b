"""A small model with the target's vocabulary drafts, in the shape that the topology asks for."""

from __future__ import annotations

from specbench.clock import Segment
from specbench.decoding.drafters.base import Drafter, Drafting, Outcome, Plan, Prefill
from specbench.decoding.ground import DraftModel
from specbench.decoding.growth import Growth
from specbench.decoding.session import Role, Session
from specbench.decoding.tree import DraftTree
from specbench.transfer import to_device


class ModelDrafter(Drafter):
    """Draft from the pair's draft model, under the target's sampling settings.

    The law that a token was drawn from, after the draft's own warping, is recorded for the
    verifier.
    """

    needs = frozenset({"draft"})

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Feed the prompt to the draft model."""
        role = read_prompt(session)
        session.clock.lap(Segment.DRAFT)
        return _ModelDrafting(role)


class _ModelDrafting(Drafting):
    """One request's drafts by one model.

    After full acceptance the draft's cache lacks the last drafted token: the next round feeds it
    together with the newest one.
    """

    def __init__(self, role: Role) -> None:
        self._role = role
        self._growth: Growth | None = None

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return a tree that the topology grew from the draft's laws."""
        depth = plan.levels
        self._growth = None
        if depth < 1:
            return None
        self._growth = Growth(
            DraftModel(self._role), session, plan.length, depth, plan.topology.nodes
        )
        return plan.topology.grow(self._growth)

    def observe(self, session: Session, outcome: Outcome) -> None:
        """Roll the draft's cache back to the committed tokens."""
        if self._growth is not None:
            self._growth.commit(outcome.verdict.path)
        roll_back(self._role, session)


def read_prompt(session: Session, index: int = 0) -> Role:
    """Let a draft model of the pair work for a request, and feed it the prompt."""
    role = session.draft(index)
    role.feed(to_device([session.request.prompt], role.model.device), last=1)
    return role


def roll_back(role: Role, session: Session) -> None:
    """Forget what a draft model cached beyond the committed tokens, the newest one included."""
    cache = role.cache
    cache.truncate([min(cache.lengths[0], len(session.committed) - 1)])
