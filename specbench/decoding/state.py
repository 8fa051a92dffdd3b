"""What the parts of a round may see, and the work that they must report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

from torch import Tensor

from specbench.cache import Cache
from specbench.clock import Clock
from specbench.decoding.request import Request
from specbench.decoding.tree import DraftTree
from specbench.decoding.verifiers.base import Scored, Verdict
from specbench.models.pair import ModelPair


@dataclass
class Work:
    """Draft-model calls since the last round."""

    forwards: int = 0
    tokens: int = 0

    def take(self) -> tuple[int, int]:
        """Return the calls and tokens so far, and start anew."""
        done = (self.forwards, self.tokens)
        self.forwards = self.tokens = 0
        return done


class Prefill(NamedTuple):
    """What the target said of the prompt.

    Attributes:
        logits: [1, T, V] where the drafter wants the prompt's logits, else [1, 1, V] of the
            last token.
        hidden: The hidden states that the drafter taps, each [1, T or 1, C].
    """

    logits: Tensor
    hidden: tuple[Tensor, ...] = ()


@dataclass
class State:
    """One request while it is being decoded.

    Attributes:
        models: The pair that decodes it.
        request: What was asked.
        committed: Prompt and emitted tokens; the newest one is in no cache.
        clock: Where time is charged.
        capacity: Longest sequence that the caches hold.
        cache: The target's cache. A drafter that drafts with the target itself writes behind the
            committed tokens and truncates it again before it returns.
        prefill: What the target said of the prompt.
        work: The draft model's work in this round.
    """

    models: ModelPair
    request: Request
    committed: list[int]
    clock: Clock
    capacity: int
    cache: Cache
    prefill: Prefill
    work: Work = field(default_factory=Work)

    def drawable(self, tokens: Sequence[int]) -> list[int]:
        """Return copied tokens up to the first that the target's law has no column for."""
        width = self.models.target.vocab_size
        return list(takewhile(lambda token: token < width, tokens))

    @property
    def stops(self) -> frozenset[int]:
        """Tokens behind which nothing is emitted."""
        return self.request.stop.ids

    @property
    def emitted(self) -> int:
        """Number of tokens emitted so far."""
        return len(self.committed) - len(self.request.prompt)

    @property
    def budget(self) -> int:
        """Deepest draft that can still be emitted in full, its next token included."""
        return self.request.max_new_tokens - self.emitted - 1


class Outcome(NamedTuple):
    """What a round decided, for drafters and length policies that learn from it.

    Attributes:
        tree: What was proposed.
        verdict: What was accepted.
        scored: The target's logits at the root and at every node.
        hidden: The hidden states that the drafter taps, each [1, N + 1, C].
    """

    tree: DraftTree
    verdict: Verdict
    scored: Scored
    hidden: tuple[Tensor, ...] = ()
