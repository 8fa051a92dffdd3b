"""A constraint over the tokens of a table, which has no text to be parsed."""

from __future__ import annotations

import torch
from torch import Tensor

from specbench.models.pair import ModelPair


class TableGrammar:
    """No token may stand twice in a row: a constraint that distorts every law and never ends."""

    def __init__(self, vocab: int) -> None:
        self._vocab = vocab

    def digest(self) -> str:
        """Return what names it."""
        return f"no token twice in a row, of {self._vocab}"

    def bind(self, models: ModelPair) -> TableGrammar:
        """Return itself: it speaks of token ids."""
        return self

    def start(self) -> Walk:
        """Return a walk that stands before the first token."""
        return Walk(self._vocab, ())


class Walk:
    """One walk through a `TableGrammar`."""

    def __init__(self, vocab: int, path: tuple[int, ...]) -> None:
        self._vocab = vocab
        self._path = path

    def allowed(self) -> Tensor:
        """Return which tokens may come next, [V] bool."""
        mask = torch.ones(self._vocab, dtype=torch.bool)
        if self._path:
            mask[self._path[-1]] = False
        return mask

    def accepts(self, token: int) -> bool:
        """Say whether one token may come next."""
        return not self._path or self._path[-1] != token

    def advance(self, token: int) -> None:
        """Append a token that may come next."""
        assert self.accepts(token)
        self._path = (*self._path, token)

    def rollback(self, count: int) -> None:
        """Forget the last `count` tokens."""
        self._path = self._path[: len(self._path) - count]

    def clone(self) -> Walk:
        """Return an independent walk that stands at the same place."""
        return Walk(self._vocab, self._path)
