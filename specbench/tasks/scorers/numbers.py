r"""Exact match of the final number of a worked answer.

The number is looked for where the benchmark says it stands and then in ever looser places: after
the last `####` that a number follows (Cobbe et al., 2021; an earlier one may be a heading), in
`\boxed{}`, after words such as "the answer is", and at last anywhere. Values are compared as
exact fractions, so 18, 18.0 and $18.00 are one answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from specbench.tasks.base import Sample, Score

_CONSIDERED_CHARACTERS = 20_000
_LINE_CHARACTERS = 300

_NUMBER = re.compile(
    r"""
    (?<![A-Za-z_0-9])                            # not inside a word or another number
    (?P<sign>(?:(?<![)\]}%])-)?)                 # a minus that is no subtraction
    (?:[$€£¥]\ ?)?(?P<inner_sign>-?)
    (?>
      (?P<whole>[0-9]+)\ (?P<above>[0-9]+)/(?P<below>[0-9]+)      # 1 1/2
      |
      (?P<number>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?   # 1,234.5
        |[0-9]+(?:\.[0-9]+)?
        |(?<!\.)\.[0-9]+)
      (?:[eE](?P<exponent>[+-]?[0-9]{1,2})(?![0-9A-Za-z]))?
      (?:\ ?/\ ?(?P<divisor>[0-9]+(?:\.[0-9]+)?))?
    )
    (?!(?:st|nd|rd|th)\b)
    """,
    re.VERBOSE,
)
_MARKER = re.compile(r"####+")
_BOXED = re.compile(r"\\boxed\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?[0-9.]+)\s*\}\s*\{\s*([0-9.]+)\s*\}")
_ANNOUNCED = re.compile(
    r"\banswer\b[^.\n]{0,80}?(?:\b(?:is|equals|would be|will be)\b|=|:)\W*?(?=[^\W_]|[-$.])",
    re.IGNORECASE,
)
_REPLACED = str.maketrans({"−": "-", "﹣": "-", "－": "-", "\u00a0": " ", "\u202f": " "})


def extract_number(text: str) -> Fraction | None:
    """Return the final number of a worked answer, or None where there is none."""
    text = _plain(text[-_CONSIDERED_CHARACTERS:])
    for match in reversed(list(_MARKER.finditer(text))):
        value = _announced_number(_line_after(text, match))
        if value is not None:
            return value
    for match in reversed(list(_BOXED.finditer(text))):
        value = _last_number(match.group(1))
        if value is not None:
            return value
    for match in reversed(list(_ANNOUNCED.finditer(text))):
        value = _announced_number(_line_after(text, match))
        if value is not None:
            return value
    return _last_number(text)


def _line_after(text: str, match: re.Match[str]) -> str:
    return text[match.end() : match.end() + _LINE_CHARACTERS].lstrip().split("\n", 1)[0]


def _plain(text: str) -> str:
    text = text.translate(_REPLACED).replace("\\$", "$").replace("{,}", ",").replace("\\!", "")
    return _FRACTION.sub(r"\1/\2", text.replace("\\%", "%"))


def _announced_number(line: str) -> Fraction | None:
    """Return the result in what follows "the answer is": after the last `=`, else the first."""
    sentence = re.split(r"[.!?](?:\s|$)", line, maxsplit=1)[0]
    if "=" in sentence:
        return _first_number(sentence.rpartition("=")[2])
    return _first_number(sentence)


def _first_number(text: str) -> Fraction | None:
    match = _NUMBER.search(text)
    return None if match is None else _value(match)


def _last_number(text: str) -> Fraction | None:
    matches = list(_NUMBER.finditer(text))
    return _value(matches[-1]) if matches else None


def _value(match: re.Match[str]) -> Fraction | None:
    part = match.groupdict()
    negative = (part["sign"] == "-") != (part["inner_sign"] == "-")
    try:
        if part["whole"] is not None:
            value = int(part["whole"]) + Fraction(int(part["above"]), int(part["below"]))
        else:
            value = Fraction(part["number"].replace(",", ""))
            if part["exponent"] is not None:
                value *= Fraction(10) ** int(part["exponent"])
            if part["divisor"] is not None:
                value /= Fraction(part["divisor"])
    except (ValueError, ZeroDivisionError):
        return None
    return -value if negative else value


def show_number(value: Fraction) -> str:
    """Return a number as people write it."""
    if value.denominator == 1:
        return str(value.numerator) if value.numerator.bit_length() < 400 else "a huge number"
    as_float = float(value) if abs(value.numerator.bit_length()) < 900 else float("inf")
    return f"{as_float:g}" if Fraction(f"{as_float:g}") == value else f"{value}"[:80]


class ExactMatch:
    """1 where the final number of the last answer equals the reference."""

    name = "exact_match"
    version = 1

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
