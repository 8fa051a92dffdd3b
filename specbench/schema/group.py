"""A group of keys of a configuration as a typed value, checked by pydantic.

A subclass of `Group` states types and ranges; this module says in one line what a mistake is told:
the full key path, the value that was given and the values that are allowed. An unknown key is an
error too, with the nearest key that exists.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import (
    BeforeValidator,
    Field,
    Strict,
    StrictStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from pydantic_core import ArgsKwargs, PydanticCustomError

from specbench.errors import ConfigError, nearest

__all__ = [
    "Keys",
    "Group",
    "Number",
    "Text",
    "Whole",
    "Words",
    "cannot_be",
    "problem",
    "refused",
    "unknown_key",
]

_LONGEST_SHOWN = 100
"""Characters of a value that an error shows."""

_MISSING = "???"
"""The marker that a configuration file uses for a value that the user must give."""

_PATH = "{path}"
"""Stands in the words of an error for the key path of the group, which only its reader knows."""

Text = Annotated[StrictStr, Field(min_length=1)]
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Keys = Annotated[dict[Any, Any], BeforeValidator(lambda value: {} if value is None else value)]
Words = Annotated[
    tuple[StrictStr, ...], BeforeValidator(lambda value: () if value is None else value)
]


@dataclass(frozen=True)
class Group:
    """A group of keys. Subclasses are pydantic dataclasses, whose fields are the keys.

    Attributes:
        key_path: Where such a group stands, unless its reader says otherwise.
    """

    key_path: ClassVar[str] = ""

    @classmethod
    def from_dict(cls, values: Any, path: str | None = None) -> Self:
        """Validate a group of keys.

        Args:
            values: A mapping; None is an empty one.
            path: Its key path; None is `key_path`.

        Raises:
            ConfigError: If a key is unknown, missing or of a wrong value.
        """
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            raise _explained(error, cls, values, cls.key_path if path is None else path) from None

    @classmethod
    def keys_of(cls, values: Mapping[Any, Any]) -> Collection[str]:
        """Return every key that these values may have; by default the fields."""
        return [field.name for field in fields(cls)]

    @classmethod
    def prepared(cls, values: dict[Any, Any]) -> dict[Any, Any]:
        """Return the fields' values, of keys that are all known; by default the same."""
        return values

    @model_validator(mode="before")
    @classmethod
    def _read(cls, values: Any) -> Any:
        if isinstance(values, (ArgsKwargs, cls)):
            return values
        if values is None:
            values = {}
        if not isinstance(values, Mapping):
            raise problem(
                f"'{_PATH}' must be a group of keys, but it is {_shown(values)}",
                f"it holds the keys {', '.join(cls.keys_of({}))}",
            )
        known = cls.keys_of(values)
        for key in values:
            if key not in known:
                error = unknown_key(_PATH, str(key), known)
                raise problem(error.what, error.why, error.fix)
        return cls.prepared(dict(values))

    @field_validator("*", mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        if isinstance(value, str) and value == _MISSING:
            raise PydanticCustomError("unset", "the user has to give it")
        return value


def problem(what: str, why: str, fix: str = "") -> PydanticCustomError:
    """Return the error of a whole group, for its validators; "{path}" stands for its key path."""
    return PydanticCustomError("problem", "see context", {"what": what, "why": why, "fix": fix})


def refused(key: str, value: Any, allowed: str) -> PydanticCustomError:
    """Return the error for a value that the other keys of its group do not allow."""
    error = cannot_be(f"{_PATH}.{key}", value, allowed)
    return problem(error.what, error.why, error.fix)


def unknown_key(path: str, key: str, known: Collection[str]) -> ConfigError:
    """Return the error for a key that a group of keys has not, with the nearest that it has."""
    near = nearest(key, known)
    prefix = f"{path}." if path else ""
    return ConfigError(
        f"Unknown key '{prefix}{key}'" + (f". Did you mean '{prefix}{near}'?" if near else ""),
        f"{path or 'the configuration'} has the keys: {', '.join(known)}",
        f"Write {prefix}{near}= instead." if near else "Remove the key.",
    )


def _explained(error: ValidationError, kind: Any, values: Any, path: str) -> ConfigError:
    """Return the first mistake of a group in words."""
    first = error.errors(include_url=False)[0]
    field: FieldInfo | None = None
    for part in first["loc"]:
        inside = getattr(kind, "__pydantic_fields__", {})
        if isinstance(part, str) and part in inside:
            field = inside[part]
            kind = _group(field.annotation)
            values = values.get(part) if isinstance(values, Mapping) else None
            path = f"{path}.{part}" if path else str(part)
        elif kind is not None and isinstance(part, int):
            values = values[part]
    if first["type"] == "problem":
        # At the top the path is empty, and so is the point behind it.
        words = (first["ctx"][name] for name in ("what", "why", "fix"))
        if not path:
            words = (
                text.replace(f"{_PATH}.", "").replace(_PATH, "the configuration") for text in words
            )
        return ConfigError(*(text.replace(_PATH, path) for text in words))
    assert field is not None
    if first["type"] == "unset":
        return ConfigError(
            f"'{path}' is missing",
            "this configuration has no value of its own for it",
            f"Add {path}=VALUE to the command.",
        )
    shown = None if first["type"] == "missing" else values
    near = nearest(str(first["input"]), _options(field.annotation)) if shown is not None else None
    fix = f"Did you mean {path}={near}?" if near else ""
    if near and get_origin(field.annotation) is tuple:
        fix = f"Did you mean '{near}'?"
    return cannot_be(path, shown, field.description or _allowed(field.annotation, field), fix)


def cannot_be(path: str, value: Any, allowed: str, fix: str = "") -> ConfigError:
    """Return the error for a value that is not allowed at a key."""
    return ConfigError(
        f"'{path}' cannot be {_shown(value)}",
        f"it must be {allowed}",
        fix or f"Set {path}= to an allowed value.",
    )


def _group(kind: Any) -> Any:
    """Return the group of keys inside of a field's type, None where it holds none."""
    if hasattr(kind, "__pydantic_fields__"):
        return kind
    return next((group for part in get_args(kind) if (group := _group(part)) is not None), None)


def _options(kind: Any) -> list[str]:
    """Return the words that a field's type lets a user choose from."""
    if get_origin(kind) is Literal:
        return [str(option) for option in get_args(kind)]
    return [option for part in get_args(kind) for option in _options(part)]


def _allowed(kind: Any, *rules: Any) -> str:
    """Say what a type allows: "a whole number of at least 1 and at most 1024 or null"."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _allowed(parts[0], *rules, *parts[1:])
    if origin in (Union, types.UnionType):
        null = type(None)
        words = [_allowed(part, *rules) for part in parts if part is not null]
        return " or ".join([*words, "null"] if null in parts else words)
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin is tuple:
        if _group(kind) is not None:
            return "a list of groups of keys"
        options = _options(kind)
        return f"a list of: {', '.join(options)}" if options else "a list of texts"
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return ("a whole number" if kind is int else "a number") + _range(rules)
    return "a text" if kind is str else "a group of keys"


def _range(rules: Iterable[Any]) -> str:
    least = above = most = None
    for rule in rules:
        for limit in (*getattr(rule, "metadata", ()), rule):
            least, above = getattr(limit, "ge", least), getattr(limit, "gt", above)
            most = getattr(limit, "le", most)
    words = "" if least is None else f" of at least {_figure(least)}"
    words += "" if above is None else f" above {_figure(above)}"
    return words + ("" if most is None else f" and at most {_figure(most)}")


def _figure(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(list(value) if isinstance(value, tuple) else value)
    if not text.isprintable():
        text = repr(text)[1:-1]
    if len(text) > _LONGEST_SHOWN:
        text = f"{text[: _LONGEST_SHOWN - 3]}..."
    return f"'{text}'" if isinstance(value, str) else text
