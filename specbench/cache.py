"""The key-value cache: preallocated once, rolled back by moving a length.

Every model port owns its cache through this module; no decoder touches a cache tensor, and no
library's cache class appears outside `models/`.

Shapes: L layers, B rows, H key-value heads, S slots, D head width, T new tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from specbench.transfer import to_device


class Cache(Protocol):
    """What decoding code may do with a model's memory of a sequence."""

    capacity: int

    @property
    def lengths(self) -> list[int]:
        """Cached tokens of each row."""

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget every token from position `lengths[row]` on, in O(1)."""

    def keep(self, base: Sequence[int], indices: Sequence[Sequence[int]]) -> None:
        """Keep, of the tokens written from position `base[row]` on, only `indices[row]`."""


class LengthCache:
    """Lengths and rollback without storage; models with their own storage extend it."""

    def __init__(self, batch: int, capacity: int) -> None:
        self.lengths = [0] * batch
        self.capacity = capacity

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget every token from position `lengths[row]` on.

        Rolling back moves a number: nothing is copied or freed.
        """
        assert all(new <= old for new, old in zip(lengths, self.lengths, strict=True))
        self.lengths = list(lengths)

    def keep(self, base: Sequence[int], indices: Sequence[Sequence[int]]) -> None:
        """Keep, of the tokens written from position `base[row]` on, only `indices[row]`.

        An accepted path of a tree is gathered to the front; a prefix of the new tokens, such as
        the accepted part of a chain, only moves the length.

        Args:
            base: Per row, the length before the tokens were written.
            indices: Per row, increasing offsets from `base`.
        """
        for row, (start, kept) in enumerate(zip(base, indices, strict=True)):
            if any(index != offset for offset, index in enumerate(kept)):
                self._gather(row, start, kept)
            self.lengths[row] = start + len(kept)

    def _gather(self, row: int, start: int, kept: Sequence[int]) -> None:
        """Move the slots `start + kept` of a row to `start`."""


class SlotCache(LengthCache):
    """Keys and values of every layer in preallocated tensors, which may differ in their shapes.

    Args:
        batch: B.
        capacity: S.
        stores: The memory, each [..., B, H, S, D] with H and D of its own.
        keys: One [B, H, S, D] view for each layer; None for a layer that keeps nothing.
        values: One [B, H, S, D] view for each layer; None likewise.
    """

    def __init__(
        self,
        batch: int,
        capacity: int,
        stores: Sequence[Tensor],
        keys: Sequence[Tensor | None],
        values: Sequence[Tensor | None],
    ) -> None:
        super().__init__(batch, capacity)
        self._stores = tuple(stores)
        self.keys = tuple(keys)
        self.values = tuple(values)
        self._padding: tuple[int, ...] | None = None

    @property
    def padding(self) -> tuple[int, ...] | None:
        """Per row, the number of leading slots that nobody may see; None where no row has any.

        Whoever feeds a prompt of several rows, made equally long by padding on the left, sets
        it before; rolling back does not change it.
        """
        return self._padding

    @padding.setter
    def padding(self, widths: Sequence[int] | None) -> None:
        self._padding = tuple(widths) if widths and any(widths) else None

    @property
    def bytes(self) -> int:
        """Memory that the cache holds, in bytes."""
        return sum(store.nbytes for store in self._stores)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write new keys and values behind each row's length and return all of them.

        The lengths do not move: the model calls `advance` after its last layer.

        Args:
            layer: Index of the layer.
            keys: [B, H, T, D].
            values: [B, H, T, D].

        Returns:
            Views [B, H, longest + T, D] of the stored keys and values.
        """
        stored_keys, stored_values = self.keys[layer], self.values[layer]
        assert stored_keys is not None and stored_values is not None
        count = keys.shape[2]
        start = self.lengths[0]
        if self.uniform:
            stored_keys.narrow(2, start, count).copy_(keys)
            stored_values.narrow(2, start, count).copy_(values)
            end = start + count
        else:
            rows, slots = self._slots(count, stored_keys.device)
            stored_keys[rows, :, slots] = keys.transpose(1, 2)
            stored_values[rows, :, slots] = values.transpose(1, 2)
            end = max(self.lengths) + count
        return stored_keys.narrow(2, 0, end), stored_values.narrow(2, 0, end)

    @property
    def uniform(self) -> bool:
        """Whether all rows have one length."""
        return len(self.lengths) == 1 or len(set(self.lengths)) == 1

    def advance(self, count: int) -> None:
        """Count `count` written tokens in every row."""
        self.lengths = [length + count for length in self.lengths]

    def _slots(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        starts = to_device(self.lengths, device)
        rows = torch.arange(len(self.lengths), device=device)[:, None]
        return rows, starts[:, None] + torch.arange(count, device=device)

    def keep(self, base: Sequence[int], indices: Sequence[Sequence[int]]) -> None:
        """Keep some of the last tokens; rows that keep the same slots are gathered together."""
        rows = len(base)
        if rows == 1 or any(start != base[0] for start in base):
            super().keep(base, indices)
            return
        kept = indices[0]
        if any(other is not kept and list(other) != list(kept) for other in indices[1:]):
            super().keep(base, indices)
            return
        if any(index != offset for offset, index in enumerate(kept)):
            for store in self._stores:
                self._move(store, base[0], kept)
        self.lengths = [base[0] + len(kept)] * rows

    def _gather(self, row: int, start: int, kept: Sequence[int]) -> None:
        for store in self._stores:
            self._move(store.select(-4, row), start, kept)

    def _move(self, store: Tensor, start: int, kept: Sequence[int]) -> None:
        slots = to_device(kept, store.device) + start
        store[..., start : start + len(kept), :] = store.index_select(-2, slots)


class KVCache(SlotCache):
    """Keys and values of equal layers in one preallocated tensor.

    Args:
        layers: L.
        batch: B.
        heads: H.
        capacity: S.
        head_width: D.
        dtype: Element type of keys and values.
        device: Where they live.
        store: Memory of a dead cache of the same sizes, to be used again; None for fresh memory.

    Attributes:
        store: Keys and values of all layers, [2, L, B, H, S, D].
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def __init__(
        self,
        layers: int,
        batch: int,
        heads: int,
        capacity: int,
        head_width: int,
        dtype: torch.dtype,
        device: torch.device,
        store: Tensor | None = None,
    ) -> None:
        shape = (2, layers, batch, heads, capacity, head_width)
        if store is None:
            store = torch.zeros(shape, dtype=dtype, device=device)
        assert store.shape == shape
        self.store = store
        super().__init__(batch, capacity, (store,), store[0].unbind(0), store[1].unbind(0))
