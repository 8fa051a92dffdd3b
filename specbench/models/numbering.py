"""Token numbers for decoding pictures: what a picture can hold comes first, words behind it.

A picture holds codes and the few tokens that its grid forces: 8,195 of Lumina-mGPT's 65,536 ids,
32,772 of Emu3's 184,622. Laws over all ids would be minus infinity nearly everywhere, and every
warp, draw, coupling and verifier would walk over that. While an image pair decodes, the allowed
ids are therefore 0 to A - 1, in their published order, and laws have A columns. The other ids
follow: they stand in prompts and have no column.

The order is kept, so that ties and inverse-CDF draws fall on the same tokens as over all ids.
Prompts are renumbered where captions are encoded, and results and pictures hold published ids.

Shapes: V published ids, A allowed ones, K codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from specbench.models.image import Grid, ImageSide, Pixels


class Numbering:
    """A renumbering of V ids of which some are allowed.

    Args:
        allowed: Published ids that the target may draw.
        vocabulary: V.

    Attributes:
        width: A.
        table: [V] int64, the published id of every number.
    """

    def __init__(self, allowed: Iterable[int], vocabulary: int) -> None:
        first = torch.tensor(sorted(set(allowed)))
        others = torch.ones(vocabulary, dtype=torch.bool).index_fill_(0, first, False)
        self.width: int = first.shape[0]
        self.table: Tensor = torch.cat([first, others.nonzero().flatten()])
        self._numbers: list[int] = self.table.argsort().tolist()
        self._ids: list[int] = self.table.tolist()

    @classmethod
    def of_picture(cls, image: ImageSide, vocabulary: int) -> Numbering:
        """Return the numbering of the codes and the forced tokens of a picture."""
        codes = range(image.first_code, image.first_code + image.codes)
        return cls([*codes, *(token for token in image.grid.forced if token >= 0)], vocabulary)

    def numbers(self, ids: Sequence[int]) -> list[int]:
        """Return the numbers of published ids."""
        return [self._numbers[token] for token in ids]

    def published(self, numbers: Sequence[int]) -> list[int]:
        """Return the published ids of numbers."""
        return [self._ids[number] for number in numbers]


class NumberedPictures:
    """An image side whose grid, codes and prompts speak of numbers (`image.ImageSide`).

    Args:
        image: The side that speaks of published ids.
        numbering: The numbers.
    """

    def __init__(self, image: ImageSide, numbering: Numbering) -> None:
        self._image = image
        self._numbering = numbering
        self.grid: Grid = _renumbered(image.grid, numbering)
        self.first_code: int = numbering.numbers([image.first_code])[0]
        self.codes: int = image.codes
        self.can_draw: bool = image.can_draw

    def vectors(self, space: str) -> Tensor:
        """Return a vector for each code, [K, D]; see `image.ImageSide`."""
        return self._image.vectors(space)

    def encode(self, prompt: str) -> list[int]:
        """Return the conditional row's prompt in numbers."""
        return self._numbering.numbers(self._image.encode(prompt))

    def pixels(self, tokens: Sequence[int]) -> Pixels:
        """Return [H, W, 3] from published ids, as results hold them."""
        return self._image.pixels(tokens)


def _renumbered(grid: Grid, numbering: Numbering) -> Grid:
    row_end = None if grid.row_end is None else numbering.numbers([grid.row_end])[0]
    return replace(grid, row_end=row_end, ending=tuple(numbering.numbers(grid.ending)))
