"""The ledger: what every round cost and gave.

A decoder writes one `Round` for each target step. Every published quantity (mean acceptance
length, acceptance rate, block efficiency, step compression) is derived from these by one
function each, in the torch-free rooms; the ledger itself stores no average.

The first round of a generation is the prefill: the forward over the prompt that yields the
first token. It proposes nothing. All later rounds are decoding rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from specbench.clock import Split

TARGET, DRAFT = "target", "draft"
"""The roles that nearly every method has; a method may add others, such as a judge."""


class Work(NamedTuple):
    """What the models of one role were fed in a round.

    Attributes:
        forwards: Calls.
        tokens: Tokens fed by them.
    """

    forwards: int = 0
    tokens: int = 0

    def plus(self, other: Work) -> Work:
        """Return the sum of both."""
        return Work(self.forwards + other.forwards, self.tokens + other.tokens)


class Count(NamedTuple):
    """What one round proposed, accepted, emitted and fed, before its times are known.

    Attributes:
        proposed: Draft tokens on the longest proposed path, none behind a stop token.
        accepted: Draft tokens accepted by the verifier, none behind a stop token or string.
        emitted: Tokens kept after stop and length cuts, the bonus or correction included.
        nodes: Draft nodes scored by the target.
        work: What each role was fed.
        decided: Tokens that the round fixed, where they are not emitted from left to right as
            they are fixed; None elsewhere, where it is `emitted`.
    """

    proposed: int
    accepted: int
    emitted: int
    nodes: int
    work: Mapping[str, Work]
    decided: int | None = None

    @property
    def target(self) -> Work:
        """What the target was fed."""
        return self.work.get(TARGET, Work())

    @property
    def draft(self) -> Work:
        """What the draft models were fed."""
        return self.work.get(DRAFT, Work())


@dataclass(frozen=True, slots=True)
class Round:
    """One finished round: its counts, and its time by kind of work in nanoseconds.

    `sampling_ns` is None where the host computes and `host_ns` holds it. `further_ns` holds the
    time of roles beside target and draft.
    """

    count: Count
    draft_ns: int
    target_ns: int
    host_ns: int
    sampling_ns: int | None = None
    further_ns: tuple[tuple[str, int], ...] = ()


class StopReason(StrEnum):
    """Why a generation ended."""

    STOP_TOKEN = "stop_token"
    STOP_STRING = "stop_string"
    LENGTH = "length"


@dataclass(frozen=True)
class Generation:
    """What a decoder returns.

    Attributes:
        tokens: Emitted ids, the stop token included, at most max_new_tokens.
        rounds: The ledger, prefill first; the emitted counts sum to len(tokens).
        stop_reason: Why it ended.
        total_ns: Wall time of the whole generation.
        prefill_ns: Wall time to the first token.
        device_ns: Device time where a device clock ran, else None.
    """

    tokens: tuple[int, ...]
    rounds: tuple[Round, ...]
    stop_reason: StopReason
    total_ns: int
    prefill_ns: int
    device_ns: int | None = None


def join(counts: Sequence[Count], times: Sequence[Split]) -> tuple[Round, ...]:
    """Pair the counts of a generation with the clock's times of the same rounds."""
    return tuple(Round(count, *split) for count, split in zip(counts, times, strict=True))
