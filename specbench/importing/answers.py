"""Answer files of Spec-Bench, EAGLE, Medusa and REST: one question a line.

All four descend from FastChat's `gen_model_answer.py`. A line holds `question_id` and `choices`;
a choice holds, for each turn, its text, its steps (`idxs` or `decoding_steps`), `new_tokens` and
`wall_time`, and in two of them the accept lengths of all turns, one after the other. What the
fields mean is read from the scripts that write them (see docs/import.md for the revisions).

A loop's step is a verification round. Its accepted draft tokens are one fewer than its accept
length, since the length counts the token that the forward before it had chosen. Where the accept
lengths of a turn add up to one fewer than its new tokens, the source credits the first token to
the prefill, and its first length counts draft tokens only: so REST's zeros come about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from specbench.importing.answer_lines import COLON, LENGTHS, RawChoice, RawTurn, read_line
from specbench.importing.documents import Document, Record, read_each
from specbench.importing.fields import BadRecord, nanoseconds
from specbench.importing.naming import label_of
from specbench.importing.records import (
    PLAIN_METHOD,
    Answer,
    Notes,
    Published,
    PublishedRound,
    Turn,
)

_ERROR = "ERROR"
"""The text that the scripts write where a generation raised an error."""

_PREFILL_FORWARDS = {
    **dict.fromkeys(("eagle", "eagle2", "eagle3", "hydra", "medusa", "rest", "token_recycling"), 1),
    **dict.fromkeys((PLAIN_METHOD, "lookahead", "pld", "sps"), 0),
}
"""Forwards over the prompt before the loop of a method of Spec-Bench: 0 where the first step runs
over it."""


@dataclass(frozen=True)
class Convention:
    """How one family of scripts counts.

    Attributes:
        name: Name of the format.
        steps: Key of the steps of each turn.
        last_index: Whether the steps are the last index of a loop, one fewer than their number.
        prefill_timed: Whether the wall time holds the prompt's forward.
        prefill_forwards: Forwards over the prompt before the loop; None where the method decides.
        unknown: What its files do not record.
        odd: What all of its files do otherwise than specbench.
    """

    name: str
    steps: str
    last_index: bool
    prefill_timed: bool
    prefill_forwards: int | None
    unknown: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()


_OVERSHOOT = (
    "new_tokens counts the tokens that a step accepted after the end of text or beyond the limit; "
    "how many is not recorded"
)
_RECOUNT = (
    "The speedup that its authors print counts the baseline's tokens by tokenising its text "
    "again and the method's by new_tokens; here both arms are counted by new_tokens"
)

CONVENTIONS = {
    "spec_bench": Convention("spec_bench", "decoding_steps", False, True, None, (), (_RECOUNT,)),
    "eagle": Convention("eagle", "idxs", True, True, 1, (_OVERSHOOT,), (_RECOUNT,)),
    "medusa": Convention("medusa", "idxs", True, True, 1, (_OVERSHOOT,)),
    "rest": Convention("rest", "idxs", True, False, 1, (_OVERSHOOT,)),
}
"""The four families by format name."""


def looks_like(record: Mapping[str, Any]) -> str | None:
    """Return the name of the family that wrote a line, or None."""
    choices = record.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return None
    choice = choices[0]
    if not isinstance(choice.get("turns"), list) or "wall_time" not in choice:
        return None
    if "decoding_steps" in choice:
        return "spec_bench"
    if COLON in choice or LENGTHS in choice:
        return "rest"
    return "medusa" if "medusa" in str(record.get("model_id", "")).lower() else "eagle"


def read(document: Document, format_name: str, skip_bad: bool = False) -> Published:
    """Read an answer file.

    Raises:
        ResultsError: If a line cannot be read.
    """
    convention = CONVENTIONS[format_name]
    notes = Notes()
    for sentence in convention.odd:
        notes.add(sentence)
    seen: dict[str, int] = {}

    def line(record: Record) -> list[RawChoice]:
        raw = read_line(record, convention.steps)
        question = raw[0].line.question_id
        earlier = seen.setdefault(question, record.line)
        if earlier != record.line and not skip_bad:
            raise BadRecord(
                f"question_id {question} stands in line {earlier} already; --skip-bad "
                "keeps the last line, as the authors' own scripts do"
            )
        seen[question] = record.line
        return raw

    lines = read_each(document, line, skip_bad, notes)
    kept = [raw for raw in lines if seen[raw[0].line.question_id] == raw[0].place]
    if len(kept) < len(lines):
        notes.add("A question stands more than once: its last line is kept")
    choices = [choice for raw in kept for choice in raw]
    choices = _counted(choices, convention, notes)
    label = label_of(choices[0].line.model_id or "")
    plain = _is_plain(choices)
    prefill = convention.prefill_forwards or _PREFILL_FORWARDS.get(
        PLAIN_METHOD if plain else label.method or ""
    )
    answers = tuple(
        _answer(choice, convention.prefill_timed, plain, prefill, notes) for choice in choices
    )
    if len({choice.line.model_id for choice in choices}) > 1:
        notes.add("model_id differs between lines: the first line's is read")
    if max(len(raw) for raw in kept) > 1:
        notes.add("Several choices of a question are repeats, each drawn with a seed of its own")
    return Published(
        path=document.path,
        sha256=document.sha256,
        format=convention.name,
        label=label,
        answers=answers,
        plain=plain,
        odd=notes.sentences(),
        unknown=tuple(f"{text}." for text in _unknown(convention, choices, answers, plain)),
    )


def _counted(choices: Sequence[RawChoice], convention: Convention, notes: Notes) -> list[RawChoice]:
    """Return the choices with their numbers of steps and of tokens, however a file counts them.

    The scripts of one family differ among themselves, which is found out by all turns together.
    """
    turns = [turn for choice in choices for turn in choice.turns if turn.text != _ERROR]
    last_index, uncounted = convention.last_index, False
    if last_index and turns and all(turn.steps == turn.new_tokens > 0 for turn in turns):
        last_index = False
        notes.add(f"{convention.steps} equals new_tokens everywhere: it is a number of steps here")
    elif last_index and turns and all(turn.new_tokens == 0 for turn in turns):
        uncounted = any(turn.steps for turn in turns)
        if uncounted:
            notes.add("new_tokens is 0 everywhere: its script counts none, and one a step is read")
    if last_index:
        notes.add(
            f"{convention.steps} is the last index of a loop: the number of steps is one greater"
        )
    if not convention.prefill_timed:
        notes.add(
            "wall_time begins after the prompt's forward: the total time is without the prefill"
        )
    if any(choice.colon for choice in choices):
        notes.add(f"The key '{COLON}' ends in a colon: it is read as {LENGTHS}")
    if any(turn.text == _ERROR for choice in choices for turn in choice.turns):
        notes.add(
            "A turn whose text is ERROR repeats the numbers of the turn before it: its question "
            "is a failed measurement"
        )

    def counted(turn: RawTurn) -> RawTurn:
        steps = turn.steps + int(last_index)
        return turn._replace(steps=steps, new_tokens=steps if uncounted else turn.new_tokens)

    return [choice._replace(turns=tuple(map(counted, choice.turns))) for choice in choices]


def _is_plain(choices: Sequence[RawChoice]) -> bool:
    """Return whether every step of every turn yields one token."""
    good = [choice for choice in choices if all(turn.text != _ERROR for turn in choice.turns)]
    return bool(good) and all(
        all(length == 1 for length in choice.lengths or ())
        and all(turn.steps == turn.new_tokens for turn in choice.turns)
        for choice in good
    )


def _answer(
    choice: RawChoice,
    prefill_timed: bool,
    plain: bool,
    prefill: int | None,
    notes: Notes,
) -> Answer:
    started = max(0.0, choice.line.tstamp - sum(turn.seconds for turn in choice.turns))
    failed = next((at for at, turn in enumerate(choice.turns) if turn.text == _ERROR), None)
    about = (choice.line.question_id, choice.repeat, choice.line.category or "", started)
    if failed is not None:
        return Answer(*about, (), f"the source's generation of turn {failed} raised an error")
    parts = _split(choice, notes)
    turns = []
    for raw, lengths in zip(choice.turns, parts, strict=True):
        left = 0
        if lengths is not None:
            rounds, left = _rounds(lengths, raw.new_tokens, notes)
        else:
            rounds = (PublishedRound(1, 0) if plain else PublishedRound(None, None),) * raw.steps
        total = nanoseconds(raw.seconds)
        turns.append(
            Turn(
                new_tokens=raw.new_tokens,
                total_ns=total,
                text=raw.text,
                rounds=rounds,
                prefill_tokens=left,
                prefill_forwards=prefill,
                decode_ns=None if prefill_timed else total,
            )
        )
    return Answer(*about, tuple(turns))


def _split(choice: RawChoice, notes: Notes) -> list[list[int] | None]:
    """Divide a choice's accept lengths among its turns."""
    lengths = choice.lengths
    if lengths is None:
        return [None] * len(choice.turns)
    counts = [turn.steps for turn in choice.turns]
    if sum(counts) != len(lengths) and sum(counts) + len(counts) == len(lengths):
        notes.add("The number of steps is one short: the accept lengths are counted", "question")
        counts = [count + 1 for count in counts]
    elif sum(counts) != len(lengths) and len(counts) == 1:
        notes.add("The number of steps differs from the number of accept lengths", "question")
        counts = [len(lengths)]
    if sum(counts) != len(lengths):
        notes.add(
            "The accept lengths cannot be divided among the turns: only the number of steps is "
            "read",
            "question",
        )
        return [None] * len(choice.turns)
    return [
        lengths[end - count : end] for count, end in zip(counts, accumulate(counts), strict=True)
    ]


def _rounds(
    lengths: list[int], tokens: int, notes: Notes
) -> tuple[tuple[PublishedRound, ...], int]:
    """Return the rounds of a turn and the tokens that belong to none of them."""
    left = tokens - sum(lengths)
    steps = [PublishedRound(length, max(0, length - 1)) for length in lengths]
    if left == 1 and steps:
        steps[0] = PublishedRound(lengths[0], lengths[0])
        notes.add(
            "The accept lengths are one token short: the first token belongs to the prefill, and "
            "the first length counts draft tokens only",
            "turn",
        )
        if lengths[0] == 0:
            notes.add("A first accept length of 0 is a step that accepted no draft token", "turn")
    elif left > 0:
        notes.add("The accept lengths are several tokens short of new_tokens", "turn")
    for place in range(len(steps) - 1, -1, -1):
        if left >= 0:
            break
        cut = min(-left, lengths[place])
        steps[place] = steps[place]._replace(emitted=lengths[place] - cut)
        left += cut
        if left == 0:
            notes.add("The accept lengths go beyond new_tokens: the last steps are cut", "turn")
    return tuple(steps), left


def _unknown(
    convention: Convention,
    choices: Sequence[RawChoice],
    answers: Sequence[Answer],
    plain: bool,
) -> list[str]:
    """Return what the file does not record, as sentences without their full stop."""
    out = []
    if max(choice.repeat for choice in choices) == 0:
        out.append("Every question was measured once: there is no noise floor")
    if any(turn.rounds and turn.rounds[0].emitted is None for a in answers for turn in a.turns):
        out.append("What each step accepted is not recorded, only the number of steps")
    if not plain:
        out.append("How many draft tokens a step proposed is not recorded")
        out.append("Time is not divided into draft, target and host")
        out.extend(convention.unknown)
    out.append(
        "The time of the prefill is not recorded"
        if not convention.prefill_timed
        else "Prefill and decoding are not timed apart"
    )
    out.append("Prompts, token ids, memory and software versions are not recorded")
    out.append(
        "When a question began is not recorded, only when its line was written"
        if any(choice.line.tstamp for choice in choices)
        else "When it was measured is not recorded"
    )
    return out
