"""Lines of answer files as they are written: checked, and not yet understood."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import Field

from specbench.importing.documents import Record
from specbench.importing.fields import (
    LONGEST_SECONDS,
    LONGEST_STEP,
    BadRecord,
    Count,
    Date,
    Fields,
    Id,
    Number,
    Text,
)

MOST_TURNS = 1000
"""Turns of one question beyond which a line is not believed."""

COLON = "accept_lengths:"
"""The key of the accept lengths in REST's files, with its stray colon."""

LENGTHS = "accept_lengths"
"""The key of the accept lengths."""

_Lengths = list[Annotated[Count, Field(le=LONGEST_STEP)]] | None


class _Choice(Fields):
    """One choice of a line: an entry for each turn, and the accept lengths of all of them."""

    turns: list[Text] = Field(min_length=1, max_length=MOST_TURNS)
    wall_time: list[Annotated[Number, Field(ge=1e-9, le=LONGEST_SECONDS)]]
    new_tokens: list[Count]
    idxs: list[Count] | None = None
    decoding_steps: list[Count] | None = None
    accept_lengths: _Lengths = None
    with_colon: _Lengths = Field(None, alias="accept_lengths:")


class RawLine(Fields):
    """One line: a question and its choices."""

    question_id: Id
    choices: list[_Choice] = Field(min_length=1)
    tstamp: Date = 0.0
    category: Text | None = None
    model_id: Text | None = None


class RawTurn(NamedTuple):
    """One turn as it is written."""

    text: str
    steps: int
    new_tokens: int
    seconds: float


class RawChoice(NamedTuple):
    """One choice with its turns; `place` is the line's number, `repeat` the choice's."""

    place: int
    line: RawLine
    repeat: int
    turns: tuple[RawTurn, ...]
    lengths: list[int] | None
    colon: bool


def read_line(record: Record, steps_key: str) -> list[RawChoice]:
    """Return the choices of one line.

    Args:
        record: The line.
        steps_key: Key of the steps of each turn: "idxs" or "decoding_steps".

    Raises:
        BadRecord: If a field is missing, of another type or out of range.
    """
    line = RawLine.of(record.values)
    out = []
    for repeat, choice in enumerate(line.choices):
        steps = getattr(choice, steps_key)
        if steps is None:
            raise BadRecord(f"'{steps_key}' is missing")
        columns = (choice.turns, steps, choice.new_tokens, choice.wall_time)
        if len({len(column) for column in columns}) > 1:
            counts = ", ".join(str(len(column)) for column in columns)
            raise BadRecord(
                f"'turns', '{steps_key}', 'new_tokens' and 'wall_time' differ in length: {counts}"
            )
        colon = choice.with_colon is not None
        lengths = choice.with_colon if colon else choice.accept_lengths
        turns = tuple(map(RawTurn, *columns))
        out.append(RawChoice(record.line, line, repeat, turns, lengths, colon))
    return out
