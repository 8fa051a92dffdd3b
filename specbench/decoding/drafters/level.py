"""Heads with a part for each level of a tree draft: Medusa's at once, Hydra's level by level.

Their children are chosen and not drawn, whatever the target's law is: the likeliest tokens of each
part, as in both releases. A tree of them is of kind POINT.

Shapes: T states, C channels, K levels, V token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, cast

import torch
from torch import Tensor

from specbench.clock import Segment
from specbench.decoding.drafters.base import Drafter, Drafting, Outcome, Plan, Prefill
from specbench.decoding.growth import Growth
from specbench.decoding.session import Role, Session
from specbench.decoding.topologies.base import Topology
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.topologies.eagle2_dynamic import Eagle2Dynamic
from specbench.decoding.topologies.static_tree import StaticTree
from specbench.decoding.tree import DraftTree, TreeMask
from specbench.errors import ConfigError
from specbench.law import History, Law
from specbench.models.heads.hydra import HydraHead
from specbench.models.heads.level import LevelHead
from specbench.models.pair import ModelPair
from specbench.transfer import to_device

_LIKELIEST = Law(temperature=0.0)


class LevelDrafter(Drafter):
    """Draft from the pair's Medusa or Hydra, under no law: the likeliest tokens."""

    needs = frozenset({"head", "hidden_states"})

    def taps(self, models: ModelPair) -> tuple[int, ...]:
        """Return the states that the head reads."""
        return head_of(models).taps


class MedusaDrafter(LevelDrafter):
    """Fill a tree of fixed shape with what all heads make of one state, in one step."""

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Take the state of the prompt's last token."""
        return _MedusaDrafting(session, prefill.hidden[0][:, -1:])


class _MedusaDrafting(Drafting):
    """One request's drafts.

    Args:
        session: The request.
        state: [1, 1, C] of the newest token's predecessor, which the target has read.
    """

    def __init__(self, session: Session, state: Tensor) -> None:
        self._levels = head_of(session.models).levels
        self._role = session.head()
        self._state = state

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return the topology's shape, as deep as there are heads and room for it."""
        topology = plan.topology
        if not isinstance(topology, StaticTree):
            refuse(topology, "Medusa", "StaticTree or HeadTree")
        depth = min(plan.levels, self._levels)
        if depth < 1:
            return None
        session.clock.launch()
        return topology.filled(self._role.feed(self._state)[0, :depth])

    def observe(self, session: Session, outcome: Outcome) -> None:
        """Take the state of the last accepted node, which chose the newest token."""
        self._state = outcome.kept[0][:, -1:]


class HydraDrafter(LevelDrafter):
    """Grow a tree level by level: each node's part reads the tokens above it."""

    needs = LevelDrafter.needs | {"features"}
    prompt_states = True

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Let Hydra++'s block read the prompt, but what the first round feeds it."""
        head, role = cast(HydraHead, head_of(session.models)), session.head()
        states = prefill.hidden[0]
        if head.body is not None and states.shape[1] > 1:
            role.feed(states[:, :-1], last=1)
            session.clock.lap(Segment.DRAFT)
        return _HydraDrafting(head, role, states[:, -1:])


class _HydraDrafting(Drafting):
    """One request's drafts.

    Args:
        head: The head.
        role: It, at work.
        states: [1, T, C] of committed tokens, those that it has not read.
    """

    def __init__(self, head: HydraHead, role: Role, states: Tensor) -> None:
        self._head = head
        self._role = role
        self._states = states

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return a tree that the topology grew from the heads."""
        topology = plan.topology
        if not isinstance(topology, StaticTree | Chain | Eagle2Dynamic):
            refuse(topology, "Hydra", "StaticTree, HeadTree, Chain or Eagle2Dynamic")
        depth = min(plan.levels, self._head.levels)
        if depth < 1:
            return None
        ground = Levels(self._head, self._role, self._states)
        self._states = self._states[:, :0]
        growth = Growth(ground, session, plan.length, depth, topology.nodes)
        return topology.grow(growth)

    def observe(self, session: Session, outcome: Outcome) -> None:
        """Keep the states that the target gave to what was accepted."""
        self._states = torch.cat([self._states, outcome.kept[0]], 1)


class Levels:
    """Hydra at work as the ground of one tree; each call feeds the children of the last one's.

    Args:
        head: The head.
        role: It, at work.
        states: [1, T, C] of committed tokens, those that it has not read; at least the last one's.
    """

    def __init__(self, head: HydraHead, role: Role, states: Tensor) -> None:
        self.law = _LIKELIEST
        self.history = History(_LIKELIEST, states, head.vocab_size)
        self.device = head.device
        self._head = head
        self._role = role
        self._states = states
        self._start = 0

    def plant(self, committed: Sequence[int]) -> Tensor:
        """Read the new states; the first level's part sees the newest token too."""
        read = self._states[:, -1:]
        if self._head.body is not None:
            read = self._role.feed(self._states, last=1)
        return self._level(read[0], to_device([committed[-1]], self.device))

    def feed(self, tokens: Tensor, parents: Tensor | None, mask: TreeMask | None) -> Tensor:
        """Let the next level's part see what its nodes' parents saw, and their tokens."""
        above = self._rows if parents is None else self._rows[parents - self._start]
        self._start += self._rows.shape[0]
        return self._level(above, tokens)

    def keep(self, slots: Sequence[int]) -> None:
        """Forget all that was drafted: the cache holds true states alone."""

    def _level(self, above: Tensor, tokens: Tensor) -> Tensor:
        self._rows = torch.cat([above, self._head.embed_drafted(tokens[None])[0]], -1)
        return self._role.feed(self._rows[None])[0]


def head_of(models: ModelPair) -> LevelHead:
    """Return the pair's head, of a family with a part for each level."""
    assert models.head is not None
    return cast(LevelHead, models.head)


def refuse(topology: Topology, heads: str, fitting: str) -> NoReturn:
    """Refuse a topology that such heads cannot fill.

    Raises:
        ConfigError: With those that they can.
    """
    raise ConfigError(
        f"{heads} cannot draft in the shape of {type(topology).__name__}",
        "a part of it guesses one level, so that a tree must grow level by level"
        if heads == "Hydra"
        else "its parts do not see what was drafted, so that a shape is fixed beforehand",
        f"Use the topology {fitting}.",
    )
