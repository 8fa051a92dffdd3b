"""What every world yields: one conversation with its training answers and its reference."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

Reference: TypeAlias = str | dict[str, str] | None
Item = TypeVar("Item")


@dataclass(frozen=True)
class Sample:
    """One conversation of a world.

    Attributes:
        turns: User messages, in order.
        answers: One worked answer per turn; a target for training, one of many for sampling.
        reference: What a scorer needs. The final number for word problems, the entry point,
            prefix and test for functions, the whole answer where exactly one is right, else None.
    """

    turns: tuple[str, ...]
    answers: tuple[str, ...]
    reference: Reference


def word_list(text: str, separator: str = " ") -> tuple[str, ...]:
    """Return the entries of a list that is written as one line of text."""
    return tuple(text.split(separator))


NAMES = word_list(
    "Ana Ben Cara Dan Ella Finn Gina Hugo Iris Jack Kira Leo Mia Noah Olga Paul Rosa Sam Tina Uma "
    "Vera Will Yara Zoe Amir Bella Carl Dora Emil Faye Glen Hana Ivan June Kurt Lena Marc Nina "
    "Omar Pia Ravi Sara Tom Vic Wanda Yuri"
)


def pick(random_source: random.Random, options: Sequence[Item]) -> Item:
    """Return one option, each with the same probability."""
    return options[random_source.randrange(len(options))]


def one_of(random_source: random.Random, *options: Item) -> Item:
    """Return one of the options that are given, each with the same probability."""
    return pick(random_source, options)


def sentence_case(text: str) -> str:
    """Return `text` with its first letter in upper case and the rest unchanged."""
    return text[:1].upper() + text[1:]
