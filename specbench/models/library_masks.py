"""Who sees whom in transformers' modules: their own rules, asked about positions and trees.

A module says through the library's mask functions which positions a layer may see: all earlier
ones, a sliding window, a chunk. The library asks those rules about slots of the cache. In a tree
a slot is no position, so for the time of a forward the question is asked here instead: the order
among the new tokens comes from our mask, and the module's rule is asked about true positions.
Windows and chunks of any width need no knowledge of the architecture.

On a CPU the attention itself is ours too: the library copies every shared key for each of its
queries where a mask is given, so that verifying would cost many plain steps for no reason.

Shapes: B rows, T new tokens, N slots, H query heads, G key-value heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import masking_utils
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from specbench.cache import SlotCache
from specbench.models.attention import attend
from specbench.models.base import AncestorMask
from specbench.models.masks import MaskTable, slot_positions

_MASKS = masking_utils.ALL_MASK_ATTENTION_FUNCTIONS
_CAUSAL = masking_utils.causal_mask_function
_SDPA = "sdpa"


class Sight:
    """Answers the module's questions for one forward.

    Args:
        table: Where masks of chains and trees come from.
        cache: The cache before the forward.
        count: T.
        mask: The order among the last slots, or None for causal order.
        needs_mask: Whether the attention must be given a mask even where causal order suffices.

    Attributes:
        positions: [B or 1, T] of the new tokens.
        asked: Whether the module asked.
    """

    def __init__(
        self,
        table: MaskTable,
        cache: SlotCache,
        count: int,
        mask: AncestorMask | None,
        needs_mask: bool,
    ) -> None:
        self._table = table
        alike = cache.uniform and (mask is None or mask.ancestors.ndim == 2)
        self._lengths = cache.lengths[:1] if alike else cache.lengths
        self._count = count
        self._mask = mask
        self._needs_mask = needs_mask
        self._causal: Tensor | None = None
        self._end = max(self._lengths) + count
        offsets = torch.arange(count) if mask is None else table.offsets(mask)
        starts = torch.tensor(self._lengths, device=offsets.device)[:, None]
        self.positions = starts + offsets
        self.asked = False

    @property
    def plain(self) -> bool:
        """Whether causal order over slots is the whole answer."""
        return self._mask is None and len(self._lengths) == 1

    def __call__(
        self,
        batch_size: int,
        *,
        mask_function: Callable[..., Any] = _CAUSAL,
        allow_is_causal_skip: bool = True,
        local_size: int | None = None,
        device: torch.device | str = "cpu",
        **others: Any,
    ) -> Tensor | None:
        """Return [B, 1, T, N], zero where a token sees a slot and minus infinity elsewhere.

        The arguments are those of the library's mask interface. None stands for causal order.
        """
        self.asked = True
        near = local_size is not None and self._end <= local_size
        whole = mask_function is _CAUSAL or (near and allow_is_causal_skip)
        skips = allow_is_causal_skip and not self._needs_mask and self.plain
        if whole and skips and (self._count == 1 or self._lengths[0] == 0):
            return None
        visible = self._order()
        if not whole:
            rows = torch.arange(len(self._lengths), device=visible.device)[:, None, None, None]
            new = self.positions.to(visible.device)[:, None, :, None]
            slots = slot_positions(self._lengths, self._count, self._mask, visible.device)
            old = slots[:, None, None, :]
            allowed = mask_function(rows, torch.zeros_like(rows), new, old)
            visible = visible.masked_fill(allowed.logical_not(), -torch.inf)
        return visible.expand(batch_size, 1, *visible.shape[-2:]).to(device)

    def _order(self) -> Tensor:
        """Return the order among the tokens without any window, [B or 1, 1, T, N]."""
        if self._causal is None:
            if len(self._lengths) > 1:
                self._causal = self._table.ragged(self._lengths, self._count, self._mask)
            elif self._mask is not None:
                self._causal = self._table.tree(self._mask, self._lengths[0])[None, None]
            else:
                self._causal = self._table.chain(self._lengths[0], self._count)[None, None]
        return self._causal


@contextmanager
def seeing(sight: Sight, implementation: str) -> Iterator[None]:
    """Let a `Sight` answer within the context.

    Args:
        sight: It.
        implementation: The module's attention implementation, "sdpa" or "eager".
    """
    _MASKS[implementation] = sight
    ALL_ATTENTION_FUNCTIONS[_SDPA] = _attention
    try:
        yield
    finally:
        del _MASKS[implementation]
        del ALL_ATTENTION_FUNCTIONS[_SDPA]


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Return what the library's function of the same arguments does, [B, T, H, D]."""
    if query.device.type != "cpu" or others.get("position_bias") is not None:
        library: Any = ALL_ATTENTION_FUNCTIONS._global_mapping[_SDPA]
        given = {"scaling": scaling, "is_causal": is_causal, **others}
        return library(module, query, key, value, attention_mask, **given)  # type: ignore[no-any-return]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    attended = attend(
        query, key, value, attention_mask, causal=causal and attention_mask is None, scale=scaling
    )
    return attended.transpose(1, 2).contiguous(), None
