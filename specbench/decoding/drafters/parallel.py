"""PARD: a draft model that was trained to say k tokens in one forward.

An et al. 2025, "PARD: Accelerating LLM Inference with Low-Cost PARallel Draft Model Adaptation";
as in the authors' `pard/pard_infer.py`. The newly committed tokens are fed with k - 1 mask tokens
behind them, in causal order at consecutive positions; the last k logits are the draft. The mask
tokens leave the cache again at once, and true tokens take their place in the next round. The
authors draft greedily; under another law every position is drawn from its own.
"""

from __future__ import annotations

from specbench.clock import Segment
from specbench.decoding.drafters.base import Drafter, Drafting, Outcome, Plan, Prefill
from specbench.decoding.drafters.block import Block
from specbench.decoding.drafters.model import read_prompt
from specbench.decoding.session import Role, Session
from specbench.decoding.tree import DraftTree
from specbench.transfer import to_device


class ParallelDrafter(Drafter):
    """Draft with the pair's draft model, whose `mask_token` stands for what it shall guess."""

    needs = frozenset({"draft", "parallel_draft"})

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Feed the prompt to the draft model."""
        role = read_prompt(session)
        session.clock.lap(Segment.DRAFT)
        return _ParallelDrafting(role)


class _ParallelDrafting(Drafting):
    """One request's drafts; between rounds the cache holds all that was committed before them."""

    def __init__(self, role: Role) -> None:
        self._role = role

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return the draft that the topology makes of one forward."""
        depth = plan.levels
        if depth < 1:
            return None
        role, cache = self._role, self._role.cache
        new = session.committed[cache.lengths[0] :]
        masks = [role.model.mask_token] * (depth - 1)
        session.clock.launch()
        fed = to_device([[*new, *masks]], role.model.device)
        logits = role.feed(fed, last=depth)[0]
        cache.truncate([len(session.committed)])
        return Block(logits, role.law, role.history).grow(session, plan)

    def observe(self, session: Session, outcome: Outcome) -> None:
        """Learn nothing: accepted tokens are fed as true ones."""
