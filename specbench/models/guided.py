"""Image models behind the Model port: conditioning rows, guidance and the grid's constraints.

A visual autoregressive model with classifier-free guidance computes two rows (three in Anole) for
every token: the same picture behind the caption and behind no caption. `GuidedModel` hides that.
Decoders feed one row and get one row of logits, mixed, with minus infinity at every id that the
grid forbids at the next place, so that each decoder of text decodes pictures too, whatever order
or tree it feeds them in: the place follows from the positions of slots and masks.

The port's ids are the published ones until `number` says otherwise: then logits cover what a
picture can hold and nothing else (`models.numbering`).

What remains of the law (penalty, temperature, top-k, top-p) is `law.Law`'s, as for text.

Shapes: R conditioning rows, P prompt tokens, T new tokens, V vocabulary, K codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor

from specbench.cache import Cache
from specbench.law import Guidance, Law
from specbench.models.base import CAUSAL, Capability, Model, View, Wrapper
from specbench.models.image import CODE, TEXT, Conditioning, Grid
from specbench.models.numbering import Numbering
from specbench.transfer import moved


class GuidedCache:
    """One row of lengths over the cache of all conditioning rows.

    Rows whose own prompt is longer than the request's shift all of them by `shift` slots.

    Args:
        body: The cache of R rows.
        capacity: Tokens that one row of the port can hold.
    """

    def __init__(self, body: Any, capacity: int) -> None:
        self.body = body
        self.capacity = capacity
        self.shift = 0
        self.prompt = 0

    @property
    def lengths(self) -> list[int]:
        """Cached tokens of the port's row."""
        return [max(self.body.lengths[0] - self.shift, 0)]

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget every token from position `lengths[0]` on, in all rows."""
        length = lengths[0] + self.shift if lengths[0] else 0
        if not lengths[0]:
            self.shift = 0
        self.body.truncate([length] * len(self.body.lengths))

    def keep(self, base: Sequence[int], indices: Sequence[Sequence[int]]) -> None:
        """Keep, of the tokens written from position `base[0]` on, only `indices[0]`."""
        rows = len(self.body.lengths)
        self.body.keep([base[0] + self.shift] * rows, [indices[0]] * rows)


class GuidedModel(Wrapper):
    """An image model of several conditioning rows behind the port of one.

    Args:
        body: The model that computes all rows. Its logits cover the ids from `first_logit` on.
        conditioning: Makes the rows of a prompt.
        grid: The generated tokens.
        first_code: Token id of code 0.
        codes: K.
        vocab_size: V of the port, published ids.
        first_logit: Id of the body's first logit; 0 where its head covers the vocabulary.
    """

    def __init__(
        self,
        body: Model,
        conditioning: Conditioning,
        grid: Grid,
        first_code: int,
        codes: int,
        vocab_size: int,
        first_logit: int = 0,
    ) -> None:
        super().__init__(body)
        self.capabilities -= {Capability.FEATURES}
        self.vocab_size = vocab_size
        self.context -= conditioning.longest
        self._conditioning = conditioning
        self._grid = grid
        self._codes = slice(first_code - first_logit, first_code - first_logit + codes)
        self._read_codes = range(first_code, first_code + codes)
        self._placed = slice(first_code, first_code + codes)
        self._forced = torch.tensor(grid.forced, device=self.device)
        self._forced_host = grid.forced
        self._table: Tensor | None = None
        self._guide(Law())

    def number(self, numbering: Numbering) -> None:
        """Read and write numbers from now on in place of published ids.

        Args:
            numbering: Its allowed ids are those of the codes and of the grid's forced tokens.
        """
        assert self._table is None and not self._grid.text
        first = numbering.numbers(self._read_codes[:1])[0]
        forced = (
            token if token < 0 else numbering.numbers([token])[0] for token in self._forced_host
        )
        self.vocab_size = numbering.width
        self._table = numbering.table.to(self.device)
        self._placed = slice(first, first + len(self._read_codes))
        self._forced_host = tuple(forced)
        self._forced = torch.tensor(self._forced_host, device=self.device)

    @property
    def word(self) -> int:
        """A token that stands in prompts alone."""
        if self._table is not None:
            return self.vocab_size
        return 0 if self._placed.start else self._placed.stop

    def under(self, law: Law) -> GuidedModel:
        """Return the model whose rows are mixed, and whose text is cut, as a law says."""
        guided = copy(self)
        guided._guide(law)
        return guided

    def _guide(self, law: Law) -> None:
        guidance = law.guidance or Guidance(1.0)
        self._rows = guidance.rows
        self._unconditional = guidance.unconditional
        self._image_scale = guidance.image_scale
        self._text_top_k = law.text_top_k
        codes = iter(guidance.scales(self._grid.rows * self._grid.columns))
        scales = [next(codes) if token == CODE else 1.0 for token in self._grid.forced]
        self._scales = torch.tensor(scales, device=self.device, dtype=torch.float32)[:, None]
        self._constant = guidance.scale if guidance.schedule == "constant" else None

    def new_cache(self, batch: int, capacity: int) -> GuidedCache:
        """Return an empty cache for one request of at most `capacity` tokens."""
        assert batch == 1
        slots = capacity + self._conditioning.longest
        return GuidedCache(self.body.new_cache(self._rows, slots), capacity)

    def grow(self, cache: Cache, capacity: int) -> GuidedCache:
        """Return an empty, larger cache in the place of one."""
        assert isinstance(cache, GuidedCache)
        if len(cache.body.lengths) != self._rows:
            return self.new_cache(1, capacity)
        slots = capacity + self._conditioning.longest
        return GuidedCache(self.body.grow(cache.body, slots), capacity)

    @torch.inference_mode()
    def forward(self, inputs: Tensor, cache: Cache, view: View = CAUSAL) -> Tensor:
        """Feed new tokens in every row and return the mixed, constrained logits [1, T, V].

        The first forward of a request begins with its prompt. Taps hand out the states of the
        conditional row.
        """
        assert isinstance(cache, GuidedCache)
        start, count, taps = cache.lengths[0], inputs.shape[1], view.taps
        tokens = inputs if self._table is None else self._table[inputs]
        fed = tokens.expand(self._rows, -1) if start else self._begin(tokens, cache)
        logits = self.body.forward(fed, cache.body, view)
        if taps is not None:
            taps.states = [state[:1, -count:] if taps.every else state[:1] for state in taps.states]
        if not view.logits:
            return logits[:1]
        wanted = view.last or count
        logits = logits[:, -wanted:]
        first = start + 1 - cache.prompt
        if view.mask is None:
            return self._constrain_chain(logits, first + count - wanted)
        offsets = moved(view.mask.offsets, self.device).view(-1)
        places = offsets[-wanted:] + (first + count - offsets.shape[0])
        return self._constrain(logits, places.clamp_(0, self._grid.length - 1))

    def _begin(self, tokens: Tensor, cache: GuidedCache) -> Tensor:
        """Return all rows of a prompt and of what follows it, [R, T'], T' at least T."""
        fed = tokens[0].tolist()
        codes = self._read_codes
        length = next((i for i, token in enumerate(fed) if token in codes), len(fed))
        rows = self._conditioning.rows(fed[:length], self._rows, self._unconditional)
        cache.prompt = length
        cache.shift = rows.tokens.shape[1] - length
        cache.body.padding = rows.padding if any(rows.padding) else None
        begun = rows.tokens.to(self.device)
        if length < len(fed):
            begun = torch.cat([begun, tokens[:, length:].expand(self._rows, -1)], 1)
        return begun

    def _mix(self, logits: Tensor, scale: Tensor | float, out: Tensor | None = None) -> Tensor:
        """Return the mixed logits of the rows, [T, K], from [R, T, K], in float32 or wider.

        Args:
            logits: Of the codes.
            scale: Of the guidance, one or [T, 1].
            out: Where to write them, or None.
        """
        if self._rows > 1 and logits.dtype.itemsize < 4:
            logits = logits.float()
        if self._rows == 2:
            if isinstance(scale, Tensor):
                scale = scale.to(logits.dtype)
            return torch.lerp(logits[1], logits[0], scale, out=out)
        if self._rows == 1:
            mixed = logits[0]
        else:
            full, image, bare = logits
            mixed = bare + self._image_scale * (image - bare) + scale * (full - image)
        return mixed if out is None else out.copy_(mixed)

    def _constrain_chain(self, logits: Tensor, first: int) -> Tensor:
        """Constrain the logits of consecutive places, the first of which is place `first`."""
        count = logits.shape[1]
        end = first + count
        forced = self._forced_host[first:end] if first >= 0 else ()
        if len(forced) < count or TEXT in forced:
            places = torch.arange(first, end, device=self.device)
            return self._constrain(logits, places.clamp_(0, self._grid.length - 1))
        if count == 1 and forced[0] >= 0:
            spread = logits.new_full((1, self.vocab_size), -torch.inf)
        else:
            scale = self._scales[first:end] if self._constant is None else self._constant
            spread = self._spread(logits, scale)
        for place, token in enumerate(forced):
            if token >= 0:
                spread[place].fill_(-torch.inf)[token] = 0.0
        return spread[None]

    def _constrain(self, logits: Tensor, places: Tensor) -> Tensor:
        """Mix and constrain the logits of any places, [T]."""
        forced = self._forced[places]
        spread = self._spread(logits, self._scales[places])
        free = forced[:, None] == CODE
        if self._grid.text:
            text = self._text(logits[0])
            spread = torch.where(forced[:, None] == TEXT, text, spread)
            free = free | (forced[:, None] == TEXT)
        spread += torch.where(free, 0.0, -torch.inf).to(spread.dtype)  # a masked fill is slow
        token = forced.clamp(min=0)[:, None]
        kept = spread.gather(1, token)
        return spread.scatter_(1, token, torch.where(free, kept, 0.0))[None]

    def _spread(self, logits: Tensor, scale: Tensor | float) -> Tensor:
        """Return [T, V]: the codes' mixed logits in place and minus infinity elsewhere."""
        codes, placed = logits[..., self._codes], self._placed
        if placed.start == 0 and placed.stop == self.vocab_size:
            return self._mix(codes, scale)
        wide = logits.dtype if self._rows == 1 or logits.dtype.itemsize >= 4 else torch.float32
        spread = logits.new_empty((logits.shape[1], self.vocab_size), dtype=wide)
        self._mix(codes, scale, spread[:, placed])
        spread[:, : placed.start] = -torch.inf
        spread[:, placed.stop :] = -torch.inf
        return spread

    def _text(self, logits: Tensor) -> Tensor:
        """Return the conditional row's logits [T, V] at places of free text."""
        text = logits[:, : self.vocab_size].clone()
        text[:, self._codes] = -torch.inf
        if self._text_top_k is not None:
            threshold = text.topk(self._text_top_k, dim=-1).values[:, -1:]
            text = text.masked_fill(text < threshold, -torch.inf)
        return text
