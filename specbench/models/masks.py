"""Attention masks as views: one table serves every cache length.

The mask of T tokens behind n cached ones is [T, n + T]: zeros over the prefix, then the order
among the last W slots. Stored once behind S zero columns, the mask of any n is a slice of the
table, so a chain or a tree of fixed shape builds and copies no mask in any round. A tree that is
met for the first time is built at the length at hand: most dynamic trees never come back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from weakref import WeakSet

import torch
from torch import Tensor

from specbench.models.base import AncestorMask
from specbench.transfer import moved

_CHAIN_STEP = 64


class MaskTable:
    """Additive masks of chains and trees for caches of up to `capacity` tokens.

    Args:
        capacity: S, the largest prefix.
        dtype: Element type of the masks (the queries' type).
        device: Where they live.

    Attributes:
        offsets: Returns the positions of a mask's new tokens behind the cached ones, [T] or [B, T].
    """

    def __init__(self, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        self.capacity = capacity
        self._dtype = dtype
        self._device = device
        self._chain = torch.empty(0)
        self._tree: Callable[[AncestorMask], Tensor] = lru_cache(maxsize=32)(self._build)
        self.offsets: Callable[[AncestorMask], Tensor] = lru_cache(maxsize=32)(self._offsets)
        self._padding: Callable[[tuple[int, ...]], Tensor] = lru_cache(maxsize=32)(self._hide)
        self._met: WeakSet[AncestorMask] = WeakSet()

    def chain(self, length: int, count: int) -> Tensor:
        """Return the [T, n + T] causal mask of `count` tokens behind `length` cached ones."""
        if self._chain.shape[0] < count:
            size = -(-count // _CHAIN_STEP) * _CHAIN_STEP
            self._chain = self._additive(
                torch.ones(size, size, dtype=torch.bool).tril(), self.capacity
            )
        return self._chain[:count, self.capacity - length : self.capacity + count]

    def tree(self, mask: AncestorMask, length: int) -> Tensor:
        """Return the [T, n + T] mask of a tree behind `length` cached tokens.

        It is [B, 1, T, n + T] where rows differ.
        """
        count, width = mask.ancestors.shape[-2:]
        prefix = length + count - width
        if mask not in self._met:
            self._met.add(mask)
            return self._additive(mask.ancestors, prefix)
        return self._tree(mask)[..., self.capacity - prefix :]

    def ragged(self, lengths: Sequence[int], count: int, mask: AncestorMask | None) -> Tensor:
        """Return [B, 1, T, longest + T] for rows of different lengths.

        New token i of row b stands in slot `lengths[b] + i`; the slots behind a row's own new
        tokens are hidden.
        """
        end = max(lengths) + count
        rows = torch.full(
            (len(lengths), 1, count, end), -torch.inf, dtype=self._dtype, device=self._device
        )
        for row, length in enumerate(lengths):
            block = self.chain(length, count) if mask is None else self.tree(mask, length)
            rows[row, 0, :, : length + count] = block if block.ndim == 2 else block[row, 0]
        return rows

    def padded(
        self,
        padding: tuple[int, ...],
        lengths: Sequence[int],
        count: int,
        visible: Tensor | None,
    ) -> Tensor:
        """Return [B, 1, T, n + T] with every row's leading padding hidden.

        One token behind a prompt costs a slice of a table. A padding slot itself sees what
        causal order lets it see: with nothing to see its attention would be undefined, and an
        undefined value poisons all who weigh it by zero.

        Args:
            padding: Per row, the number of leading slots that no other slot may see.
            lengths: Per row, the cached tokens.
            count: T.
            visible: The mask without padding, [T, n + T] or [B, 1, T, n + T]; None where all
                is visible.
        """
        end = max(lengths) + count
        hidden = self._padding(padding)[..., :end]
        if visible is None:
            return hidden
        joined = hidden + visible
        for row, (width, length) in enumerate(zip(padding, lengths, strict=True)):
            if length < width:
                own = visible[row, 0] if visible.ndim == 4 else visible
                joined[row, 0, : width - length] = own[: width - length]
        return joined

    def _hide(self, padding: tuple[int, ...]) -> Tensor:
        """Return [B, 1, 1, S]: minus infinity over each row's leading padding, else zero."""
        hidden = torch.zeros(
            len(padding), 1, 1, self.capacity, dtype=self._dtype, device=self._device
        )
        for row, width in enumerate(padding):
            hidden[row, ..., :width] = -torch.inf
        return hidden

    def _offsets(self, mask: AncestorMask) -> Tensor:
        earlier = mask.offsets.shape[-1] - mask.ancestors.shape[-2]
        return moved(mask.offsets, self._device)[..., earlier:] - earlier

    def _build(self, mask: AncestorMask) -> Tensor:
        return self._additive(mask.ancestors, self.capacity)

    def _additive(self, visible: Tensor, prefix: int) -> Tensor:
        """Return [T, prefix + W]: zeros, then minus infinity where `visible` is False.

        `visible` is [T, W], or [B, T, W] for masks [B, 1, T, prefix + W].
        """
        visible = moved(visible, self._device)
        visible = visible[:, None] if visible.ndim == 3 else visible
        shape = (*visible.shape[:-1], prefix + visible.shape[-1])
        table = torch.zeros(shape, dtype=self._dtype, device=self._device)
        table[..., prefix:].masked_fill_(visible.logical_not(), -torch.inf)
        return table


def slot_positions(
    lengths: Sequence[int], count: int, mask: AncestorMask | None, device: torch.device
) -> Tensor:
    """Return the position of every slot, [B, longest + T]; a tree's slots are not in order.

    Args:
        lengths: Per row, the cached tokens before the T new ones.
        count: T.
        mask: The order among the last slots, or None for causal order.
        device: Where they are wanted.
    """
    slots = torch.arange(max(lengths) + count, device=device).repeat(len(lengths), 1)
    if mask is not None:
        offsets = mask.offsets.to(device).expand(len(lengths), -1)
        for row, length in enumerate(lengths):
            first = length + count - offsets.shape[1]
            slots[row, first : length + count] = first + offsets[row]
    return slots


def visible_slots(
    length: Tensor, count: int, slots: int, ancestors: Tensor | None, first: Tensor | None
) -> Tensor:
    """Return which slots of a cache each new token sees, asking the device for nothing.

    Args:
        length: [B] int, cached tokens of each row before the T new ones.
        count: T.
        slots: S, the cache's capacity.
        ancestors: [T, W] bool: whether new token i sees slot `length + T - W + w`. Every slot
            before these W is visible to all; columns whose slot would be negative are ignored.
            None: new token i sees the new tokens up to itself.
        first: [B] int, the number of leading slots that nobody may see; None for 0.

    Returns:
        [B, T, S] bool.
    """
    slot = torch.arange(slots, device=length.device)
    if ancestors is None:
        token = torch.arange(count, device=length.device)
        seen = slot <= length[:, None, None] + token[:, None]
    else:
        width = ancestors.shape[1]
        column = slot - (length[:, None] + count - width)  # [B, S]
        inside = (column >= 0) & (column < width)
        chosen = ancestors[:, column.clamp(0, width - 1)].transpose(0, 1)  # [B, T, S]
        seen = torch.where(inside[:, None], chosen, (column < 0)[:, None])
    return seen if first is None else seen & (slot >= first[:, None, None])
