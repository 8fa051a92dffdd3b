"""A head behind the target's features drafts, in the shape that the topology asks for."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from specbench.clock import Segment
from specbench.decoding.drafters.base import Drafter, Drafting, Outcome, Plan, Prefill
from specbench.decoding.ground import Features
from specbench.decoding.growth import Growth
from specbench.decoding.session import Role, Session
from specbench.decoding.tree import DraftTree
from specbench.models.heads.base import FeatureHead
from specbench.models.pair import ModelPair
from specbench.transfer import to_device


class FeatureDrafter(Drafter):
    """Draft from the pair's head, under the target's sampling settings: EAGLE and its kin.

    The target's features come from the forwards that it makes anyway: of the whole prompt, and of
    the accepted tokens of each verification.
    """

    needs = frozenset({"head", "hidden_states"})
    prompt_states = True

    def taps(self, models: ModelPair) -> tuple[int, ...]:
        """Return the states that the head reads."""
        return _head_of(models).taps

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Feed the head all of the prompt but what the first round feeds."""
        head, role = _head_of(session.models), session.head()
        features = head.features(prefill.hidden)
        if features.shape[1] > 1:
            tokens = to_device([session.request.prompt[1:]], head.device)
            role.feed(head.inputs(tokens, features[:, :-1]), last=1)
        session.clock.lap(Segment.DRAFT)
        return _FeatureDrafting(head, role, features[:, -1:])


class _FeatureDrafting(Drafting):
    """One request's drafts.

    Args:
        head: The head.
        role: It, at work.
        features: [1, n, F] the target's features that its cache lacks.
    """

    def __init__(self, head: FeatureHead, role: Role, features: Tensor) -> None:
        self._head = head
        self._role = role
        self._features = features
        self._growth: Growth | None = None

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return a tree that the topology grew from the head's laws."""
        depth = plan.levels
        self._growth = None
        if depth < 1:
            return None
        ground = Features(self._role, self._head, self._features)
        self._features = self._features[:, :0]
        self._growth = Growth(ground, session, plan.length, depth, plan.topology.nodes)
        return plan.topology.grow(self._growth)

    def observe(self, session: Session, outcome: Outcome) -> None:
        """Forget what was drafted, and keep the features of what was accepted."""
        if self._growth is not None:
            self._growth.commit(outcome.verdict.path)
        true = self._head.features(outcome.kept)
        self._features = torch.cat([self._features, true], 1)


def _head_of(models: ModelPair) -> FeatureHead:
    assert models.head is not None
    return cast(FeatureHead, models.head)  # of a family that the method's file names
