"""The Model port: all that decoding code may know about a model.

One `forward` over new tokens or features, given a cache and a view of them: who sees whom, which
blocks run, what is handed out. Decoding code never touches a model class, a cache tensor or a
tokenizer. What a model can do is declared by name; a method that needs more is refused before
anything runs. All else that a model may offer has a default here.

Shapes: B rows, T new tokens, W slots of a mask, C channels, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

from specbench.cache import Cache
from specbench.law import Law
from specbench.models.shape import Sizes

LEAST_CAPACITY = 256
"""Slots of a cache that is kept between requests, for engines that do not ask for more."""


class Capability(StrEnum):
    """Something that a model can do beyond a causal forward with rollback."""

    TREE_MASK = "tree_mask"
    LAYER_SKIP = "layer_skip"
    HIDDEN_STATES = "hidden_states"
    FEATURES = "features"


@dataclass(frozen=True, eq=False)
class AncestorMask:
    """Who sees whom among the last W slots.

    W is at least T, the number of tokens that are fed. The first W - T slots are tree tokens
    that were cached by earlier forwards, the last T are the new ones. Every slot before these W
    is visible to all.

    Attributes:
        offsets: [W] int64, the position of each slot behind the first; [B, W] where rows differ.
        ancestors: [T, W] bool, row i True at new token i itself and at its ancestors; or [B, T, W].
    """

    offsets: Tensor
    ancestors: Tensor


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


NO_SKIP = LayerSkip()


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


class View(NamedTuple):
    """How a forward looks at what it is fed.

    Attributes:
        mask: Who sees whom among the last slots; None for causal order. Every token sees the
            prefix before them. Positions follow the mask's and not the array's order.
        last: Logits of only the last `last` tokens are wanted; 0 for all.
        skip: Sublayers to leave out; needs `Capability.LAYER_SKIP`.
        taps: Hidden states to hand out; needs `Capability.HIDDEN_STATES`.
        first_layer: The first block that runs. Features that enter there are the states that
            block `first_layer - 1` handed out, or embeddings at 0. Blocks that do not run keep
            what their slots of the cache hold.
        last_layer: The last block that runs, whose states the final norm and the LM head read;
            None for the model's last. Both need `Capability.FEATURES`.
        logits: Whether logits are wanted at all; without them a forward is run for its taps.
    """

    mask: AncestorMask | None = None
    last: int = 0
    skip: LayerSkip | None = None
    taps: Taps | None = None
    first_layer: int = 0
    last_layer: int | None = None
    logits: bool = True

    def blocks(self, layers: int) -> range:
        """Return the blocks that run, of a model of so many layers."""
        return range(self.first_layer, layers if self.last_layer is None else self.last_layer + 1)


CAUSAL = View()
"""Causal order, and the logits of all."""


class Model:
    """A language model behind one forward.

    Attributes:
        name: What the model is called in results.
        engine: "lean" (eager), "lean native", "lean graph", "lean kernels", "lean compile",
            "transformers" or "table".
        vocab_size: Width of the logits; may be smaller than the checkpoint's padded width.
        layers: Number of blocks, each of an attention and a feed-forward sublayer.
        context: Longest sequence that the model accepts, in tokens.
        dtype: Compute dtype.
        device: Where tokens must live and logits appear.
        capabilities: What the model can do.
        mask_token: Stands for a token that is not known yet, where the model was trained to say
            what follows several of them at once; None where it was not.
    """

    name: str
    engine: str
    vocab_size: int
    layers: int
    context: int
    dtype: torch.dtype
    device: torch.device
    capabilities: frozenset[Capability]
    mask_token: int | None = None

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """Return an empty cache for `batch` rows of at most `capacity` tokens."""
        raise NotImplementedError

    def forward(self, inputs: Tensor, cache: Cache, view: View = CAUSAL) -> Tensor:
        """Feed new tokens behind each row's cached prefix and return their logits.

        The cache grows by T in every row.

        Args:
            inputs: Token ids [B, T] int64 on the model's device, or features [B, T, C], which
                need `Capability.FEATURES`.
            cache: A cache that this model made.
            view: How to look at them.

        Returns:
            Logits [B, T or last, V]; [B, 0, V] where none are wanted.
        """
        raise NotImplementedError

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the embeddings [B, T, C] of token ids [B, T]; needs `Capability.FEATURES`."""
        raise NotImplementedError

    def head(self, states: Tensor, *, normed: bool = True) -> Tensor:
        """Apply the LM head; needs `Capability.FEATURES`.

        Args:
            states: [B, T, C], of this model or of something trained to stand in their place.
            normed: Whether they are final states (tap -1); those of a block are normed first.

        Returns:
            Logits [B, T, V].
        """
        raise NotImplementedError

    def grow(self, cache: Cache, capacity: int) -> Cache:
        """Return an empty cache of as many rows in the place of a smaller one."""
        return self.new_cache(len(cache.lengths), capacity)

    @property
    def captures(self) -> bool:
        """Whether `settle` has anything to do, such as capturing graphs."""
        return False

    def settle(self) -> None:
        """Do what must not happen in a timed region."""

    @property
    def sizes(self) -> Sizes | None:
        """What its forwards read and compute; None for a model that weighs nothing."""
        return None

    @property
    def least_capacity(self) -> int:
        """Slots of a cache that is kept between requests."""
        return LEAST_CAPACITY

    @property
    def word(self) -> int:
        """A token that a prompt may be made of where its meaning does not matter."""
        return 0

    def under(self, law: Law) -> Model:
        """Return the model whose logits are those of a law's guidance, over the same weights.

        A model of text has one logit for each law, and returns itself.
        """
        return self


class Wrapper(Model):
    """A model that stands before another and computes with it.

    Args:
        body: The other.

    Attributes:
        body: That model; another engine of it may take its place.
    """

    def __init__(self, body: Model) -> None:
        self.name = body.name
        self.vocab_size = body.vocab_size
        self.layers = body.layers
        self.context = body.context
        self.dtype = body.dtype
        self.device = body.device
        self.capabilities = body.capabilities
        self.mask_token = body.mask_token
        self.take_body(body)

    def take_body(self, body: Model) -> None:
        """Let another engine of the same model compute."""
        self.body = body
        self.engine = body.engine

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the body's embeddings."""
        return self.body.embed(tokens)

    def head(self, states: Tensor, *, normed: bool = True) -> Tensor:
        """Apply the body's LM head."""
        return self.body.head(states, normed=normed)

    @property
    def captures(self) -> bool:
        """The body's."""
        return self.body.captures

    def settle(self) -> None:
        """Settle the body."""
        self.body.settle()

    @property
    def sizes(self) -> Sizes | None:
        """The body's."""
        return self.body.sizes

    @property
    def least_capacity(self) -> int:
        """The body's."""
        return self.body.least_capacity


def slots_for(capacity: int, least: int = LEAST_CAPACITY) -> int:
    """Return the slots of a cache of at least `capacity` tokens that need not grow soon."""
    while least < capacity:
        least *= 2
    return least
