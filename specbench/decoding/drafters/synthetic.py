"""Drafts of a set acceptance: the right continuation, token by token spoilt with a set probability.

No method: somebody has decoded the request before and tells what follows. What is real is the
cost of everything, and the law of how many tokens a round accepts: every draft token is right with
one probability, whatever came before, which is the assumption of Leviathan et al. 2023
("Fast Inference from Transformers via Speculative Decoding", section 3.1).

All rounds are planned before the clock starts, so that a timed round looks its draft up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from specbench.decoding.drafters.base import Drafter, Drafting, Outcome, Plan, Prefill
from specbench.decoding.request import Request
from specbench.decoding.session import Session
from specbench.decoding.tree import DraftTree
from specbench.errors import SpecbenchError
from specbench.models.pair import ModelPair
from specbench.rng import Purpose, Streams
from specbench.transfer import to_device


class NotRepeatable(SpecbenchError):
    """A second decoding of a request began with another token than the first."""


class PlannedRound(NamedTuple):
    """What one round will propose and accept.

    Attributes:
        tokens: [1, K] draft tokens on the target's device.
        accepted: How many of them are right before the first wrong one.
        emitted: The right tokens, and the one behind them.
    """

    tokens: Tensor
    accepted: int
    emitted: tuple[int, ...]


def planned_rounds(
    acceptance: float, draft_length: int, request: Request, known: Sequence[int], models: ModelPair
) -> dict[int, PlannedRound]:
    """Plan every round of a request whose continuation is known.

    The numbers come from a stream of their own, so that no draw of the target or of the draft
    model shares one with them. They are fresh in every round.

    Args:
        acceptance: Chance that a draft token is right, from 0 to 1.
        draft_length: K, tokens per round.
        request: The request.
        known: Its continuation by plain decoding, `draft_length` tokens longer than what
            will be emitted wherever `max_new_tokens` allows it.
        models: The pair that will decode it.

    Returns:
        The rounds by the absolute position of their first token.
    """
    target = models.target
    streams = Streams(request.streams.seed, f"{request.streams.request}#synthetic")
    rounds: dict[int, PlannedRound] = {}
    emitted = 1
    while emitted < len(known):
        depth = min(draft_length, request.max_new_tokens - emitted - 1, len(known) - emitted - 1)
        right = list(known[emitted : emitted + max(depth, 0)])
        start = len(request.prompt) + emitted
        coins = streams.uniforms(start, len(right), Purpose.ACCEPT)
        shifts = streams.uniforms(start, len(right), Purpose.DRAFT)
        kept = [coin < acceptance for coin in coins]
        tokens = [
            token if keep else _another(token, shift, target.vocab_size)
            for token, keep, shift in zip(right, kept, shifts, strict=True)
        ]
        accepted = [*kept, False].index(False)
        rounds[start] = PlannedRound(
            to_device([tokens], target.device, torch.int64),
            accepted,
            tuple(known[emitted : emitted + accepted + 1]),
        )
        emitted += accepted + 1
    return rounds


class SyntheticDrafter(Drafter):
    """Propose what was planned for one request.

    Args:
        first: The token that its prompt was answered by before.
        rounds: Its planned rounds.
        model: A drafter whose work is done in every round and whose tokens are not used; None
            for drafts that cost nothing.
    """

    def __init__(
        self, first: int, rounds: Mapping[int, PlannedRound], model: Drafter | None = None
    ) -> None:
        self._first = first
        self._rounds = rounds
        self._model = model

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Let the draft model take the request in.

        Raises:
            NotRepeatable: If the prompt was answered by another token than before: the draws do
                not follow from the request's numbers, and the known continuation is void.
        """
        if session.committed[-1] != self._first:
            raise NotRepeatable(
                "A synthetic acceptance needs a decoding that repeats itself",
                "its drafts come from a plain decoding with the same random numbers; the second "
                "decoding began with another token",
                "Audit the method that it stands for; on a device, use deterministic kernels.",
            )
        drafting = self._model.begin(session, prefill) if self._model is not None else None
        return _Planned(self._rounds, drafting)


class _Planned(Drafting):
    """The planned chains in the place of what a draft model proposes."""

    def __init__(self, rounds: Mapping[int, PlannedRound], model: Drafting | None) -> None:
        self._rounds = rounds
        self._model = model

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Do the draft model's work, and return the planned chain in the place of its own."""
        if self._model is not None:
            self._model.propose(session, plan)
        tokens = self._rounds[len(session.committed)].tokens
        return DraftTree.chain(tokens) if tokens.shape[1] else None

    def observe(self, session: Session, outcome: Outcome) -> None:
        """Roll the draft model back to what was accepted."""
        if self._model is not None:
            self._model.observe(session, outcome)


def _another(token: int, uniform: float, vocabulary: int) -> int:
    """Return a token other than the given one, each of them with the same probability."""
    return (token + 1 + int(uniform * (vocabulary - 1))) % vocabulary
