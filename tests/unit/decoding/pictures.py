"""Small image models with exact laws: a table behind guidance and the grid's constraints."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from specbench.law import Guidance
from specbench.models.guided import GuidedModel
from specbench.models.image import Grid, Rows
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table

FIRST = 2
NULL = 0


class Conditions:
    """The unconditional row begins with the null token instead of the prompt's first ones.

    Args:
        gap: How many tokens shorter it is than the conditional row; padding stands before it.
    """

    longest = 0

    def __init__(self, gap=0):
        self._gap = gap

    def rows(self, prompt, count, unconditional="own"):
        empty = (NULL,) * (self._gap + 1) + tuple(prompt[self._gap + 1 :])
        padding = (0, self._gap)[:count]
        return Rows(torch.tensor([tuple(prompt), empty][:count]), padding)


@dataclass
class Side:
    """An image side with a grid and a codebook, and no pixels."""

    grid: Grid
    codebook: torch.Tensor
    first_code: int = FIRST
    can_draw: bool = False

    def vectors(self, space):
        return self.codebook

    @property
    def codes(self):
        return self.codebook.shape[0]


def toy_grid(rows, columns, codes, row_end=True, text=0):
    """Return a grid whose row end and ending follow the codes."""
    end = FIRST + codes
    if not row_end:
        return Grid(rows, columns, text=text)
    return Grid(rows, columns, end, (end + 1,), text)


def toy_table(codes, order=4, seed=0, sharpness=1.0):
    """Return a law over all ids of `toy_grid` that looks back `order` tokens."""
    return markov_table(order, FIRST + codes + 2, seed, sharpness)


def guided(table, grid, codes):
    vocab = FIRST + codes + 2
    return GuidedModel(TableModel(table, vocab), Conditions(), grid, FIRST, codes, vocab)


def toy_picture(rows=3, columns=3, codes=3, row_end=True, text=0, order=4, seed=0, codebook=None):
    """Return a pair of a target and a draft that draw small pictures."""
    grid = toy_grid(rows, columns, codes, row_end, text)
    if codebook is None:
        codebook = torch.arange(codes, dtype=torch.float32)[:, None] ** 1.5
    target = guided(toy_table(codes, order, seed), grid, codes)
    draft = guided(toy_table(codes, order, seed + 1), grid, codes)
    return ModelPair("picture", target, draft, image=Side(grid, codebook))


def mixed(table, prompt, context, guidance, codes):
    """Return the guided logits of the codes after a context, [K], written out."""
    full = table((*prompt, *context))[FIRST : FIRST + codes]
    empty = table((NULL, *prompt[1:], *context))[FIRST : FIRST + codes]
    guidance = guidance or Guidance(1.0)
    return empty + guidance.scale * (full - empty)
