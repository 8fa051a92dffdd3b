"""A picture on a table: an exact toy model with a grid, forced row ends and a codebook.

Tokens: 0 begins a prompt, 1 ends a row, 2 ends the picture, codes follow from 3 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from specbench.models.image import CODE, Grid, Pixels
from specbench.models.pair import ModelPair
from specbench.models.table import Table, TableModel, drift_table, markov_table

ROW_END = 1
ENDING = 2
FIRST_CODE = 3
PROMPT = (0, FIRST_CODE)
"""Every prompt of the toy has two tokens; the second may be any."""


@dataclass(frozen=True)
class ToyImage:
    """The pictures' side: code k is a grey level, and its place in the codebook is near k."""

    grid: Grid
    codes: int
    codebook: Tensor
    first_code: int = FIRST_CODE
    can_draw: bool = True

    def vectors(self, space: str) -> Tensor:
        return self.codebook

    def encode(self, prompt: str) -> list[int]:
        return [PROMPT[0], FIRST_CODE + len(prompt) % self.codes]

    def pixels(self, tokens: Sequence[int]) -> Pixels:
        codes = [code - self.first_code for code in self.grid.codes(tokens)]
        codes += [0] * (self.grid.rows * self.grid.columns - len(codes))
        grey = np.array(codes, dtype=np.uint8).reshape(self.grid.rows, self.grid.columns)
        return np.repeat(grey[:, :, None] * (255 // max(self.codes - 1, 1)), 3, 2)


def on_grid(table: Table, grid: Grid, codes: int) -> Table:
    """Return a table that obeys a grid behind a prompt of two tokens."""

    def constrained(context: tuple[int, ...]) -> Tensor:
        logits = torch.full((FIRST_CODE + codes,), -torch.inf, dtype=torch.float64)
        index = len(context) - len(PROMPT)
        forced = grid.forced[index] if 0 <= index < grid.length else ENDING
        if forced == CODE:
            logits[FIRST_CODE:] = table(tuple(max(t - FIRST_CODE, 0) for t in context))[:codes]
        else:
            logits[forced] = 0.0
        return logits

    return constrained


def image_pair(
    codes: int = 4,
    rows: int = 3,
    columns: int = 3,
    row_end: bool = True,
    ending: bool = True,
    seed: int = 0,
    sharpness: float = 1.0,
    order: int = 2,
) -> ModelPair:
    """Return a target and a draft that draw `rows` x `columns` codes, with their picture side."""
    grid = Grid(rows, columns, ROW_END if row_end else None, (ENDING,) if ending else ())
    table = markov_table(order, codes, seed, sharpness)
    noise = markov_table(1, codes, seed + 100, sharpness)
    vocabulary = FIRST_CODE + codes
    ordered = torch.arange(codes, dtype=torch.float32)[:, None]
    return ModelPair(
        "toy image",
        TableModel(on_grid(table, grid, codes), vocabulary),
        TableModel(on_grid(drift_table(table, noise, 0.3), grid, codes), vocabulary, "draft"),
        image=ToyImage(grid, codes, ordered * 0.5),
    )
