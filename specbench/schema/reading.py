"""Read typed values out of a plain configuration node, with errors that a person can act on.

Every error names the full key path, the value that was given and the values that are allowed.
A key that nobody reads is an error too, with the nearest key that exists.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping
from typing import Any

from specbench.errors import ConfigError, nearest

_LONGEST_SHOWN = 100
"""Characters of a value that an error shows."""

_LARGEST = sys.float_info.max

MISSING = "???"
"""The marker that a configuration file uses for a value that the user must give."""


class Reader:
    """Takes the keys of one mapping, one by one, and checks each.

    Args:
        values: The mapping to read.
        path: Its key path, such as "sampling"; empty at the top.
        known: Every key that the mapping may have.

    Raises:
        ConfigError: If `values` is not a mapping or has a key that is not known.
    """

    def __init__(self, values: Any, path: str, known: Collection[str]) -> None:
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"'{path}' must be a group of keys, but it is {_shown(values)}",
                f"it holds the keys {', '.join(known)}",
            )
        self._values = values
        self._path = path
        for key in values:
            if key not in known:
                raise unknown_key(path, str(key), known)

    def path(self, key: str) -> str:
        """Return the full path of a key."""
        return f"{self._path}.{key}" if self._path else key

    def is_missing(self, key: str) -> bool:
        """Return whether the user has to give this value and has not."""
        return bool(self._values.get(key) == MISSING)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value as it is.

        Raises:
            ConfigError: If the value is the marker of a missing one.
        """
        if self.is_missing(key):
            raise ConfigError(
                f"'{self.path(key)}' is missing",
                "this configuration has no value of its own for it",
                f"Add {self.path(key)}=VALUE to the command.",
            )
        return self._values.get(key, default)

    def text(self, key: str, default: str | None = None, *, null: bool = False) -> Any:
        """Return a string, or None where `null` allows it.

        Raises:
            ConfigError: If the value is something else, or an empty string without a default.
        """
        value = self.get(key, default)
        if value is None and null:
            return None
        if not isinstance(value, str) or (not value and default != ""):
            raise self.error(key, value, "a text" + (" or null" if null else ""))
        return value

    def choice(self, key: str, options: Collection[str], default: str | None = None) -> str:
        """Return one of the given words.

        Raises:
            ConfigError: If the value is not among them; names the nearest.
        """
        value = self.get(key, default)
        if value not in options:
            near = nearest(str(value), options)
            fix = f"Did you mean {self.path(key)}={near}?" if near else ""
            raise self.error(key, value, f"one of {', '.join(options)}", fix)
        return str(value)

    def boolean(self, key: str, default: bool | None = None, *, null: bool = False) -> Any:
        """Return true or false, or None where `null` allows it.

        Raises:
            ConfigError: If the value is something else.
        """
        value = self.get(key, default)
        if not isinstance(value, bool) and not (value is None and null):
            raise self.error(key, value, "true or false" + (" or null" if null else ""))
        return value

    def integer(
        self,
        key: str,
        default: int | None = None,
        *,
        minimum: int,
        maximum: int | None = None,
        null: bool = False,
    ) -> Any:
        """Return a whole number from `minimum` to `maximum`, or None where `null` allows it.

        Raises:
            ConfigError: If the value is something else.
        """
        value = self.get(key, default)
        if value is None and null:
            return None
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or value < minimum or (maximum is not None and value > maximum):
            allowed = f"a whole number of at least {minimum}"
            if maximum is not None:
                allowed += f" and at most {maximum}"
            raise self.error(key, value, allowed + (" or null" if null else ""))
        return value

    def number(
        self,
        key: str,
        default: float | None = None,
        *,
        minimum: float,
        maximum: float = math.inf,
        above: bool = False,
        null: bool = False,
    ) -> Any:
        """Return a finite number within a range, or None where `null` allows it.

        Args:
            key: The key to read.
            default: The value where the key is absent.
            minimum: Least value; it is itself allowed unless `above`.
            maximum: Greatest value, itself allowed.
            above: Whether the value must lie above `minimum`.
            null: Whether None is allowed.

        Raises:
            ConfigError: If the value is something else.
        """
        value = self.get(key, default)
        if value is None and null:
            return None
        plain = isinstance(value, (int, float)) and not isinstance(value, bool)
        inside = (
            plain
            and -_LARGEST <= value <= _LARGEST
            and (value > minimum if above else value >= minimum)
            and value <= maximum
        )
        if not inside:
            allowed = f"a number {'above' if above else 'of at least'} {minimum:g}"
            if maximum != math.inf:
                allowed += f" and at most {maximum:g}"
            raise self.error(key, value, allowed + (" or null" if null else ""))
        return float(value)

    def mapping(self, key: str) -> dict[str, Any]:
        """Return a group of keys as a plain dictionary; an absent one is empty.

        Raises:
            ConfigError: If the value is something else.
        """
        value = self.get(key, {})
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.error(key, value, "a group of keys")
        return dict(value)

    def words(self, key: str) -> tuple[str, ...]:
        """Return a list of strings; an absent one is empty.

        Raises:
            ConfigError: If the value is something else.
        """
        value = self.get(key, [])
        if value is None:
            return ()
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise self.error(key, value, "a list of texts")
        return tuple(value)

    def error(self, key: str, value: Any, allowed: str, fix: str = "") -> ConfigError:
        """Return the error for a value that is not allowed at a key."""
        path = self.path(key)
        return ConfigError(
            f"'{path}' cannot be {_shown(value)}",
            f"it must be {allowed}",
            fix or f"Set {path}= to an allowed value.",
        )


def unknown_key(path: str, key: str, known: Collection[str]) -> ConfigError:
    """Return the error for a key that a group of keys has not, with the nearest that it has."""
    near = nearest(key, known)
    prefix = f"{path}." if path else ""
    return ConfigError(
        f"Unknown key '{prefix}{key}'" + (f". Did you mean '{prefix}{near}'?" if near else ""),
        f"{path or 'the configuration'} has the keys: {', '.join(known)}",
        f"Write {prefix}{near}= instead." if near else "Remove the key.",
    )


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if not text.isprintable():
        text = repr(text)[1:-1]
    if len(text) > _LONGEST_SHOWN:
        text = f"{text[: _LONGEST_SHOWN - 3]}..."
    return f"'{text}'" if isinstance(value, str) else text
