"""From generated tokens to codes in their places, and from a decoder's output to bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from specbench.models.image import Grid, Pixels

PixelDtype = Literal["float32", "bfloat16"]
"""In what a release draws: words of the loader key `pixel_dtype`."""

PIXEL_DTYPES: dict[PixelDtype, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
}


def code_map(grid: Grid, first_code: int, tokens: Sequence[int]) -> Tensor:
    """Return the code ids of a picture, [1, rows, columns]; codes that are missing are code 0.

    Args:
        grid: The generated tokens.
        first_code: Token id of code 0.
        tokens: Generated tokens, all or the first of them.
    """
    places = grid.rows * grid.columns
    found = [token - first_code for token in grid.codes(tokens)]
    codes = torch.tensor(found + [0] * (places - len(found)))
    return codes.view(1, grid.rows, grid.columns)


def to_pixels(decoded: Tensor, *, rounded: bool = True) -> Pixels:
    """Return [H, W, 3] bytes of a decoder's picture.

    Args:
        decoded: [1, 3, H, W], -1 for black and 1 for white; values beyond are cut.
        rounded: Whether values go to the nearest byte or, as some releases have it, to the one
            below.
    """
    scaled = (decoded[0].float().clamp(-1, 1) + 1) * 127.5
    scaled = scaled.round() if rounded else scaled.floor()
    pixels: Pixels = scaled.to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels
