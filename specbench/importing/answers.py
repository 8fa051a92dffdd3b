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
from typing import Any, NamedTuple

from specbench.importing import reading
from specbench.importing.answer_lines import COLON, LENGTHS, RawChoice, RawTurn, read_line
from specbench.importing.naming import label_of
from specbench.importing.reading import BadRecord, Document, Record
from specbench.importing.records import PLAIN_METHOD, Answer, Notes, Source, Step, Turn

_ERROR = "ERROR"
"""The text that the scripts write where a generation raised an error."""

_PROMPT_ALONE = ("eagle", "eagle2", "eagle3", "hydra", "medusa", "rest", "token_recycling")
"""Methods of Spec-Bench whose loop begins after a forward over the prompt."""

_PROMPT_IN_FIRST = (PLAIN_METHOD, "lookahead", "pld", "sps")
"""Methods of Spec-Bench whose first step runs over the prompt."""


@dataclass(frozen=True)
class Convention:
    """How one family of scripts counts.

    Attributes:
        name: Name of the format.
        steps: Key of the steps of each turn.
        last_index: Whether the steps are the last index of a loop, one fewer than their number.
        prefill_timed: Whether the wall time holds the prompt's forward.
        prompt_alone: Whether a forward over the prompt precedes the loop; None where the method
            decides.
        unknown: What its files do not record.
        odd: What all of its files do otherwise than specbench.
    """

    name: str
    steps: str
    last_index: bool
    prefill_timed: bool
    prompt_alone: bool | None
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
    "eagle": Convention("eagle", "idxs", True, True, True, (_OVERSHOOT,), (_RECOUNT,)),
    "medusa": Convention("medusa", "idxs", True, True, True, (_OVERSHOOT,)),
    "rest": Convention("rest", "idxs", True, False, True, (_OVERSHOOT,)),
}
"""The four families by format name."""


class _Counting(NamedTuple):
    """What was found out about a whole file's counts.

    Attributes:
        last_index: Whether the steps are one fewer than their number.
        uncounted: Whether the script never counted its new tokens.
    """

    last_index: bool
    uncounted: bool


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


def read(document: Document, format_name: str, skip_bad: bool = False) -> Source:
    """Read an answer file.

    Args:
        document: Its decoded lines.
        format_name: A key of `CONVENTIONS`.
        skip_bad: Whether lines that cannot be read are left out.

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
        earlier = seen.setdefault(raw[0].sample_id, record.line)
        if earlier != record.line and not skip_bad:
            raise BadRecord(
                f"question_id {raw[0].sample_id} stands in line {earlier} already; --skip-bad "
                "keeps the last line, as the authors' own scripts do"
            )
        seen[raw[0].sample_id] = record.line
        return raw

    lines, skipped = reading.read_each(document, line, skip_bad)
    kept = [raw for raw in lines if seen[raw[0].sample_id] == raw[0].line]
    if len(kept) < len(lines):
        notes.add("A question stands more than once: its last line is kept")
    if skipped:
        notes.add(reading.left_out(skipped))
    choices = [choice for raw in kept for choice in raw]
    counting = _counting(choices, convention, notes)
    label = label_of(choices[0].name)
    plain = _is_plain(choices, counting)
    prefill = _prefill_forwards(convention, PLAIN_METHOD if plain else label.method)
    answers = tuple(
        _answer(choice, convention, counting, plain, prefill, notes) for choice in choices
    )
    if len({choice.name for choice in choices}) > 1:
        notes.add("model_id differs between lines: the first line's is read")
    if max(len(raw) for raw in kept) > 1:
        notes.add("Several choices of a question are repeats, each drawn with a seed of its own")
    return Source(
        path=document.path,
        sha256=document.sha256,
        format=convention.name,
        label=label,
        answers=answers,
        plain=plain,
        odd=notes.sentences(),
        unknown=tuple(f"{text}." for text in _unknown(convention, choices, answers, plain)),
    )


def _counting(choices: Sequence[RawChoice], convention: Convention, notes: Notes) -> _Counting:
    """Find out how a file counts, where the scripts of one family differ among themselves."""
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
    return _Counting(last_index, uncounted)


def _rounds(turn: RawTurn, counting: _Counting) -> int:
    return turn.steps + int(counting.last_index)


def _tokens(turn: RawTurn, counting: _Counting) -> int:
    return _rounds(turn, counting) if counting.uncounted else turn.new_tokens


def _is_plain(choices: Sequence[RawChoice], counting: _Counting) -> bool:
    """Return whether every step of every turn yields one token."""
    good = [choice for choice in choices if all(turn.text != _ERROR for turn in choice.turns)]
    return bool(good) and all(
        all(length == 1 for length in choice.lengths or ())
        and all(_rounds(turn, counting) == _tokens(turn, counting) for turn in choice.turns)
        for choice in good
    )


def _prefill_forwards(convention: Convention, method: str | None) -> int | None:
    if convention.prompt_alone is not None:
        return int(convention.prompt_alone)
    return 1 if method in _PROMPT_ALONE else 0 if method in _PROMPT_IN_FIRST else None


def _answer(
    choice: RawChoice,
    convention: Convention,
    counting: _Counting,
    plain: bool,
    prefill: int | None,
    notes: Notes,
) -> Answer:
    seconds = sum(turn.seconds for turn in choice.turns)
    started = max(0.0, choice.ended_unix - seconds) if choice.ended_unix else 0.0
    failed = next((at for at, turn in enumerate(choice.turns) if turn.text == _ERROR), None)
    about = (choice.sample_id, choice.repeat, choice.category, started)
    if failed is not None:
        return Answer(*about, (), f"the source's generation of turn {failed} raised an error")
    parts = _split(choice, counting, notes)
    turns = []
    for raw, lengths in zip(choice.turns, parts, strict=True):
        tokens = _tokens(raw, counting)
        rounds = _rounds(raw, counting)
        left = 0
        if lengths is not None:
            steps, left = _steps(lengths, tokens, notes)
        else:
            steps = (Step(1, 0) if plain else Step(None, None),) * rounds
        total = reading.nanoseconds(raw.seconds)
        turns.append(
            Turn(
                new_tokens=tokens,
                total_ns=total,
                text=raw.text,
                steps=steps,
                prefill_tokens=left,
                prefill_forwards=prefill,
                decode_ns=None if convention.prefill_timed else total,
            )
        )
    return Answer(*about, tuple(turns))


def _split(choice: RawChoice, counting: _Counting, notes: Notes) -> list[tuple[int, ...] | None]:
    """Divide a choice's accept lengths among its turns."""
    lengths = choice.lengths
    if lengths is None:
        return [None] * len(choice.turns)
    counts = [_rounds(turn, counting) for turn in choice.turns]
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
    edges = [0]
    for count in counts:
        edges.append(edges[-1] + count)
    return [lengths[low:high] for low, high in zip(edges, edges[1:], strict=False)]


def _steps(lengths: tuple[int, ...], tokens: int, notes: Notes) -> tuple[tuple[Step, ...], int]:
    """Return the rounds of a turn and the tokens that belong to none of them."""
    left = tokens - sum(lengths)
    steps = [Step(length, max(0, length - 1)) for length in lengths]
    if left == 1 and steps:
        steps[0] = Step(lengths[0], lengths[0])
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
    if any(turn.steps and turn.steps[0].emitted is None for a in answers for turn in a.turns):
        out.append("What each step accepted is not recorded, only the number of steps")
    if not plain:
        out.append("How many draft tokens a step proposed is not recorded")
        out.append("Time is not divided into draft, target and host")
        out.extend(sentence for sentence in convention.unknown)
    out.append(
        "The time of the prefill is not recorded"
        if not convention.prefill_timed
        else "Prefill and decoding are not timed apart"
    )
    out.append("Prompts, token ids, memory and software versions are not recorded")
    out.append(
        "When a question began is not recorded, only when its line was written"
        if any(choice.ended_unix for choice in choices)
        else "When it was measured is not recorded"
    )
    return out
