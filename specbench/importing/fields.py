"""What the values of a published record must be, as pydantic fields, and what is said of bad ones.

Only what a field names is read; null stands for what is not recorded where a field allows it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError

MOST_TOKENS = 10_000_000
"""New tokens, or rounds, of one turn beyond which a line is not believed."""

LONGEST_STEP = 100_000
"""Accepted tokens of one round beyond which a line is not believed."""

LONGEST_SECONDS = 1e7
"""Wall time of one turn, in seconds, beyond which a line is not believed."""

LONGEST_NAME = 200
"""Characters of the longest id."""

_BEYOND_ALL = 1e20


class BadRecord(Exception):
    """A line that cannot be read; its text says why, without file and line."""


class Fields(BaseModel):
    """A part of a record, with a pydantic field for each value that is read of it."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the fields of decoded JSON.

        Raises:
            BadRecord: If one is missing, of another type or out of range.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise BadRecord(_reason(error)) from error


def one(kind: Any, value: Any, name: str) -> Any:
    """Return a single value as `kind`, one of the fields below; `name` is what errors call it.

    Raises:
        BadRecord: If it is none.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise BadRecord(_reason(error, name)) from error


def _reason(error: ValidationError, name: str = "") -> str:
    first = error.errors(include_url=False)[0]
    path = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    place = f"'{(name + ''.join(path)).lstrip('.')}'"
    if first["type"] == "missing" or first["input"] is None:
        return f"{place} is missing"
    if first["type"] in ("too_short", "too_long"):
        unit = "entries" if isinstance(first["input"], list) else "characters"
        return f"{place} has {first['ctx']['actual_length']} {unit}"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{place} is {shown(first['input'])}, and it must be {message}"


def shown(value: Any) -> str:
    """Return a short form of any value, for a message."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = type(value).__name__
    return text if len(text) <= 40 else f"{text[:37]}..."


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("a number")
    if not abs(value) < _BEYOND_ALL:
        raise ValueError(f"a number below {_BEYOND_ALL:g}")
    return value


def _name(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _writable(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("a text without half of a character in it") from error
    return text


Text = Annotated[str, Field(strict=True), AfterValidator(_writable)]
"""A text that can be written."""

Id = Annotated[Text, BeforeValidator(_name), Field(min_length=1, max_length=LONGEST_NAME)]
"""The id of a question: a whole number or a short text."""

Number = Annotated[float, BeforeValidator(_number), Field(ge=0)]
"""A number that is not below 0."""

Date = Annotated[Number, Field(le=1e11)]
"""Seconds since 1970."""

Seconds = Annotated[Number, Field(le=LONGEST_SECONDS)]
Milliseconds = Annotated[Number, Field(le=1e3 * LONGEST_SECONDS)]

Count = Annotated[int, BeforeValidator(_number), Field(ge=0, le=MOST_TOKENS)]
"""A number of tokens, or of rounds."""

Some = Annotated[Count, Field(ge=1)]
"""Such a number that is not 0."""


def nanoseconds(seconds: float) -> int:
    """Return whole nanoseconds."""
    return round(seconds * 1e9)
