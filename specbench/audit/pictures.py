"""Pictures on tables: exact image models behind guidance and the grid's constraints.

Published ids: 0 and 1 stand in prompts, codes follow from 2 on, behind them the row's end and the
picture's. The unconditional row begins with the null token 0. The pair is narrowed as in every run:
its laws cover codes and ends alone, and the two words are numbered behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from specbench.law import OWN
from specbench.models.guided import GuidedModel
from specbench.models.image import Grid, Rows
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, drift_table, markov_table

NULL = 0
FIRST_CODE = 2


class Conditions:
    """The unconditional row has the null token in the place of the prompt's first one."""

    longest = 0

    def rows(self, prompt: Sequence[int], count: int, unconditional: str = OWN) -> Rows:
        """Return the prompts of one or two rows; a table has one unconditional row for all laws."""
        empty = (NULL, *prompt[1:])
        return Rows(torch.tensor([tuple(prompt), empty][:count]), (0, 0)[:count])


@dataclass
class TableSide:
    """A grid and a codebook without pixels: code k lies at k on a line, half apart."""

    grid: Grid
    codes: int
    codebook: Tensor
    first_code: int = FIRST_CODE
    can_draw: bool = False

    def vectors(self, space: str) -> Tensor:
        """Return the one place that each code has, [K, 1], whatever the space."""
        return self.codebook

    def encode(self, prompt: str) -> list[int]:
        """Tables have no text."""
        raise NotImplementedError

    def pixels(self, tokens: Sequence[int]) -> Any:
        """Tables have no pixels."""
        raise NotImplementedError


def picture_prompt(codes: int) -> tuple[int, int]:
    """Return the prompt of words 1 and 0, in the numbers of a picture of `codes` codes."""
    words = codes + 2
    return words + 1, words


def guided_picture(rows: int, columns: int, codes: int, seed: int = 0) -> ModelPair:
    """Return a target and a draft that draw `rows` x `columns` codes with forced row ends.

    The laws look back as far as the code above, so that guidance and grid both matter.
    """
    end = FIRST_CODE + codes
    grid = Grid(rows, columns, end, (end + 1,))
    vocab = end + 2
    order = min(grid.width, 3)
    target = markov_table(order, vocab, seed, 1.0)
    draft = drift_table(target, markov_table(order, vocab, seed + 1, 1.0), 0.5)

    def guided(table: Any, name: str) -> GuidedModel:
        body = TableModel(table, vocab, name)
        return GuidedModel(body, Conditions(), grid, FIRST_CODE, codes, vocab)

    codebook = torch.arange(codes, dtype=torch.float32)[:, None] * 0.5
    pair = ModelPair(
        "tables",
        guided(target, "target"),
        guided(draft, "draft"),
        more_drafts=(guided(draft, "second draft"),),
        image=TableSide(grid, codes, codebook),
    )
    pair.narrow()
    return pair
