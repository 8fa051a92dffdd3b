"""Lines of answer files as they are written: checked, and not yet understood."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from specbench.importing import reading
from specbench.importing.reading import BadRecord, Record

MOST_TURNS = 1000
"""Turns of one question beyond which a line is not believed."""

COLON = "accept_lengths:"
"""The key of the accept lengths in REST's files, with its stray colon."""

LENGTHS = "accept_lengths"
"""The key of the accept lengths."""


class RawTurn(NamedTuple):
    """One turn as it is written."""

    text: str
    steps: int
    new_tokens: int
    seconds: float


class RawChoice(NamedTuple):
    """One choice of one line as it is written, checked."""

    line: int
    sample_id: str
    repeat: int
    category: str
    ended_unix: float
    name: str
    turns: tuple[RawTurn, ...]
    lengths: tuple[int, ...] | None
    colon: bool


def read_line(record: Record, steps_key: str) -> list[RawChoice]:
    """Return the choices of one line.

    Args:
        record: The line.
        steps_key: Key of the steps of each turn: "idxs" or "decoding_steps".

    Raises:
        BadRecord: If a field is missing, of another type or out of range.
    """
    values = record.values
    sample_id = reading.identifier(values, "question_id")
    written = reading.checked(values.get("tstamp", 0), "'tstamp'", 0, 1e11)
    category = reading.text_or(values, "category")
    name = reading.text_or(values, "model_id")
    found = reading.listed(values, "choices")
    if not found:
        raise BadRecord("'choices' is empty")
    out = []
    for place, choice in enumerate(found):
        if not isinstance(choice, dict):
            raise BadRecord(f"choice {place} is no JSON object")
        turns = _turns(choice, steps_key)
        lengths = _lengths(choice)
        out.append(
            RawChoice(
                line=record.line,
                sample_id=sample_id,
                repeat=place,
                category=category,
                ended_unix=written,
                name=name,
                turns=turns,
                lengths=lengths,
                colon=COLON in choice,
            )
        )
    return out


def _turns(choice: Mapping[str, Any], steps_key: str) -> tuple[RawTurn, ...]:
    texts = reading.listed(choice, "turns")
    if not 1 <= len(texts) <= MOST_TURNS:
        raise BadRecord(f"'turns' has {len(texts)} entries")
    if "wall_time" not in choice:
        raise BadRecord("'wall_time' is missing: an answer file without times measures nothing")
    seconds = reading.listed(choice, "wall_time", len(texts))
    steps = reading.listed(choice, steps_key, len(texts))
    tokens = reading.listed(choice, "new_tokens", len(texts))
    return tuple(
        RawTurn(
            text=reading.as_text(texts[turn], f"turn {turn}"),
            steps=reading.whole(steps[turn], f"{steps_key}[{turn}]", 0, reading.MOST_TOKENS),
            new_tokens=reading.whole(tokens[turn], f"new_tokens[{turn}]", 0, reading.MOST_TOKENS),
            seconds=reading.checked(
                seconds[turn], f"wall_time[{turn}]", 1e-9, reading.LONGEST_SECONDS
            ),
        )
        for turn in range(len(texts))
    )


def _lengths(choice: Mapping[str, Any]) -> tuple[int, ...] | None:
    key = COLON if COLON in choice else LENGTHS
    if key not in choice:
        return None
    return tuple(
        reading.whole(value, f"{LENGTHS}[{place}]", 0, reading.LONGEST_STEP)
        for place, value in enumerate(reading.listed(choice, key))
    )
