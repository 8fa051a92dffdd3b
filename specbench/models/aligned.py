"""A draft over the token ids of its target, whichever ids it was trained on.

Checkpoints of one family round their vocabularies up differently (Qwen2.5: 151,936 and 152,064),
and a fine-tuned target has ids that its draft never saw. The target's law is the target's own and
is never cut; it is the draft that adapts. Its law is 0 at an id that it lacks, which every exact
verifier may be handed, and an id that only the draft has is never proposed.

Shapes: B rows, T new tokens, V ids of the target, K ids of the draft.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from specbench.cache import Cache
from specbench.law import Law
from specbench.models.base import CAUSAL, Model, View, Wrapper

STAND_IN = 0
"""What a draft reads in the place of an id that it lacks: an id that every vocabulary has.

What follows is then the draft's guess without that token: a worse draft, and no other output.
"""


class AlignedDraft(Wrapper):
    """A draft model behind the port of a model of V ids.

    Args:
        body: The draft model, of K ids.
        vocab_size: V, the target's.
        ids: [K], the target's id of each of the draft's tokens, for a draft over a part of the
            vocabulary with numbers of its own; None where one id means the same to both.
    """

    def __init__(self, body: Model, vocab_size: int, ids: Sequence[int] | None = None) -> None:
        super().__init__(body)
        self.vocab_size = vocab_size
        self._lacks = vocab_size - body.vocab_size
        self._ids = self._own = None
        if ids is not None:
            self._ids = torch.tensor(ids, device=self.device)
            order = torch.arange(len(ids), device=self.device)
            self._own = torch.full((vocab_size,), STAND_IN, device=self.device)
            self._own[self._ids] = order
            self.mask_token = None if self.mask_token is None else ids[self.mask_token]

    def under(self, law: Law) -> AlignedDraft:
        """Return the draft whose body is under the law."""
        body = self.body.under(law)
        if body is self.body:
            return self
        draft = copy(self)
        draft.take_body(body)
        return draft

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """Return an empty cache of the body."""
        return self.body.new_cache(batch, capacity)

    def grow(self, cache: Cache, capacity: int) -> Cache:
        """Return an empty cache of the body in the place of a smaller one."""
        return self.body.grow(cache, capacity)

    def forward(self, inputs: Tensor, cache: Cache, view: View = CAUSAL) -> Tensor:
        """Feed new tokens behind each row's cached prefix; see `Model.forward`.

        Returns:
            Logits [B, T or last, V], minus infinity at the ids that the draft lacks.
        """
        return self._aligned(self.body.forward(self._known(inputs), cache, view))

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the embeddings of tokens, or of what stands for them."""
        return super().embed(self._known(tokens))

    def head(self, states: Tensor, *, normed: bool = True) -> Tensor:
        """Apply the LM head; see `run`."""
        return self._aligned(super().head(states, normed=normed))

    def _known(self, inputs: Tensor) -> Tensor:
        if inputs.is_floating_point():
            return inputs
        if self._own is not None:
            return self._own[inputs]
        if self._lacks <= 0:
            return inputs
        return inputs.masked_fill(inputs >= self.body.vocab_size, STAND_IN)

    def _aligned(self, logits: Tensor) -> Tensor:
        if self._ids is not None:
            wide = logits.new_full((*logits.shape[:-1], self.vocab_size), -torch.inf)
            return wide.index_copy_(-1, self._ids, logits)
        if self._lacks > 0:
            return F.pad(logits, (0, self._lacks), value=-torch.inf)
        return logits[..., : self.vocab_size]


def aligned(draft: Model, target: Model) -> Model:
    """Return a draft over the target's ids: itself where it already has as many."""
    if draft.vocab_size == target.vocab_size:
        return draft
    return AlignedDraft(draft, target.vocab_size)
