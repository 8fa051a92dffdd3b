r"""Exact match of the final number of a worked answer.

A further question that a base model goes on to ask itself is no answer. The number is looked for
where the benchmark says it stands and then in ever looser places: after the last `####` that is no
heading (Cobbe et al., 2021), in `\boxed{}`, in the sentence that announces "the answer is", and at
last anywhere. Values are compared as exact fractions, so 18, 18.0 and $18.00 are one answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from specbench.tasks.base import Sample, Score
from specbench.tasks.scorers.numerals import (
    first_number,
    formula,
    last_number,
    numbers,
    plain,
    show_number,
    spelled_number,
)

_CONSIDERED_CHARACTERS = 20_000
_LINE_CHARACTERS = 300

_NEXT_QUESTION = re.compile(r"\n[#* ]{0,4}(?:Question|Problem|Q|Human|User)\s{0,3}:", re.IGNORECASE)
_MARKER = re.compile(r"####+")
_HEADING = re.compile(
    r"\W{0,4}(?:(?:step|part|case|method|option|solution|explanation|check|verification|note)\b"
    r"|[^\d\n=:]{1,60}\s[0-9]{1,3}\s{0,3}:)",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\f?box(?:ed)?\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
_WORDS = re.compile(r"\\(?:text|mathrm|textbf|mbox)\s*\{([^{}]*)\}")
_ANNOUNCED = re.compile(
    r"\banswer\b[^.\n]{0,80}?(?:\b(?:is|equals|would be|will be)\b|=|:)\W*?(?=[^\W_]|[-$.])",
    re.IGNORECASE,
)
_BESIDE = re.compile(
    r"\b(?:not|instead of|rather than)\s+\$?-?[0-9][0-9.,]*"
    r"|\b(?:in|after|over|for|within|during|per|every|each|of)\s+[0-9][0-9.,]*\s+"
    r"(?:second|minute|hour|day|week|month|year|time|trip|round)s?\b",
    re.IGNORECASE,
)
_SHARE_OF = re.compile(r"\s?%?\s+of\s+[^.]*?\b(?:is|are|equals|makes|gives)\b", re.IGNORECASE)


def extract_number(text: str) -> Fraction | None:
    """Return the final number of a worked answer, or None where there is none."""
    text = plain(text[-_CONSIDERED_CHARACTERS:])
    text = _without_next_question(text)
    for match in reversed(list(_MARKER.finditer(text))):
        value = _marked(text, match)
        if value is not None:
            return value
    for match in reversed(list(_BOXED.finditer(text))):
        value = _boxed(match.group(1))
        if value is not None:
            return value
    for match in reversed(list(_ANNOUNCED.finditer(text))):
        value = _announced(_line_after(text, match))
        if value is not None:
            return value
    return last_number(text)


def _without_next_question(text: str) -> str:
    """Cut where a base model asks itself the next question; the first one is the prompt's."""
    for match in _NEXT_QUESTION.finditer(text):
        if first_number(text[: match.start()]) is not None:
            return text[: match.start()]
    return text


def _line_after(text: str, match: re.Match[str]) -> str:
    return text[match.end() : match.end() + _LINE_CHARACTERS].lstrip().split("\n", 1)[0]


def _marked(text: str, match: re.Match[str]) -> Fraction | None:
    """Return the number behind a `####`; None where that begins a heading or nothing follows."""
    line = _line_after(text, match)
    return None if _HEADING.match(line) else _result(line)


def _boxed(content: str) -> Fraction | None:
    """Return the number of a box: words in it are units, unless there is nothing else."""
    bare = _WORDS.sub(" ", content)
    if first_number(bare) is None:
        return _announced(_WORDS.sub(r"\1", content))
    return _result(bare)


def _result(line: str) -> Fraction | None:
    """Return what a line comes to: its calculation's value, or what stands behind the last `=`."""
    line = line.strip().strip("*_ ").rpartition("=")[2]
    line = re.sub(r"(?<=[0-9]) (?=[0-9]{3}(?![0-9/]))", "\u202f", line)  # 1 000
    value = formula(line)
    return value if value is not None else first_number(line)


def _announced(line: str) -> Fraction | None:
    """Return the result of a sentence such as "[the answer is] 20% of 90 is 18".

    Behind the last `=`; else the first number, but for those that a part of the sentence only
    mentions: what it is not, how long it took, what it is a share of. Money comes before other
    numbers where the sentence does not begin with one.
    """
    sentence = re.split(r"[.!?](?:\s|$)", line, maxsplit=1)[0]
    if "=" in sentence:
        return _result(sentence)
    sentence = _BESIDE.sub(" ", sentence)
    found = list(numbers(sentence))
    if not found:
        return spelled_number(sentence)
    match, value = found[0]
    share = _SHARE_OF.match(sentence, match.end())
    if share is not None:
        behind = first_number(sentence[share.end() :])
        return value if behind is None else behind
    if re.search(r"[A-Za-z]{2}", sentence[: match.start()]):
        money = [each for place, each in found if place.group()[0] in "$€£¥₹"]
        return money[-1] if money else value
    return value


class ExactMatch:
    """1 where the final number of the last answer equals the reference."""

    name = "exact_match"
    version = 3

    def score(self, sample: Sample, answers: Sequence[str]) -> Score:
        """Score the answer to the last turn."""
        if not isinstance(sample.reference, (str, int, float)) or not answers:
            return Score(None, "there is no reference" if answers else "there is no answer")
        expected = extract_number(str(sample.reference))
        if expected is None:
            return Score(None, "the reference holds no number")
        found = extract_number(answers[-1])
        if found is None:
            return Score(0.0, "no number found")
        return Score(float(found == expected), show_number(found))
