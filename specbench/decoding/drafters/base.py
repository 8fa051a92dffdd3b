"""What a drafter is asked for, and what it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from specbench.decoding.lengths.base import LengthPolicy
from specbench.decoding.session import Session
from specbench.decoding.topologies.base import Topology
from specbench.decoding.tree import DraftTree
from specbench.decoding.verifiers.base import Scored, Verdict
from specbench.models.base import AncestorMask, Taps
from specbench.models.pair import ModelPair


class Prefill(NamedTuple):
    """What the target said of the prompt.

    Attributes:
        logits: [1, T, V] where the drafter wants the prompt's logits, else [1, 1, V] of the
            last token.
        hidden: The hidden states that the drafter taps, each [1, T, C] where it wants the whole
            prompt's, else [1, 1, C].
    """

    logits: Tensor
    hidden: tuple[Tensor, ...] = ()


class Outcome(NamedTuple):
    """What a round decided, for drafters that learn from it.

    Attributes:
        tree: What was proposed.
        verdict: What was accepted.
        scored: The target's logits at the root and at every node.
        kept: The hidden states that the drafter taps, of the root and of the accepted path, each
            [1, A + 1, C]: those of all committed tokens but the newest.
    """

    tree: DraftTree
    verdict: Verdict
    scored: Scored
    kept: tuple[Tensor, ...] = ()


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

    @property
    def levels(self) -> int:
        """Levels that a draft may have, by the length policy and the request."""
        return min(self.length.limit(), self.depth)


class Drafting:
    """What drafts for one request: proposes a tree, then learns what became of it."""

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return a draft that follows `session.committed`, or None for a plain step."""
        raise NotImplementedError

    def score(
        self, session: Session, fed: Tensor, mask: AncestorMask | None, taps: Taps | None
    ) -> Tensor:
        """Feed the draft to the target and return its logits, [1, N + 1, V].

        A drafter that drafts with blocks of the target finishes here what they began.

        Args:
            session: The request.
            fed: [1, N + 1] the newest committed token and the draft.
            mask: Who sees whom; None for a chain.
            taps: The states that are to be handed out.
        """
        return session.feed(fed, mask, taps=taps)

    def observe(self, session: Session, outcome: Outcome) -> None:
        """Learn what was accepted, after `session.committed` has grown."""


class Drafter(Drafting):
    """Drafts for many requests, also for several that take turns.

    What it remembers of a request is in the `Drafting` that `begin` returns. One that remembers
    nothing of it drafts itself.

    Attributes:
        needs: Capabilities of the model pair, such as "draft".
        carries_state: Whether it remembers anything from one request to the next. The runner
            resets or carries it as configured; it never leaks from warm-up into a measurement.
        nodes: Most nodes of one of its trees, where it does not ask a topology.
        prompt_logits: Whether it wants the logits of every prompt token.
        prompt_states: Whether it wants the tapped states of every prompt token.
    """

    needs: frozenset[str] = frozenset()
    carries_state: bool = False
    nodes: int = 0
    prompt_logits: bool = False
    prompt_states: bool = False

    def taps(self, models: ModelPair) -> tuple[int, ...]:
        """Return the hidden states of the target that it wants to see; see `models.base.Taps`."""
        return ()

    def prepare(self, models: ModelPair) -> None:
        """Look at the loaded models once, before anything is timed."""

    def inputs(self) -> dict[str, str]:
        """Return digests of what it reads beside the models, by name; see `Decoder.inputs`."""
        return {}

    def reset(self) -> None:
        """Forget everything, carried state included."""

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Take in a new request after the target has read its prompt. Counts as prefill."""
        return self
