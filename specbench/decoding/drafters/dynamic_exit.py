"""LayerSkip whose exit and length follow the text: DEL; see `decoding.search.exits`.

What differs from the release (github.com/359171110/DEL): the first token of a request comes from
the prompt's forward, so that the first round, of one token from the first exit, begins behind it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from specbench.clock import Segment
from specbench.decoding.drafters.base import Drafter, Drafting, Outcome, Plan, Prefill
from specbench.decoding.drafters.early_exit import EarlyDrafting
from specbench.decoding.lengths.confidence import ConfidenceStop
from specbench.decoding.ranges import check_number, check_whole
from specbench.decoding.search.exits import Exits
from specbench.decoding.session import Session
from specbench.decoding.tree import DraftTree
from specbench.errors import ConfigError
from specbench.models.base import AncestorMask, Model, Taps
from specbench.models.pair import ModelPair

_PROMPT = 32
"""Last tokens of the prompt that are counted, with the first round."""


class DynamicExit(Drafter):
    """Draft from the exit that promises the most tokens for the blocks that it computes.

    After every round the LM head says what each block's states would have said. A draft ends at a
    token that is less likely than the exit's threshold, and the token is still proposed. All that
    is known is of one request.

    Args:
        memory: Weight of earlier rounds.
        max_length: Most tokens of a draft, and the number of lengths that an exit is judged by.

    Raises:
        ConfigError: If a number is out of its range.
    """

    needs = frozenset({"features", "hidden_states"})
    prompt_states = True

    def __init__(self, memory: float = 0.95, max_length: int = 18) -> None:
        check_number("memory", memory, 0, 1)
        check_whole("max_length", max_length, 1)
        self._memory = memory
        self._longest = max_length

    def taps(self, models: ModelPair) -> tuple[int, ...]:
        """Return the states behind every block."""
        return (*range(models.target.layers - 1), -1)

    def prepare(self, models: ModelPair) -> None:
        """Refuse a target of one block, which has no exit before its end.

        Raises:
            ConfigError: If it is one.
        """
        if models.target.layers < 2:
            raise ConfigError(
                f"'{models.name}' cannot draft from an exit of its own",
                "its target has one block",
                "Use a deeper target.",
            )

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Remember the prompt's last states, which are counted with the first round."""
        exits = Exits(session.models.target.layers, self._memory, self._longest)
        *states, final = [state[:, -_PROMPT:] for state in prefill.hidden]
        truth = session.models.target.head(final).argmax(-1)
        context = _shadows(session.models.target, states).against(truth)
        session.clock.lap(Segment.DRAFT)
        return _DynamicDrafting(session, exits, self._longest, context)


class Shadows(NamedTuple):
    """What the exits' states say at T positions.

    Attributes:
        tokens: [E, T] the likeliest token.
        sure: [E, T] its probability.
    """

    tokens: Tensor
    sure: Tensor

    def against(self, truth: Tensor) -> Tensor:
        """Return whether each is the true token, [1, T], and how sure it was: [2, E, T]."""
        return torch.stack([(self.tokens == truth).to(self.sure.dtype), self.sure])


def _shadows(target: Model, states: list[Tensor]) -> Shadows:
    """Apply the LM head to the states of every exit, each [1, T, C]."""
    logits = target.head(torch.cat(states, 1), normed=False)[0].float()
    best, tokens = logits.max(-1)
    sure = (best - logits.logsumexp(-1)).exp()
    return Shadows(tokens.view(len(states), -1), sure.view(len(states), -1))


class _DynamicDrafting(EarlyDrafting):
    """One request's drafts and what is known of its exits.

    Args:
        session: The request.
        exits: The statistics, still empty.
        longest: Most tokens of a draft.
        context: [2, E, T] the prompt's positions, see `Shadows.against`.
    """

    all_blocks = True

    def __init__(self, session: Session, exits: Exits, longest: int, context: Tensor) -> None:
        super().__init__(session, 1)
        self._exits = exits
        self._longest = longest
        self._context: Tensor | None = context
        self._states: list[Tensor] = []

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return a chain from the exit that was chosen, as long as it is sure."""
        first = self._context is not None
        most = min(1 if first else self._longest, plan.length.limit())
        stop = ConfidenceStop(min(self._exits.threshold, 1.0), most)
        self.exit_layer = self._exits.blocks
        return super().propose(session, Plan(plan.topology, stop, plan.depth))

    def score(
        self, session: Session, fed: Tensor, mask: AncestorMask | None, taps: Taps | None
    ) -> Tensor:
        """Verify, and keep the states of all blocks."""
        assert taps is not None
        logits = super().score(session, fed, mask, taps)
        self._states = taps.states[:-1]
        return logits

    def observe(self, session: Session, outcome: Outcome) -> None:
        """Count what every exit would have said; this is work of the draft."""
        truth = outcome.scored.logits.argmax(-1)
        table, context = _shadows(session.target.model, self._states).against(truth), 0
        if self._context is not None:
            context = self._context.shape[2]
            table, self._context = torch.cat([self._context, table], 2), None
        agree, sure = np.asarray(session.read(table), dtype=np.float64)
        self._exits.update(agree > 0, sure, context)
        session.clock.lap(Segment.DRAFT)
