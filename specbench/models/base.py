"""The Model port: all that decoding code may know about a model.

One `forward` over new tokens, given a cache and who sees whom. Decoding code never touches a
model class, a cache tensor or a tokenizer. What a model can do is declared by name; a method
that needs more is refused before anything runs.

Shapes: B rows, T new tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor

from specbench.cache import Cache


class Capability(StrEnum):
    """Something that a model can do beyond a causal forward with rollback."""

    TREE_MASK = "tree_mask"


class AncestorMask(Hashable, Protocol):
    """Who sees whom among the tokens that are fed together (see `decoding.tree.TreeMask`)."""

    @property
    def offsets(self) -> tuple[int, ...]:
        """Position of each fed token behind the cached prefix."""

    @property
    def ancestors(self) -> Tensor:
        """[T, T] bool on the CPU, row i True at i and at its ancestors."""


class Model(Protocol):
    """A language model behind one forward.

    Attributes:
        name: What the model is called in results.
        engine: "lean", "transformers" or "table".
        vocab_size: Width of the logits; may be smaller than the checkpoint's padded width.
        context: Longest sequence that the model accepts, in tokens.
        dtype: Compute dtype.
        device: Where tokens must live and logits appear.
        capabilities: What the model can do.
    """

    name: str
    engine: str
    vocab_size: int
    context: int
    dtype: torch.dtype
    device: torch.device
    capabilities: frozenset[Capability]

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """Return an empty cache for `batch` rows of at most `capacity` tokens."""

    def forward(
        self, tokens: Tensor, cache: Cache, *, mask: AncestorMask | None = None, last: int = 0
    ) -> Tensor:
        """Feed new tokens behind each row's cached prefix and return their logits.

        The cache grows by T in every row.

        Args:
            tokens: [B, T] int64 on the model's device.
            cache: A cache that this model made.
            mask: Who sees whom among the T tokens; None for causal order. Every token sees the
                cached prefix. Positions follow the mask's depths and not the array's order.
            last: Return logits of only the last `last` tokens; 0 for all.

        Returns:
            Logits [B, T or last, V].
        """
