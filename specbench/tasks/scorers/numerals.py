r"""Numbers as people, languages and LaTeX write them, as exact fractions.

A text is brought into a plain form once (`plain`): ASCII digits, one minus sign, `1/2` for \frac
and for the half sign, `^3` for a raised three, `*` for every multiplication sign, and one kind of
narrow space, which groups digits.
"""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction

_NARROW = "\u202f"
_SCALES = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "lakh": 10**5,
    "lakhs": 10**5,
    "crore": 10**7,
    "crores": 10**7,
}

NUMBER = re.compile(
    rf"""
    (?<![A-Za-z_0-9])(?<![0-9]:)(?<!\^)          # not inside a word, a number, a time of day
    (?P<sign>(?:(?<![)\]}}%])-)?)                # a minus that is no subtraction
    (?:[$€£¥₹]\ ?)?(?P<inner_sign>-?)
    (?>
      (?P<whole>[0-9]+)[ {_NARROW}](?P<above>[0-9]+)/(?P<below>[0-9]+)     # 1 1/2
      |
      (?P<number>[0-9]{{1,3}}(?:,[0-9]{{3}})+(?![0-9])(?:\.[0-9]+)?        # 1,234.5
        |[0-9]{{1,2}}(?:,[0-9]{{2}})+,[0-9]{{3}}(?![0-9])(?:\.[0-9]+)?     # 1,00,000
        |[0-9]{{1,3}}(?:{_NARROW}[0-9]{{3}})+(?![0-9])(?:\.[0-9]+)?        # 1 000
        |(?P<dotted>[0-9]{{1,3}}(?:\.[0-9]{{3}}){{2,}})(?![0-9]|\.[0-9])     # 1.000.000
        |[0-9]+(?:\.[0-9]+)?
        |(?<!\.)\.[0-9]+)
      (?:[eE](?P<exponent>[+-]?[0-9]{{1,2}})(?![0-9A-Za-z]))?
      (?:\ ?/\ ?(?P<divisor>[0-9]+(?:\.[0-9]+)?))?
      (?:\ (?P<scale>{"|".join(_SCALES)})\b|(?P<thousands>[kK])(?![A-Za-z0-9]))?
    )
    (?!(?:st|nd|rd|th)\b)(?!:[0-9])
    """,
    re.VERBOSE,
)

_FRACTION = re.compile(
    r"\\[dt]?frac\s*(?:\{\s*(-?[0-9.]{1,40})\s*\}\s*\{\s*([0-9.]{1,40})\s*\}|([0-9])\s*([0-9]))"
)
_REPLACED = str.maketrans(
    {"\u2212": "-", "\ufe63": "-", "\uff0d": "-", "\u2009": _NARROW, "\u2008": _NARROW}
    | {"\u00a0": _NARROW, "\u00d7": "*", "\u22c5": "*", "\u00b7": "*", "\u00f7": "/"}
    | {"\u2044": "/", "\uff05": "%"}
)
_LATEX = (
    (re.compile(r"\\(?:times|cdot|ast)(?![A-Za-z])"), "*"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?"), ""),
    (re.compile(r"\^\{\s*(-?[0-9]+)\s*\}"), r"^\1"),
    (re.compile(r"\\[!]|\\(?:left|right|displaystyle)(?![A-Za-z])"), ""),
    (re.compile(r"\\[,;:]"), _NARROW),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\([$%])"), r"\1"),
)
_SPACED = re.compile(
    r"(?:(?<=[$€£¥₹=:*])|(?<=\bis)|(?<=\bare)|(?<=\bequals)|^(?=[^A-Za-z\n]*$))"
    r"[ *$€£¥₹]{0,4}[0-9]{1,3}(?: [0-9]{3})++(?:\.[0-9]++)?+(?![0-9/:-]| ?[+/]| ?\* ?[0-9])",
    re.MULTILINE,
)
"""1 234 where a value is announced or alone on its line; elsewhere it may be two numbers."""

_OTHER_CHARACTER = re.compile(r"[^\x00-\x7f]")

_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
_UNITS += " fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: value for value, word in enumerate(_UNITS.split())}
_WORDS |= {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)}
_SPELLED = re.compile(
    rf"\b(?:{'|'.join(_WORDS)})\b(?:[ -](?:and )?(?:{'|'.join([*_WORDS, *_SCALES])})\b)*",
    re.IGNORECASE,
)

_FORMULA = re.compile(r"[0-9.,+*/^() $€£¥₹-]{1,120}")
_HIGHEST_POWER = 64


def plain(text: str) -> str:
    """Return a text with its digits, signs and LaTeX in plain form."""
    text = _OTHER_CHARACTER.sub(_in_ascii, text.translate(_REPLACED))
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    text = _SPACED.sub(_grouped, text)
    return _FRACTION.sub(lambda match: "/".join(part for part in match.groups() if part), text)


def _grouped(match: re.Match[str]) -> str:
    """Return a number whose groups of three stand apart, grouped by narrow spaces."""
    return re.sub(r"(?<=[0-9]) (?=[0-9])", _NARROW, match.group())


def _in_ascii(match: re.Match[str]) -> str:
    """Return a digit of any script, a fraction sign or a raised digit in plain form."""
    character = match.group()
    digit = unicodedata.digit(character, None)
    kind = unicodedata.decomposition(character)
    if digit is not None:
        return f"^{digit}" if kind.startswith("<super>") else str(digit)
    if kind.startswith("<fraction>"):
        value = Fraction(unicodedata.numeric(character)).limit_denominator(100)
        before = match.string[match.start() - 1 : match.start()]
        return f"{' ' if before.isdigit() else ''}{value.numerator}/{value.denominator}"
    return character


def numbers(text: str) -> Iterator[tuple[re.Match[str], Fraction]]:
    """Yield the numbers of a plain text with their places, left to right."""
    for match in NUMBER.finditer(text):
        value = _value(match)
        if value is not None:
            yield match, value


def first_number(text: str) -> Fraction | None:
    """Return the first number of a plain text."""
    return next((value for _, value in numbers(text)), None)


def last_number(text: str) -> Fraction | None:
    """Return the last number of a plain text."""
    found = list(NUMBER.finditer(text))
    return _value(found[-1]) if found else None


def spelled_number(text: str) -> Fraction | None:
    """Return the first number that is written out in English, such as "twenty-four thousand"."""
    match = _SPELLED.search(text)
    if match is None:
        return None
    total = group = 0
    for word in re.findall(r"[a-z]+", match.group().lower()):
        if word in _WORDS:
            group += _WORDS[word]
        elif word == "hundred":
            group = max(group, 1) * 100
        elif word in _SCALES:
            total, group = total + max(group, 1) * _SCALES[word], 0
    return Fraction(total + group)


def formula(text: str) -> Fraction | None:
    """Return the value of a text that is nothing but a calculation; None for every other text.

    Products, quotients, powers and sums; differences only with spaces around the minus, since
    10-12 is a range.
    """
    text = text.strip().rstrip(".")
    if not _FORMULA.fullmatch(text) or re.search(r"[0-9]-[0-9]", text):
        return None
    source = re.sub(r"[$€£¥₹]", "", text).replace("^", "**")
    source = re.sub(r"(?<=[0-9]),(?=[0-9]{2,3}(?![0-9]))", "", source)
    if "," in source:
        return None
    try:
        return _computed(ast.parse(source.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError):
        return None


def _computed(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as value):
            return Fraction(str(value))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_computed(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            base, power = _computed(left), _computed(right)
            if power.denominator != 1 or abs(power) > _HIGHEST_POWER:
                raise ValueError("a power that nobody writes")
            return Fraction(base ** int(power))
        case ast.BinOp(left=left, op=operation, right=right):
            first, second = _computed(left), _computed(right)
            if isinstance(operation, ast.Add):
                return first + second
            if isinstance(operation, ast.Sub):
                return first - second
            if isinstance(operation, ast.Mult):
                return first * second
            if isinstance(operation, ast.Div):
                return first / second
    raise ValueError("no calculation")


def _value(match: re.Match[str]) -> Fraction | None:
    part = match.groupdict()
    negative = (part["sign"] == "-") != (part["inner_sign"] == "-")
    try:
        if part["whole"] is not None:
            value = int(part["whole"]) + Fraction(int(part["above"]), int(part["below"]))
        else:
            number = part["number"].replace(",", "").replace(_NARROW, "")
            value = Fraction(number.replace(".", "") if part["dotted"] else number)
            if part["exponent"] is not None:
                value *= Fraction(10) ** int(part["exponent"])
            if part["divisor"] is not None:
                value /= Fraction(part["divisor"])
            if part["scale"] is not None:
                value *= _SCALES[part["scale"]]
            if part["thousands"] is not None:
                value *= 1000
    except (ValueError, ZeroDivisionError):
        return None
    return -value if negative else value


def show_number(value: Fraction) -> str:
    """Return a number as people write it."""
    if value.denominator == 1:
        return str(value.numerator) if value.numerator.bit_length() < 400 else "a huge number"
    as_float = float(value) if abs(value.numerator.bit_length()) < 900 else float("inf")
    return f"{as_float:g}" if Fraction(f"{as_float:g}") == value else f"{value}"[:80]
