"""What a decoder is asked to do, and where it must stop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from specbench.choices import BY_NUMBER, Choices
from specbench.decoding.ledger import StopReason
from specbench.law import Law
from specbench.rng import Streams


def among(tokens: Tensor, ids: Collection[int]) -> Tensor:
    """Say which tokens, [...], are among some ids; nothing is sent to their device for it."""
    found = torch.zeros_like(tokens, dtype=torch.bool)
    for token in ids:
        found |= tokens == token
    return found


def before_stop(tokens: list[int], stops: Collection[int]) -> list[int]:
    """Return the tokens before the first stop token."""
    return list(takewhile(lambda token: token not in stops, tokens))


class Cut(NamedTuple):
    """Where a generation must end.

    Attributes:
        length: Number of tokens to keep of the text that was looked at.
        reason: Why.
    """

    length: int
    reason: StopReason


class StopRule(Protocol):
    """Decides where a sequence of emitted tokens ends."""

    @property
    def ids(self) -> frozenset[int]:
        """Tokens that end every sequence."""

    def find(self, tokens: Sequence[int], start: int, first: int = 0) -> Cut | None:
        """Return the first cut at or after index `start`, or None.

        Args:
            tokens: A text that ends with the emitted tokens.
            start: Index of the first token that has not been looked at.
            first: Index of the first emitted token.
        """


@dataclass(frozen=True)
class StopTokens:
    """Stop after the first of some tokens; it is kept and counted.

    Attributes:
        ids: The stop tokens.
    """

    ids: frozenset[int]

    def find(self, tokens: Sequence[int], start: int, first: int = 0) -> Cut | None:
        """Return the cut after the first stop token from `start` on."""
        for index in range(start, len(tokens)):
            if tokens[index] in self.ids:
                return Cut(index + 1, StopReason.STOP_TOKEN)
        return None


@dataclass(frozen=True)
class StopStrings:
    """Stop at a stop token, or after the token that completes a stop string.

    The tokens up to and including the completing one are kept and counted for every arm; the
    task removes the string from the text.

    Attributes:
        ids: The stop tokens.
        strings: The stop strings.
        decode: Turns token ids into text.
    """

    ids: frozenset[int]
    strings: tuple[str, ...]
    decode: Callable[[Sequence[int]], str]

    def find(self, tokens: Sequence[int], start: int, first: int = 0) -> Cut | None:
        """Return the first cut from `start` on, looking at one token after another."""
        reach = max(len(string) for string in self.strings) + 8
        for index in range(start, len(tokens)):
            if tokens[index] in self.ids:
                return Cut(index + 1, StopReason.STOP_TOKEN)
            text = self.decode(tokens[max(first, index + 1 - reach) : index + 1])
            if any(string in text for string in self.strings):
                return Cut(index + 1, StopReason.STOP_STRING)
        return None


@dataclass(frozen=True)
class Request:
    """One prompt to continue.

    Attributes:
        prompt: Token ids; at least one.
        max_new_tokens: Emit at most this many; at least one.
        law: The target's law.
        streams: The random numbers of this request.
        stop: Where to stop besides the length.
        draft_law: The draft's law; None means the target's settings applied to the draft.
        choices: Decides what is drawn; an audit passes another object.
    """

    prompt: tuple[int, ...]
    max_new_tokens: int
    law: Law
    streams: Streams
    stop: StopRule = field(default_factory=lambda: StopTokens(frozenset()))
    draft_law: Law | None = None
    choices: Choices = BY_NUMBER

    def __post_init__(self) -> None:
        assert self.prompt and self.max_new_tokens >= 1
