"""Records of a source to rows of a result file; what is not known stays null."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from specbench.errors import ResultsError
from specbench.importing.records import Answer, Published, Turn
from specbench.schema.result import BASELINE

MOST_ROUNDS = 2_000_000
"""Rounds of one file beyond which it is refused."""

_INT32 = 2**31 - 1


def rows_of(
    source: Published, arm: str, method: str, model: str, task: str
) -> list[dict[str, Any]]:
    """Return a row for each answer of a source.

    Every turn's rounds begin with its prefill, as everywhere in specbench. Its `emitted` is what
    the source credits to no round of its own, so that mean acceptance length is the number that
    the source's authors would print.

    Raises:
        ResultsError: If the file claims more rounds or tokens than a result file can hold.
    """
    rounds = sum(len(turn.rounds or ()) for answer in source.answers for turn in answer.turns)
    if rounds > MOST_ROUNDS:
        raise ResultsError(
            f"'{source.path}' cannot be imported",
            f"it claims {rounds} rounds, and at most {MOST_ROUNDS} are believed",
            "Check its numbers of steps.",
        )
    rows = []
    for position, answer in enumerate(source.answers):
        row: dict[str, Any] = {
            "arm": arm,
            "method": method,
            "model": model,
            "task": task,
            "category": answer.category,
            "sample_id": answer.sample_id,
            "repeat": answer.repeat,
            "process": 0,
            "position": position,
            "started_unix": answer.started_unix,
            "error": answer.error,
        }
        if answer.error is None:
            row |= _measured(answer, arm == BASELINE)
            if max(row["new_tokens"], row["prompt_tokens"] or 0) > _INT32:
                raise ResultsError(
                    f"'{source.path}' cannot be imported",
                    f"question {answer.sample_id} claims {row['new_tokens']} new tokens",
                    "Check its numbers of tokens.",
                )
        rows.append(row)
    return rows


def _measured(answer: Answer, plain: bool) -> dict[str, Any]:
    turns = answer.turns
    recorded = all(turn.rounds is not None for turn in turns)
    return {
        "prompt_tokens": _sum(turns, lambda turn: turn.prompt_tokens),
        "new_tokens": sum(turn.new_tokens for turn in turns),
        "output_text": None if turns[0].text is None else [turn.text for turn in turns],
        "total_ns": _sum(turns, lambda turn: turn.total_ns),
        "ttft_ns": turns[0].prefill_ns,
        "prefill_ns": _sum(turns, lambda turn: turn.prefill_ns),
        "decode_ns": _sum(turns, lambda turn: turn.decode_ns),
        "target_forwards": _sum(turns, _forwards),
        "draft_forwards": 0 if plain else None,
        "draft_tokens": 0 if plain else None,
        "rounds": [
            entry for place, turn in enumerate(turns) for entry in _rounds(place, turn, plain)
        ]
        if recorded
        else None,
    }


def _forwards(turn: Turn) -> int | None:
    if turn.rounds is None or turn.prefill_forwards is None:
        return None
    return turn.prefill_forwards + len(turn.rounds)


def _rounds(place: int, turn: Turn, plain: bool) -> Iterable[dict[str, Any]]:
    nothing = 0 if plain else None
    yield {
        "turn": place,
        "proposed": 0,
        "accepted": 0,
        "emitted": turn.prefill_tokens,
        "nodes": 0,
        "target_forwards": turn.prefill_forwards,
        "draft_forwards": nothing,
        "draft_tokens": nothing,
    }
    for round_ in turn.rounds or ():
        yield {
            "turn": place,
            "proposed": nothing if round_.proposed is None else round_.proposed,
            "accepted": round_.accepted,
            "emitted": round_.emitted,
            "nodes": nothing,
            "target_forwards": 1,
            "draft_forwards": nothing,
            "draft_tokens": nothing,
        }


def _sum(turns: Iterable[Turn], read: Callable[[Turn], int | None]) -> int | None:
    """Return a sum over the turns, None where one of them is not known."""
    values = [read(turn) for turn in turns]
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
