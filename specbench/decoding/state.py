"""What the parts of a round may see, and the work that they must report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from specbench.clock import Clock
from specbench.decoding.request import Request
from specbench.decoding.tree import DraftTree
from specbench.decoding.verifiers.base import Verdict
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


@dataclass
class State:
    """One request while it is being decoded.

    Attributes:
        models: The pair that decodes it.
        request: What was asked.
        committed: Prompt and emitted tokens; the newest one is in no cache.
        clock: Where time is charged.
        capacity: Longest sequence that the caches hold.
        work: The draft model's work in this round.
    """

    models: ModelPair
    request: Request
    committed: list[int]
    clock: Clock
    capacity: int
    work: Work = field(default_factory=Work)

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
    """

    tree: DraftTree
    verdict: Verdict
