"""Errors that a user can cause, each with its exit code and its own advice.

A `SpecbenchError` prints three parts: what happened, why, and how to fix it. Bugs raise
ordinary exceptions and keep their traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SpecbenchError(Exception):
    """Something that a user can cause and mend.

    Args:
        what: One line that says what happened.
        why: One line that says why, or empty.
        fix: One line that says how to fix it, or empty.
    """

    exit_code = 1

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(printable(what))
        self.what = printable(what)
        self.why = printable(why)
        self.fix = printable(fix)

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.why, self.fix) if part)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.what, self.why, self.fix))


class UsageError(SpecbenchError):
    """The command line does not make sense."""

    exit_code = 2


class ConfigError(SpecbenchError):
    """The composed configuration is not valid."""

    exit_code = 2


class TaskError(SpecbenchError):
    """A task's data cannot be read."""

    exit_code = 2


class ModelError(SpecbenchError):
    """A model cannot be loaded, or cannot do what a method needs."""

    exit_code = 2


class ResultsError(SpecbenchError):
    """A results file or folder cannot be read or written."""

    exit_code = 2


class TrainingError(SpecbenchError):
    """A training cannot go on; its last good state is kept."""


class NotComparable(SpecbenchError):
    """Two result sets were measured under different rulers."""

    exit_code = 3


class GateFailed(SpecbenchError):
    """A gate found a regression."""

    exit_code = 1


class JobsFailed(SpecbenchError):
    """Some measurements of a run failed; the finished ones are kept."""

    exit_code = 1


class Ended(KeyboardInterrupt):
    """A signal that asks the program to end; whatever minds Ctrl-C minds it too.

    Args:
        number: The signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def printable(text: str) -> str:
    """Return text that any stream of UTF-8 takes and that steers no terminal.

    Half of a surrogate pair, which JSON can spell and which stands for a byte of a file name that
    is not text, becomes its escape. A control character becomes its picture, a mark that turns
    the direction of writing becomes the sign of an unknown one.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8").translate(_PICTURES)


_PICTURES = (
    {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
    | {0x7F: 0x2421}
    | dict.fromkeys([*range(0x80, 0xA0), 0x2028, 0x2029, 0x200E, 0x200F], 0xFFFD)
    | dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD)
)


def nearest(name: str, options: Iterable[str]) -> str | None:
    """Return the option that looks most like `name`, or None when none is close."""
    matches = difflib.get_close_matches(name, list(options), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return "Did you mean 'x'?" for the nearest option, or an empty string."""
    match = nearest(name, options)
    return f"Did you mean '{match}'?" if match else ""
