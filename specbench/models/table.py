"""Exact toy models: next-token laws given by a table or a function, in float64.

They run behind the same port as real models, tree masks and rollback included, and are small
enough that the law of whole sequences can be enumerated. A decoder that is wrong by one part in
a million on such a model is wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from specbench.cache import Cache, LengthCache
from specbench.models.base import CAUSAL, Capability, Model, View

Table = Callable[[tuple[int, ...]], Tensor]
"""Maps a context to logits [V] in float64."""


class TokenCache(LengthCache):
    """Remembers the tokens themselves, each with the tokens before it on its path."""

    def __init__(self, batch: int, capacity: int) -> None:
        super().__init__(batch, capacity)
        self.tokens = [[0] * capacity for _ in range(batch)]

    def _gather(self, row: int, start: int, kept: Sequence[int]) -> None:
        moved = [self.tokens[row][start + index] for index in kept]
        self.tokens[row][start : start + len(kept)] = moved


class TableModel(Model):
    """A model whose next-token logits are a function of the context.

    Args:
        table: Maps a context to logits [V].
        vocab_size: V.
        name: What the model is called.
        context: Longest sequence.
        skipped: The law of a forward that skips any sublayer or leaves early; None: the same law.
    """

    engine = "table"
    capabilities = frozenset(Capability)
    layers = 4
    dtype = torch.float64
    mask_token = 0  # a table says something behind any tokens

    def __init__(
        self,
        table: Table,
        vocab_size: int,
        name: str = "table",
        context: int = 4096,
        skipped: Table | None = None,
    ) -> None:
        self.name = name
        self.vocab_size = vocab_size
        self.context = context
        self.device = torch.device("cpu")
        self._table = table
        self._skipped = skipped

    def new_cache(self, batch: int, capacity: int) -> TokenCache:
        """Return an empty cache for `batch` rows of at most `capacity` tokens."""
        return TokenCache(batch, capacity)

    def forward(self, inputs: Tensor, cache: Cache, view: View = CAUSAL) -> Tensor:
        """Feed new tokens behind each row's cached prefix; see `Model.forward`.

        The one hidden state is the one-hot code of the context's last token, and stands for that
        token where it is fed.
        """
        assert isinstance(cache, TokenCache)
        inputs = inputs.argmax(-1) if inputs.is_floating_point() else inputs
        (rows, count), mask, taps = inputs.shape, view.mask, view.taps
        visible = torch.ones(count, count).tril().bool() if mask is None else mask.ancestors
        visible = visible.expand(rows, -1, -1)
        partial = (view.skip is not None and view.skip.size > 0) or (
            view.blocks(self.layers).stop < self.layers
        )
        skipping = self._skipped is not None and partial
        table = self._skipped if skipping and self._skipped else self._table
        logits = torch.empty(rows, count, self.vocab_size, dtype=torch.float64)
        for row, start in enumerate(cache.lengths):
            end = start + count
            assert end <= cache.capacity
            cache.tokens[row][start:end] = inputs[row].tolist()
            first = end - visible.shape[2]
            prefix = tuple(cache.tokens[row][:first])
            seen = cache.tokens[row][first:end]
            order = None
            if mask is not None:
                order = mask.offsets.expand(rows, -1)[row].argsort(stable=True).tolist()
            for index in range(count):
                sees = visible[row, index].tolist()
                if order is None:
                    path = tuple(itertools.compress(seen, sees))
                else:
                    path = tuple(seen[slot] for slot in order if sees[slot])
                logits[row, index] = table(prefix + path)
        cache.lengths = [length + count for length in cache.lengths]
        if taps is not None:
            tapped = inputs if taps.every else inputs[:, -view.last :]
            code = self.embed(tapped)
            taps.states = [code for _ in taps.layers]
        return logits[:, -view.last :] if view.logits else logits[:, :0]

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the one-hot codes of token ids."""
        return torch.nn.functional.one_hot(tokens, self.vocab_size).double()

    def head(self, states: Tensor, *, normed: bool = True) -> Tensor:
        """Return the logits behind a context of the one token that each state stands for."""
        alone = torch.stack([self._table((token,)) for token in range(self.vocab_size)])
        return alone[states.argmax(-1)]


def markov_table(order: int, vocab_size: int, seed: int, sharpness: float = 1.0) -> Table:
    """Return a random law that depends on the last `order` tokens.

    Args:
        order: Number of tokens that matter.
        vocab_size: V.
        seed: Seed of the random logits.
        sharpness: Standard deviation of the logits.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (vocab_size + 1,) * order + (vocab_size,)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * sharpness

    def table(context: tuple[int, ...]) -> Tensor:
        padded = (vocab_size,) * order + context
        return logits[padded[len(padded) - order :]]

    return table


def drift_table(table: Table, noise: Table, share: float) -> Table:
    """Return the law (1 - share) p + share * noise of two tables, as logits."""

    def mixed(context: tuple[int, ...]) -> Tensor:
        law = (1 - share) * table(context).softmax(-1) + share * noise(context).softmax(-1)
        return law.log()

    return mixed
