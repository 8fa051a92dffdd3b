"""The Model port: all that decoding code may know about a model.

One `forward` over new tokens, given a cache and who sees whom. Decoding code never touches a
model class, a cache tensor or a tokenizer. What a model can do is declared by name; a method
that needs more is refused before anything runs.

Shapes: B rows, T new tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor

from specbench.cache import Cache


class Capability(StrEnum):
    """Something that a model can do beyond a causal forward with rollback."""

    TREE_MASK = "tree_mask"
    LAYER_SKIP = "layer_skip"
    HIDDEN_STATES = "hidden_states"


class AncestorMask(Hashable, Protocol):
    """Who sees whom among the last W slots (see `decoding.tree.TreeMask`).

    W is at least T, the number of tokens that are fed. The first W - T slots are tree tokens
    that were cached by earlier forwards, the last T are the new ones. Every slot before these W
    is visible to all.
    """

    @property
    def offsets(self) -> Tensor:
        """[W] int64, the position of each of the W slots behind the first slot of them."""

    @property
    def ancestors(self) -> Tensor:
        """[T, W] bool, row i True at new token i itself and at its ancestors."""


@dataclass(frozen=True)
class LayerSkip:
    """Sublayers that a forward leaves out; the residual stream passes them by.

    Attributes:
        attention: Indices of the blocks whose attention is not computed; nothing is written
            into their part of the cache.
        feed_forward: Indices of the blocks whose feed-forward part is not computed.
    """

    attention: frozenset[int] = frozenset()
    feed_forward: frozenset[int] = frozenset()

    @property
    def size(self) -> int:
        """Number of sublayers that are left out."""
        return len(self.attention) + len(self.feed_forward)


@dataclass
class Taps:
    """Hidden states to be handed out by a forward.

    Attributes:
        layers: Wanted states. Layer l >= 0 is the output of block l; -1 is the final, normed
            state that the LM head reads.
        every: Whether the states of all T tokens are wanted, whatever `last` is: those of a
            long prompt are small beside its logits.
        states: After the forward, one [B, T or last, C] for each wanted layer.
    """

    layers: tuple[int, ...] = (-1,)
    every: bool = False
    states: list[Tensor] = field(default_factory=list)


class Model(Protocol):
    """A language model behind one forward.

    Attributes:
        name: What the model is called in results.
        engine: "lean" (eager), "lean graph", "lean kernels", "lean compile", "transformers" or
            "table".
        vocab_size: Width of the logits; may be smaller than the checkpoint's padded width.
        layers: Number of blocks, each of an attention and a feed-forward sublayer.
        context: Longest sequence that the model accepts, in tokens.
        dtype: Compute dtype.
        device: Where tokens must live and logits appear.
        capabilities: What the model can do.
    """

    name: str
    engine: str
    vocab_size: int
    layers: int
    context: int
    dtype: torch.dtype
    device: torch.device
    capabilities: frozenset[Capability]

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """Return an empty cache for `batch` rows of at most `capacity` tokens."""

    def forward(
        self,
        tokens: Tensor,
        cache: Cache,
        *,
        mask: AncestorMask | None = None,
        last: int = 0,
        skip: LayerSkip | None = None,
        taps: Taps | None = None,
    ) -> Tensor:
        """Feed new tokens behind each row's cached prefix and return their logits.

        The cache grows by T in every row.

        Args:
            tokens: [B, T] int64 on the model's device.
            cache: A cache that this model made.
            mask: Who sees whom among the last slots; None for causal order. Every token sees
                the prefix before them. Positions follow the mask's and not the array's order.
            last: Return logits of only the last `last` tokens; 0 for all.
            skip: Sublayers to leave out; needs `Capability.LAYER_SKIP`.
            taps: Hidden states to hand out; needs `Capability.HIDDEN_STATES`.

        Returns:
            Logits [B, T or last, V].
        """


LEAST_CAPACITY = 256
"""Slots of a cache that is kept between requests, for engines that do not ask for more."""


def least_capacity(model: Model) -> int:
    """Return how many slots a cache should have that is kept between requests."""
    return int(getattr(model, "least_capacity", LEAST_CAPACITY))


def slots_for(capacity: int, least: int = LEAST_CAPACITY) -> int:
    """Return the slots of a cache of at least `capacity` tokens that need not grow soon."""
    while least < capacity:
        least *= 2
    return least


def word(model: Model) -> int:
    """Return a token that a prompt may be made of where its meaning does not matter.

    A model that takes every token has no such attribute.
    """
    return int(getattr(model, "word", 0))


def grown(model: Model, cache: Cache | None, capacity: int) -> Cache:
    """Return an empty cache of one row in the place of a smaller one, or of none."""
    grow = getattr(model, "grow", None)
    if grow is None or cache is None:
        return model.new_cache(1, capacity)
    larger: Cache = grow(cache, capacity)
    return larger


def settle(model: Model) -> None:
    """Let an engine do what must not happen in a timed region, such as capturing graphs.

    Engines that have nothing to do have no such function.
    """
    own = getattr(model, "settle", None)
    if own is not None:
        own()
