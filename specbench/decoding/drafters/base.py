"""What a drafter is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from specbench.decoding.lengths.base import LengthPolicy
from specbench.decoding.state import Outcome, State
from specbench.decoding.topologies.base import Topology
from specbench.decoding.tree import DraftTree


@dataclass(frozen=True)
class Plan:
    """How large a draft may grow in this round.

    Attributes:
        topology: How it branches.
        length: When it ends.
        depth: The deepest that the request still has room for.
    """

    topology: Topology
    length: LengthPolicy
    depth: int


class Drafter(Protocol):
    """Proposes a tree, then learns what became of it.

    Attributes:
        needs: Capabilities of the model pair, such as "draft".
        carries_state: Whether it remembers anything from one request to the next. The runner
            resets or carries it as configured; it never leaks from warm-up into a measurement.
    """

    needs: frozenset[str]
    carries_state: bool

    def reset(self) -> None:
        """Forget everything, carried state included."""

    def begin(self, state: State) -> None:
        """Take in a new request's prompt. Counts as prefill."""

    def propose(self, state: State, plan: Plan) -> DraftTree | None:
        """Return a draft that follows `state.committed`, or None for a plain step."""

    def observe(self, state: State, outcome: Outcome) -> None:
        """Learn what was accepted, after `state.committed` has grown."""
