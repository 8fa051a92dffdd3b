"""Which file is the baseline, and whether two files may stand in one result file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from specbench.errors import NotComparable, UsageError
from specbench.importing.records import Answer, Source

_TIMED_ALIKE = {"eagle": "answers", "medusa": "answers", "spec_bench": "answers"}
"""Formats whose times mean the same."""


@dataclass(frozen=True)
class Pairing:
    """The files of one import by their parts.

    Attributes:
        baseline: The file of plain decoding, or None.
        methods: The files of methods.
    """

    baseline: Source | None
    methods: tuple[Source, ...]


def paired(sources: Sequence[Source], baseline: Path | None = None) -> Pairing:
    """Tell the baseline from the methods.

    Args:
        sources: The files, read.
        baseline: The file that the user names as the baseline, among `sources`.

    Raises:
        UsageError: If several files are plain decoding and none is named, or nothing is left
            beside the baseline.
        NotComparable: If a file cannot be set beside the baseline.
    """
    chosen: Source | None
    if baseline is not None:
        chosen = next(s for s in sources if s.path.resolve() == baseline.resolve())
        if len(sources) == 1:
            raise UsageError(
                "There is no method beside the baseline",
                f"'{chosen.path}' is the only file",
                "Give the files of the methods too, or leave --baseline out.",
            )
    else:
        plain = [source for source in sources if source.plain]
        if len(plain) > 1 and len(sources) > 1:
            raise UsageError(
                "Several files are plain decoding",
                ", ".join(f"'{source.path}'" for source in plain),
                "Name the one to measure against with --baseline FILE.",
            )
        chosen = plain[0] if plain and len(sources) > 1 else None
    methods = tuple(source for source in sources if source is not chosen)
    if chosen is not None:
        for method in methods:
            _check(chosen, method)
    return Pairing(chosen, methods)


def _check(baseline: Source, method: Source) -> None:
    """Refuse a pair of files whose rows do not belong together."""
    one, other = (_TIMED_ALIKE.get(s.format, s.format) for s in (baseline, method))
    if one != other:
        raise _clash(
            baseline,
            method,
            f"their times mean different things ({baseline.format} and {method.format})",
            "Give files that one project's scripts wrote, or correct --format.",
        )
    if baseline.label.sampling and method.label.sampling:
        laws = [dict(source.label.sampling) for source in (baseline, method)]
        if laws[0] != laws[1]:
            raise _clash(
                baseline,
                method,
                f"their names record different target laws: {laws[0]} and {laws[1]}",
                "Give files of one law, or state it with --temperature T if a name is wrong.",
            )
    if baseline.load and method.load and baseline.load != method.load:
        raise _clash(
            baseline,
            method,
            f"their servers were loaded differently: {baseline.load} and {method.load}",
            "Measure both under one load.",
        )
    first, second = _by_id(baseline), _by_id(method)
    common = [key for key in first if key in second]
    if not common:
        raise _clash(baseline, method, "they have no question in common", "Give files of one task.")
    for key in common:
        difference = _difference(first[key], second[key])
        if difference:
            raise _clash(
                baseline,
                method,
                f"they do not hold the same questions: {key[0]} has {difference}",
                "Give files of one task.",
            )


def _by_id(source: Source) -> Mapping[tuple[str, int], Answer]:
    return {(answer.sample_id, answer.repeat): answer for answer in source.answers}


def _difference(one: Answer, other: Answer) -> str:
    """Return in which respect two answers are to different questions, or nothing."""
    if one.error or other.error:
        return ""
    if len(one.turns) != len(other.turns):
        return f"{len(one.turns)} turns in one and {len(other.turns)} in the other"
    prompts = [answer.turns[0].prompt_tokens for answer in (one, other)]
    if None not in prompts and prompts[0] != prompts[1]:
        return f"a prompt of {prompts[0]} tokens in one and of {prompts[1]} in the other"
    return ""


def _clash(baseline: Source, method: Source, why: str, fix: str) -> NotComparable:
    return NotComparable(f"'{method.path}' cannot be paired with '{baseline.path}'", why, fix)
