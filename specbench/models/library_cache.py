"""Our cache behind transformers' cache interface.

The library's cache classes change between releases, and they cut a window's past off, so the
storage is ours: every layer of the adapter writes into preallocated slots, and rollback never
touches the library. What a layer keeps is read off a first forward: key and value may differ in
width (multi-head latent attention), layers in heads and width, and some keep nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache as LibraryCache
from transformers.cache_utils import CacheLayerMixin

from specbench.cache import SlotCache
from specbench.models.running_states import RunningStates


class Kept(NamedTuple):
    """What a layer keeps of a token, in one tensor.

    Attributes:
        heads: H.
        width: D.
        dtype: Element type.
        device: Where it lives.
    """

    heads: int
    width: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, states: Tensor) -> Kept:
        """Return what [B, H, T, D] states are kept as."""
        return cls(states.shape[1], states.shape[3], states.dtype, states.device)

    @property
    def bytes(self) -> int:
        """Bytes of a token."""
        return self.heads * self.width * int(self.dtype.itemsize)


class Entry(NamedTuple):
    """What a layer keeps of a token."""

    keys: Kept
    values: Kept


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """One layer of the library's cache interface."""

    def __init__(self) -> None:
        super().__init__()
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: storage is allocated beforehand."""

    def get_mask_sizes(self, query_length: int | Tensor) -> tuple[int, int]:
        """Return the length of all keys after the new ones, and their offset.

        Args:
            query_length: Number of new tokens; transformers 5.0 gives their positions.
        """
        count = query_length if isinstance(query_length, int) else len(query_length)
        return self.get_seq_length() + count, 0

    def get_max_cache_shape(self) -> int:
        """Return what `get_max_length` does, under its earlier name."""
        return int(self.get_max_length())


class _Slots(_Layer):
    """A layer that is stored in ours."""

    def __init__(self, index: int, store: PortCache) -> None:
        super().__init__()
        self._index = index
        self._store = store

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write new keys and values; return all of them."""
        return self._store.write(self._index, key_states, value_states)

    def get_seq_length(self) -> int:
        """Return the number of cached tokens of the longest row."""
        return max(self._store.lengths)

    def get_max_length(self) -> int:
        """Return the capacity."""
        return self._store.capacity


class Looked(_Layer):
    """A layer that keeps nothing and notes what it would have to keep."""

    def __init__(self) -> None:
        super().__init__()
        self.entry: Entry | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return what it is given."""
        self.entry = Entry(Kept.of(key_states), Kept.of(value_states))
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Return the number of cached tokens."""
        return 0

    def get_max_length(self) -> int:
        """Return that nothing limits it."""
        return -1


class PortCache(SlotCache):
    """A cache that transformers' modules can write into.

    Args:
        entries: What each layer keeps; None for a layer that keeps nothing.
        batch: B.
        capacity: S.
        states: The layers that keep a running state, or None where all keep tokens alone.
        texts: Where token ids are kept too; None where nobody asks for them.

    Attributes:
        adapter: The library's view of it.
        long: Whether the keys have the frequencies of long texts (`long_rope`).
    """

    def __init__(
        self,
        entries: Sequence[Entry | None],
        batch: int,
        capacity: int,
        states: RunningStates | None = None,
        texts: torch.device | None = None,
    ) -> None:
        counts = Counter(part for entry in entries if entry is not None for part in entry)
        stores = {
            kept: torch.zeros(
                (count, batch, kept.heads, capacity, kept.width),
                dtype=kept.dtype,
                device=kept.device,
            )
            for kept, count in counts.items()
        }
        shelves = {kept: iter(store) for kept, store in stores.items()}
        keys = [None if entry is None else next(shelves[entry.keys]) for entry in entries]
        values = [None if entry is None else next(shelves[entry.values]) for entry in entries]
        self._tokens = torch.zeros(batch, 1, capacity if texts else 0, 1, dtype=torch.long)
        if texts is not None:
            self._tokens = self._tokens.to(texts)
        kept = (*stores.values(), *([self._tokens] if texts else []))
        super().__init__(batch, capacity, kept, keys, values)
        self.states = states
        self.long = False
        layers: list[Any] = [_Slots(index, self) for index in range(len(entries))]
        for index, layer in (states.layers if states is not None else {}).items():
            layers[index] = layer
        self.adapter = LibraryCache(layers=layers)

    def note(self, tokens: Tensor) -> None:
        """Keep the ids [B, T] of tokens that are about to be fed behind rows of one length."""
        start = self.lengths[0]
        self._tokens[:, 0, start : start + tokens.shape[1], 0] = tokens

    def text(self, length: int) -> Tensor:
        """Return the ids of the first cached tokens, [B, length]."""
        return self._tokens[:, 0, :length, 0].clone()

    def _gather(self, row: int, start: int, kept: Sequence[int]) -> None:
        assert self.states is None, "a running state has no branches to choose from"
        super()._gather(row, start, kept)
