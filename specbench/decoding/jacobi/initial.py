"""What a column of the window is guessed to hold before the target has looked at it.

A guess that was not drawn from a stated law counts as a point mass: it is accepted with
probability p(x), and the residual is p without it. A guess that was drawn from a law is tested
against it. Both are exact, and only a guess with a law can be accepted often where p is flat.
Where the grid forces a token, that token is the guess.

Teng et al. 2024, "Accelerating Auto-regressive Text-to-Image Generation with Training-free
Speculative Jacobi Decoding" (SJD, arXiv 2410.01699), section 4.3. Read in
github.com/tyshiwo1/Accelerating-T2I-AR-with-SJD (scheduler/jacobi_iteration_lumina_mgpt.py):
`random` (the default) and `repeat_horizon` are point masses on a random code and on the left
neighbour; `sample_horizon` takes the most probable token of the left neighbour's law, where
`SampleLeft` draws from that law and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from specbench.choices import BY_NUMBER, Choices
from specbench.models.image import CODE, Grid, ImageSide
from specbench.transfer import read, to_device


class Guess(NamedTuple):
    """Tokens for empty columns.

    Attributes:
        tokens: One for each column.
        laws: [columns, V] what they were drawn from, or None if they were not drawn.
    """

    tokens: list[int]
    laws: Tensor | None = None


@dataclass(frozen=True)
class Blanks:
    """The empty columns at the end of a window, and what stands before them.

    Attributes:
        known: Prompt, committed tokens and the drafts before the first empty column.
        prompt: Length of the prompt.
        numbers: A random number for each empty column.
        image: The pictures' side of the model, or None for text.
        law: [V] the law of the last known token, or None where there is none.
        like: [R, V] a tensor of the laws' type, device and width, or None at temperature 0.
        choices: Decides what is drawn.
    """

    known: Sequence[int]
    prompt: int
    numbers: Sequence[float]
    image: ImageSide | None = None
    law: Tensor | None = None
    like: Tensor | None = None
    choices: Choices = BY_NUMBER

    def place(self, offset: int) -> tuple[Grid, int, int] | None:
        """Return grid, row and column of an empty column; None where no code stands."""
        if self.image is None:
            return None
        grid = self.image.grid
        index = len(self.known) - self.prompt + offset
        if index >= grid.length or grid.forced[index] != CODE:
            return None
        return grid, *grid.place(index)

    def forced(self) -> list[int]:
        """Return, for each empty column, the token that the grid forces there, or less than 0."""
        if self.image is None:
            return [CODE] * len(self.numbers)
        first = len(self.known) - self.prompt
        return list(self.image.grid.forced[first : first + len(self.numbers)])

    def with_forced(self, tokens: Sequence[int]) -> list[int]:
        """Return guesses with the grid's tokens where it forces them."""
        pairs = zip(tokens, self.forced(), strict=True)
        return [free if token < 0 else token for free, token in pairs]


class Initial:
    """Fills the empty columns of a window."""

    def guess(self, blanks: Blanks) -> Guess:
        """Return a token for every empty column; forced ones are put in by the loop."""
        raise NotImplementedError


class Random(Initial):
    """A random code; for text, a random token of the text so far. A point mass."""

    def guess(self, blanks: Blanks) -> Guess:
        """Return a token for every empty column."""
        image = blanks.image
        if image is None or image.grid.text:
            return Guess([_random(blanks, offset) for offset in range(len(blanks.numbers))])
        return Guess(
            [image.first_code + code for code in blanks.choices.pick(blanks.numbers, image.codes)]
        )


class Uniform(Initial):
    """A random code, or for text any token, with the uniform law that it was drawn from."""

    def guess(self, blanks: Blanks) -> Guess:
        """Return a token for every empty column."""
        if blanks.like is None:
            return Random().guess(blanks)
        first, count = _codes(blanks)
        laws = _uniform(first, count, blanks.like)
        tokens = [first + index for index in blanks.choices.pick(blanks.numbers, count)]
        return Guess(tokens, laws.expand(len(tokens), -1))


class CopyLeft(Initial):
    """The token before; in a picture, a random code at the start of a row. A point mass."""

    def guess(self, blanks: Blanks) -> Guess:
        """Return a token for every empty column."""
        known = list(blanks.known)
        for offset in range(len(blanks.numbers)):
            place = blanks.place(offset)
            starts = place is not None and place[2] == 0
            known.append(_random(blanks, offset) if starts else known[-1])
        return Guess(known[len(blanks.known) :])


class CopyUp(Initial):
    """The code above; a random one in the first row. For text, the token before. A point mass."""

    def guess(self, blanks: Blanks) -> Guess:
        """Return a token for every empty column."""
        if blanks.image is None:
            return CopyLeft().guess(blanks)
        known = list(blanks.known)
        for offset in range(len(blanks.numbers)):
            place = blanks.place(offset)
            above = place is not None and place[1] > 0
            known.append(known[-blanks.image.grid.width] if above else _random(blanks, offset))
        return Guess(known[len(blanks.known) :])


class SampleLeft(Initial):
    """A draw from the law of the last known token, in its row; uniform where there is none."""

    def guess(self, blanks: Blanks) -> Guess:
        """Return a token for every empty column."""
        count = len(blanks.numbers)
        places = [blanks.place(offset) for offset in range(count)]
        near = next((i for i, place in enumerate(places) if place and place[2] == 0), count)
        if blanks.like is None or blanks.law is None or near == 0:
            return Uniform().guess(blanks)
        laws = blanks.law.expand(near, -1)
        numbers = to_device(blanks.numbers[:near], laws.device, torch.float64)
        tokens: list[int] = read(blanks.choices.draw(laws, numbers))
        if near == count:
            return Guess(tokens, laws)
        first, codes = _codes(blanks)
        tokens += [first + index for index in blanks.choices.pick(blanks.numbers[near:], codes)]
        rest = _uniform(first, codes, blanks.like).expand(count - near, -1)
        return Guess(tokens, torch.cat([laws, rest]))


INITIALS: dict[str, type[Initial]] = {
    "random": Random,
    "uniform": Uniform,
    "copy_left": CopyLeft,
    "copy_up": CopyUp,
    "sample_left": SampleLeft,
}
"""Initial guesses by the word that names them in a method's file."""


def _random(blanks: Blanks, offset: int) -> int:
    """Return a random code for an empty column; where text stands, a token of the text."""
    number = blanks.numbers[offset : offset + 1]
    if blanks.place(offset) is not None:
        first, count = _codes(blanks)
        return first + blanks.choices.pick(number, count)[0]
    text = blanks.known if blanks.image is None else blanks.known[: blanks.prompt]
    return text[blanks.choices.pick(number, len(text))[0]]


def _codes(blanks: Blanks) -> tuple[int, int]:
    """Return the first of the tokens that a picture, or a text, may hold, and their number."""
    if blanks.image is not None:
        return blanks.image.first_code, blanks.image.codes
    assert blanks.like is not None
    return 0, blanks.like.shape[1]


def _uniform(first: int, count: int, like: Tensor) -> Tensor:
    """Return the uniform law over `count` tokens from `first` on, [1, V]."""
    return _uniform_law(first, count, like.shape[1], like.dtype, like.device)


@lru_cache(maxsize=8)
def _uniform_law(
    first: int, count: int, width: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    law = torch.zeros(1, width, dtype=dtype, device=device)
    law[0, first : first + count] = 1 / count
    return law
