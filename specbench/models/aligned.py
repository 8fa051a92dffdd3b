"""A draft over the token ids of its target, whichever ids it was trained on.

Checkpoints of one family round their vocabularies up differently (Qwen2.5: 151,936 and 152,064),
and a fine-tuned target has ids that its draft never saw. The target's law is the target's own and
is never cut; it is the draft that adapts. Its law is 0 at an id that it lacks, which every exact
verifier may be handed, and an id that only the draft has is never proposed.

Shapes: B rows, T new tokens, V ids of the target, K ids of the draft.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from specbench.cache import Cache
from specbench.law import Law
from specbench.models.base import (
    AncestorMask,
    Capability,
    LayerSkip,
    Model,
    Taps,
    grown,
    least_capacity,
    settle,
)

STAND_IN = 0
"""What a draft reads in the place of an id that it lacks: an id that every vocabulary has.

What follows is then the draft's guess without that token: a worse draft, and no other output.
"""


class AlignedDraft:
    """A draft model behind the port of a model of V ids.

    Args:
        body: The draft model, of K ids.
        vocab_size: V, the target's.

    Attributes:
        body: That model; another engine may take its place.
    """

    def __init__(self, body: Any, vocab_size: int) -> None:
        self.name: str = body.name
        self.take_body(body)
        self.layers: int = body.layers
        self.context: int = body.context
        self.dtype: torch.dtype = body.dtype
        self.device: torch.device = body.device
        self.capabilities: frozenset[Capability] = body.capabilities
        self.vocab_size = vocab_size
        self._known: int = body.vocab_size

    def take_body(self, body: Any) -> None:
        """Let another engine of the same model draft."""
        self.body = body
        self.engine: str = body.engine

    @property
    def least_capacity(self) -> int:
        """Slots of a cache that is kept between requests."""
        return least_capacity(self.body)

    @property
    def sizes(self) -> Any:
        """The body's."""
        return getattr(self.body, "sizes", None)

    def settle(self) -> None:
        """Capture the steps of the body that are in use; never in a timed region."""
        settle(self.body)

    def guide(self, law: Law) -> None:
        """Set how an image model mixes its conditioning rows; a text model has none."""
        own = getattr(self.body, "guide", None)
        if own is not None:
            own(law)

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """Return an empty cache for `batch` rows of at most `capacity` tokens."""
        cache: Cache = self.body.new_cache(batch, capacity)
        return cache

    def grow(self, cache: Cache, capacity: int) -> Cache:
        """Return an empty cache in the place of a smaller one."""
        return grown(self.body, cache, capacity)

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
        """Feed new tokens behind each row's cached prefix; see `Model.forward`.

        Returns:
            Logits [B, T or last, V], minus infinity at the ids that the draft lacks.
        """
        lacks = self.vocab_size - self._known
        if lacks > 0:
            tokens = tokens.masked_fill(tokens >= self._known, STAND_IN)
        logits: Tensor = self.body.forward(
            tokens, cache, mask=mask, last=last, skip=skip, taps=taps
        )
        if lacks > 0:
            return F.pad(logits, (0, lacks), value=-torch.inf)
        return logits[..., : self.vocab_size]


def aligned(draft: Model, target: Model) -> Model:
    """Return a draft over the target's ids: itself where it already has as many."""
    if draft.vocab_size == target.vocab_size:
        return draft
    return AlignedDraft(draft, target.vocab_size)
