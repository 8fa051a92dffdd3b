"""Rotary tables that change with the length of the text ("longrope").

Such a model has two sets of frequencies: short ones for a text of up to the original length,
long ones for every position of a longer text. A cache that is filled token by token holds keys
of the short set when the text grows past that length, so the logits would depend on how the text
was cut into forwards, and no two decoders would agree. Here they depend on the text alone: when
a text crosses the length, in either direction, its cached part is computed once more with the
set that belongs to it. The released code of Phi-3 does the same when it generates.

Shapes: B rows, T new tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from specbench.models.base import AncestorMask, Taps, View
from specbench.models.library_cache import PortCache

Feed = Callable[[Tensor, PortCache, View], Tensor]
"""Runs one forward: tokens, cache and view to logits."""


def original_length(config: Any) -> int | None:
    """Return the length up to which a text configuration's short frequencies serve.

    Args:
        config: The text configuration.

    Returns:
        Tokens, or None for a model without two sets.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    for each in (rope, *(part for part in rope.values() if isinstance(part, dict))):
        if each.get("rope_type") == "longrope":
            found = each.get("original_max_position_embeddings")
            return int(found or config.original_max_position_embeddings)
    return None


class LongRope:
    """Feeds tokens with the frequencies that belong to the text up to each of them.

    Args:
        length: The original length, in tokens.
        feed: Runs one forward.
    """

    def __init__(self, length: int, feed: Feed) -> None:
        self._length = length
        self._feed = feed

    def forward(self, tokens: Tensor, cache: PortCache, view: View) -> Tensor:
        """Feed tokens [B, T] and return the logits of the last ones, [B, T or last, V].

        Rows of different lengths or trees, and trees that are fed level by level, which only
        drafts are, take the frequencies as they come.
        """
        count, mask, start = tokens.shape[1], view.mask, cache.lengths[0]
        if cache.uniform:
            cache.note(tokens)
        shape = (count, count) if mask is None else mask.ancestors.shape
        if not cache.uniform or shape != (count, count):
            return self._feed(tokens, cache, view)
        offsets = torch.arange(count) if mask is None else mask.offsets.cpu()
        early = torch.nonzero(start + offsets < self._length)[:, 0]
        handed = 0 if view.taps is not None and view.taps.every else view.last
        if 0 < len(early) < count and bool(early[-1] >= count - (handed or count)):
            order = mask or AncestorMask(offsets, torch.ones(count, count, dtype=torch.bool).tril())
            return self._crossing(tokens, cache, view._replace(mask=order), early)
        self._become(cache, long=len(early) < count)
        return self._feed(tokens, cache, view)

    def _crossing(self, tokens: Tensor, cache: PortCache, view: View, early: Tensor) -> Tensor:
        """Feed the tokens within the original length with one set, then all with the other.

        `early` are the indices of the former; their ancestors are among them.
        """
        assert view.mask is not None
        lengths, taps = list(cache.lengths), view.taps
        self._become(cache, long=False)
        ancestors = view.mask.ancestors.cpu()[early][:, early]
        part = AncestorMask(view.mask.offsets.cpu()[early], ancestors)
        states = None if taps is None else Taps(taps.layers, every=True)
        before = view._replace(mask=part, last=0, taps=states)
        first = self._feed(tokens[:, early.to(tokens.device)], cache, before)
        cache.truncate(lengths)
        self._become(cache, long=True)
        logits = self._feed(tokens, cache, view)
        if view.logits:
            _replace(logits, first, early, tokens.shape[1])
        if taps is not None and states is not None:
            for state, earlier in zip(taps.states, states.states, strict=True):
                _replace(state, earlier, early, tokens.shape[1])
        return logits

    def _become(self, cache: PortCache, *, long: bool) -> None:
        """Compute the cached tokens once more where they have the other frequencies.

        The module chooses a set by the largest position that it is fed, so one more token beyond
        the original length, which nobody sees and which is forgotten, asks for the long one.
        """
        length = cache.lengths[0]
        if length > 0 and cache.long != long:
            text = cache.text(length)
            cache.truncate([0] * len(cache.lengths))
            order = None
            if long and length <= self._length:
                text = torch.cat([text, text[:, :1]], 1)
                offsets = torch.arange(length + 1)
                offsets[-1] = self._length
                order = AncestorMask(offsets, torch.ones(length + 1, length + 1).tril().bool())
            self._feed(text, cache, View(order, last=1))
            cache.truncate([length] * len(cache.lengths))
        cache.long = long


def _replace(states: Tensor, earlier: Tensor, early: Tensor, count: int) -> None:
    """Write rows [B, E, ...] of the early tokens over those of the last ones of `count`."""
    shift = count - states.shape[1]
    inside = early >= shift
    states[:, (early[inside] - shift).to(states.device)] = earlier[:, inside.to(states.device)]
