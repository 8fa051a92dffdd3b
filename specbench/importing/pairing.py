"""Which file is the baseline, and whether two files may stand in one result file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from specbench.errors import NotComparable, UsageError
from specbench.importing.records import Answer, Published

_TIMED_ALIKE = {"eagle": "answers", "medusa": "answers", "spec_bench": "answers"}
"""Formats whose times mean the same."""


def paired(
    sources: Sequence[Published], baseline: Path | None = None
) -> tuple[Published | None, list[Published]]:
    """Return the file of plain decoding, or None, and the files of methods.

    Args:
        sources: The files, read.
        baseline: The file that the user names as the baseline, among `sources`.

    Raises:
        UsageError: If several files are plain decoding and none is named, or nothing is left
            beside the baseline.
        NotComparable: If a file cannot be set beside the baseline.
    """
    chosen: Published | None
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
    methods = [source for source in sources if source is not chosen]
    if chosen is not None:
        for method in methods:
            _check(chosen, method)
    return chosen, methods


def _check(baseline: Published, method: Published) -> None:
    """Refuse a pair of files whose rows do not belong together."""
    formats = (baseline.format, method.format)
    laws = (dict(baseline.label.sampling), dict(method.label.sampling))
    loads = (baseline.load, method.load)
    first, second = (
        {(answer.sample_id, answer.repeat): answer for answer in source.answers}
        for source in (baseline, method)
    )
    common = [key for key in first if key in second]
    differences = ((key[0], _difference(first[key], second[key])) for key in common)
    different = next((f"{name} has {how}" for name, how in differences if how), "")
    if len({_TIMED_ALIKE.get(name, name) for name in formats}) > 1:
        why = f"their times mean different things ({' and '.join(formats)})"
        fix = "Give files that one project's scripts wrote, or correct --format."
    elif all(laws) and laws[0] != laws[1]:
        why = f"their names record different target laws: {laws[0]} and {laws[1]}"
        fix = "Give files of one law, or state it with --temperature T if a name is wrong."
    elif all(loads) and loads[0] != loads[1]:
        why = f"their servers were loaded differently: {' and '.join(loads)}"
        fix = "Measure both under one load."
    elif not common:
        why, fix = "they have no question in common", "Give files of one task."
    elif different:
        why = f"they do not hold the same questions: {different}"
        fix = "Give files of one task."
    else:
        return
    raise NotComparable(f"'{method.path}' cannot be paired with '{baseline.path}'", why, fix)


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
