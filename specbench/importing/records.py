"""What a reader hands on: answers with their turns, in one shape for every source.

A reader translates what a source wrote into these records and says what it read otherwise than
it stands there. It invents nothing: what a source does not record is None here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

PLAIN_METHOD = "ar"
"""Id of plain decoding."""


class PublishedRound(NamedTuple):
    """One verification round: what one forward of the target did to the text.

    Attributes:
        emitted: Tokens that the source credits to the round, or None.
        accepted: Accepted draft tokens, or None.
        proposed: Draft tokens that the round verified, or None.
    """

    emitted: int | None
    accepted: int | None
    proposed: int | None = None


@dataclass(frozen=True)
class Turn:
    """One generation.

    Attributes:
        new_tokens: Generated tokens, as the source counts them.
        total_ns: Wall time that the source recorded, in nanoseconds, or None.
        text: The answer, or None.
        rounds: The verification rounds, or None where not even their number is recorded.
        prefill_tokens: Tokens that the source credits to no round.
        prefill_forwards: Target forwards before the first round: 1 where the prompt runs alone, 0
            where the first round runs over the prompt, None where it is not known.
        prefill_ns: Wall time to the first token, or None.
        decode_ns: Wall time after the first token, or None.
        prompt_tokens: Tokens of the prompt, or None.
    """

    new_tokens: int
    total_ns: int | None
    text: str | None = None
    rounds: tuple[PublishedRound, ...] | None = None
    prefill_tokens: int = 0
    prefill_forwards: int | None = None
    prefill_ns: int | None = None
    decode_ns: int | None = None
    prompt_tokens: int | None = None


@dataclass(frozen=True)
class Answer:
    """One measurement: every turn of one question, once.

    Attributes:
        sample_id: What pairs it with the other arm's answer.
        repeat: Which of several answers to the same question this is.
        category: The question's category, or empty.
        started_unix: When it began, in seconds since 1970; 0 where it is not recorded.
        turns: The turns; empty where the measurement failed.
        error: Why it failed, or None.
    """

    sample_id: str
    repeat: int
    category: str
    started_unix: float
    turns: tuple[Turn, ...]
    error: str | None = None


@dataclass(frozen=True)
class Label:
    """What a source says of its circumstances; None where it does not.

    Attributes:
        model: The target model.
        method: The decoding method.
        dtype: The compute dtype.
        sampling: Recorded parameters of the target law, such as `temperature`.
    """

    model: str | None = None
    method: str | None = None
    dtype: str | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """One file, read.

    Attributes:
        path: The file.
        sha256: Digest of its bytes.
        format: Name of its format.
        label: What it says of its circumstances.
        answers: Its measurements, in the file's order.
        plain: Whether it is plain decoding: one token a round everywhere. None where rounds are
            not recorded.
        odd: Sentences on what was read otherwise than it is written.
        unknown: Sentences on what is not recorded.
        totals: What is recorded of the whole run only.
        load: How requests reached the server, where a client recorded it, such as
            "concurrency 32".
    """

    path: Path
    sha256: str
    format: str
    label: Label
    answers: tuple[Answer, ...]
    plain: bool | None
    odd: tuple[str, ...]
    unknown: tuple[str, ...]
    totals: Mapping[str, Any] = field(default_factory=dict)
    load: str = ""


class Notes:
    """Collects sentences, and how often each was true."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, str]] = {}

    def add(self, sentence: str, what: str = "") -> None:
        """Say something once more.

        Args:
            sentence: A whole sentence without its full stop.
            what: What is counted, such as "turn"; empty where the sentence is about the file.
        """
        count, _ = self._counts.get(sentence, (0, ""))
        self._counts[sentence] = (count + 1, what)

    def sentences(self) -> tuple[str, ...]:
        """Return every sentence, with its count where it has one, in first-said order."""
        return tuple(
            f"{text} ({count} {what}{'' if count == 1 else 's'})." if what else f"{text}."
            for text, (count, what) in self._counts.items()
        )
