"""Drafts of a set acceptance: the right continuation, token by token spoilt with a set probability.

No method: somebody has decoded the request before and tells what follows. What is real is the
cost of everything, and the law of how many tokens a round accepts: every draft token is right with
one probability, whatever came before, which is the assumption of Leviathan et al. 2023
("Fast Inference from Transformers via Speculative Decoding", section 3.1).

All rounds are planned before the clock starts, so that a timed round looks its draft up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from specbench.decoding.drafters.base import Drafter, Plan
from specbench.decoding.request import Request
from specbench.decoding.state import Outcome, State
from specbench.decoding.tree import DraftTree
from specbench.errors import ConfigError, SpecbenchError
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


class SyntheticDrafter(Drafter):
    """Propose a known continuation whose tokens are right with a set probability.

    Args:
        acceptance: Chance that a draft token is right, from 0 to 1.
        draft_length: K, tokens per round.
        model: A drafter whose work is done in every round and whose tokens are not used; None
            for drafts that cost nothing.

    Raises:
        ConfigError: If the acceptance is no probability.
    """

    def __init__(self, acceptance: float, draft_length: int, model: Drafter | None = None) -> None:
        if not 0 <= acceptance <= 1:
            raise ConfigError(
                f"An acceptance of {acceptance:g} is not possible",
                "it is the probability that a draft token is accepted",
                "Choose a number from 0 to 1, such as method.acceptance=0.8.",
            )
        self._acceptance = acceptance
        self._draft_length = draft_length
        self._model = model
        self._rounds: dict[int, PlannedRound] = {}
        self._first = -1
        self.needs = model.needs if model is not None else frozenset()

    def prepare(self, models: ModelPair) -> None:
        """Show the loaded models to the drafter whose work is done."""
        if self._model is not None:
            self._model.prepare(models)

    def follow(self, request: Request, known: Sequence[int], models: ModelPair) -> None:
        """Plan every round of a request whose continuation is known.

        The numbers come from a stream of their own, so that no draw of the target or of the draft
        model shares one with them. They are fresh in every round.

        Args:
            request: The request.
            known: Its continuation by plain decoding, `draft_length` tokens longer than what
                will be emitted wherever `max_new_tokens` allows it.
            models: The pair that will decode it.
        """
        target = models.target
        streams = Streams(request.streams.seed, f"{request.streams.request}#synthetic")
        self._rounds = {}
        self._first = known[0]
        emitted = 1
        while emitted < len(known):
            depth = min(
                self._draft_length, request.max_new_tokens - emitted - 1, len(known) - emitted - 1
            )
            right = list(known[emitted : emitted + max(depth, 0)])
            start = len(request.prompt) + emitted
            coins = streams.uniforms(start, len(right), Purpose.ACCEPT)
            shifts = streams.uniforms(start, len(right), Purpose.DRAFT)
            kept = [coin < self._acceptance for coin in coins]
            tokens = [
                token if keep else _another(token, shift, target.vocab_size)
                for token, keep, shift in zip(right, kept, shifts, strict=True)
            ]
            accepted = [*kept, False].index(False)
            self._rounds[start] = PlannedRound(
                to_device([tokens], target.device, torch.int64),
                accepted,
                tuple(known[emitted : emitted + accepted + 1]),
            )
            emitted += accepted + 1

    def planned(self, start: int) -> PlannedRound:
        """Return the round whose first token has the absolute position `start`."""
        return self._rounds[start]

    def begin(self, state: State) -> None:
        """Let the draft model take the request in.

        Raises:
            NotRepeatable: If the prompt was answered by another token than before: the draws do
                not follow from the request's numbers, and the known continuation is void.
        """
        if state.committed[-1] != self._first:
            raise NotRepeatable(
                "A synthetic acceptance needs a decoding that repeats itself",
                "its drafts come from a plain decoding with the same random numbers; the second "
                "decoding began with another token",
                "Audit the method that it stands for; on a device, use deterministic kernels.",
            )
        if self._model is not None:
            self._model.begin(state)

    def propose(self, state: State, plan: Plan) -> DraftTree | None:
        """Do the draft model's work, and return the planned chain in the place of its own."""
        if self._model is not None:
            self._model.propose(state, plan)
        tokens = self.planned(len(state.committed)).tokens
        return DraftTree.chain(tokens) if tokens.shape[1] else None

    def observe(self, state: State, outcome: Outcome) -> None:
        """Roll the draft model back to what was accepted."""
        if self._model is not None:
            self._model.observe(state, outcome)


def _another(token: int, uniform: float, vocabulary: int) -> int:
    """Return a token other than the given one, each of them with the same probability."""
    return (token + 1 + int(uniform * (vocabulary - 1))) % vocabulary
