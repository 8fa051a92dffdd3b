"""The cache and the inputs of static forwards: memory that stays where it is.

A captured CUDA graph knows addresses, not values. All that changes from one forward to the next
therefore lies in tensors that are written and never replaced: the keys and values, the number of
cached tokens, the fed tokens, and who sees whom. Memory of a dead cache goes to the next one of
its sizes, and with it the graphs that were captured over it.

Shapes: B rows, T tokens of a step, W slots of a tree mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from specbench.cache import KVCache
from specbench.models.base import AncestorMask, LayerSkip
from specbench.transfer import moved, to_device

SLOT_STEP = 128
"""Capacities are rounded up to a multiple of this many slots."""

_SMALLEST_TREE_WIDTH = 16


class Step(NamedTuple):
    """What is static in a forward: forwards of one step differ in the values of tensors alone.

    Attributes:
        rows: B.
        tokens: T, padding included.
        width: W, padding included; 0 for causal order.
        last: Logits of only the last `last` tokens are computed; 0 for all.
        padded: Whether rows have leading slots that nobody may see.
        skip: Sublayers that are left out; None for none.
        layers: Whose states are handed out.
        every: Whether the states of all T tokens are.
        end: The first block that does not run; None: all do.
    """

    rows: int
    tokens: int
    width: int = 0
    last: int = 0
    padded: bool = False
    skip: LayerSkip | None = None
    layers: tuple[int, ...] = ()
    every: bool = False
    end: int | None = None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Sizes of its inputs, rows, tokens and width; steps of equal sizes share them."""
        return self[:3]


class Outputs(NamedTuple):
    """What a step computes.

    Attributes:
        logits: [B, T or last, K].
        states: One [B, T or last, C] for each of the step's layers.
    """

    logits: Tensor
    states: tuple[Tensor, ...]

    def clone(self) -> Outputs:
        """Return a copy that the next replay leaves alone."""
        return Outputs(self.logits.clone(), tuple(state.clone() for state in self.states))


Replay = Callable[[], Outputs]
"""Runs a step over its storage and inputs; what it returns belongs to the caller."""


class Inputs:
    """The tensors that a step reads, beside weights and cache.

    Attributes:
        tokens: [B, T] int64; what stands behind the fed ones is not looked at.
        offsets: [T] int64, positions behind the cached tokens; None in causal order.
        ancestors: [T, W] bool; None in causal order.
    """

    def __init__(self, sizes: tuple[int, int, int], device: torch.device) -> None:
        rows, count, width = sizes
        self.tokens = torch.zeros(rows, count, dtype=torch.int64, device=device)
        self.offsets: Tensor | None = None
        self.ancestors: Tensor | None = None
        self._mask: AncestorMask | None = None
        if width:
            self.offsets = torch.zeros(count, dtype=torch.int64, device=device)
            self.ancestors = torch.ones(count, width, dtype=torch.bool, device=device)

    def fill(self, tokens: Tensor, mask: AncestorMask | None) -> None:
        """Write what is fed; a mask that stands there already is not written again."""
        held = self.tokens
        if tokens.shape != held.shape:
            held = held[:, : tokens.shape[1]]
        held.copy_(tokens)
        if self.ancestors is None or mask is self._mask:
            return
        assert self.offsets is not None and mask is not None
        count, width = self.ancestors.shape
        offsets, ancestors = tree_inputs(mask, count, width, self.tokens.device)
        self.offsets.copy_(offsets)
        self.ancestors.copy_(ancestors)
        self._mask = mask


@dataclass(eq=False)
class Use:
    """A step over one storage.

    Attributes:
        inputs: What it reads.
        count: How often it has run.
        replay: Replays it, once it was captured.
    """

    inputs: Inputs
    count: int = 0
    replay: Replay | None = None


@dataclass(eq=False)
class Storage:
    """Memory that outlives the cache which uses it.

    Attributes:
        store: Keys and values of all layers; see `KVCache`.
        length: [B] int32 on the device, the cached tokens of each row.
        first: [B] int32 on the device, each row's leading slots that nobody may see.
        uses: The steps that have run here.
        settled: Whether it is one of those whose steps are captured.
    """

    store: Tensor
    length: Tensor
    first: Tensor
    uses: dict[Step, Use] = field(default_factory=dict)
    settled: bool = False
    _inputs: dict[tuple[int, int, int], Inputs] = field(default_factory=dict)
    _lengths: list[int] = field(default_factory=list)
    _padding: tuple[int, ...] = ()

    @classmethod
    def empty(cls, store: Tensor) -> Storage:
        """Return storage over zeroed keys and values, [2, L, B, H, S, D]."""
        rows, device = store.shape[2], store.device
        length = torch.zeros(rows, dtype=torch.int32, device=device)
        return cls(store, length, torch.zeros_like(length), _lengths=[0] * rows)

    def use(self, step: Step) -> Use:
        """Return what is known of a step here; steps of equal sizes share their inputs."""
        found = self.uses.get(step)
        if found is None:
            if step.sizes not in self._inputs:
                self._inputs[step.sizes] = Inputs(step.sizes, self.store.device)
            found = self.uses[step] = Use(self._inputs[step.sizes])
        return found

    def point(self, lengths: list[int], padding: tuple[int, ...] | None) -> None:
        """Tell the device where the rows end, unless it knows.

        A rollback moves numbers on the host alone; the device hears of it here, through a kernel
        argument where all rows are alike.
        """
        if self._lengths != lengths:
            _write(self.length, lengths)
            self._lengths = list(lengths)
        if padding is not None and self._padding != padding:
            _write(self.first, padding)
            self._padding = padding

    def advanced(self, count: int) -> None:
        """Note that a step has moved the device's lengths by `count`."""
        self._lengths = [length + count for length in self._lengths]

    def rehearse(self, place: int, count: int, run: Replay) -> None:
        """Run a step without a trace.

        Args:
            place: The first of the slots that it may write; what they held is put back.
            count: T.
            run: The step.
        """
        slots = self.store.narrow(4, place, count)
        held = slots.clone()
        rows = self.store.shape[2]
        self.forget()
        self.point([place] * rows, (0,) * rows)
        run()
        slots.copy_(held)
        self.forget()

    def forget(self) -> None:
        """Assume nothing of what the device knows."""
        self._lengths, self._padding = [], ()


def _write(target: Tensor, values: Sequence[int]) -> None:
    if len(set(values)) == 1:
        target.fill_(values[0])
    else:
        target.copy_(to_device(list(values), target.device, target.dtype))


class StaticCache(KVCache):
    """A `KVCache` over memory that stays where it is.

    Args:
        storage: The memory.
    """

    def __init__(self, storage: Storage) -> None:
        store = storage.store
        _, layers, rows, heads, capacity, width = store.shape
        super().__init__(
            layers, rows, heads, capacity, width, store.dtype, store.device, store=store
        )
        self.storage = storage


def round_up(number: int, step: int) -> int:
    """Return the smallest multiple of `step` that is no smaller than a number."""
    return -(-number // step) * step


def tree_width(width: int) -> int:
    """Return the static width of a tree mask: a power of two, so that few widths are in use."""
    return max(_SMALLEST_TREE_WIDTH, 1 << (width - 1).bit_length())


def tree_reach(mask: AncestorMask) -> int:
    """Return how many positions the new tokens of a tree may reach over, at most."""
    if mask.offsets.device.type == "cpu":
        return _kept_reach(mask)
    return int(mask.ancestors.shape[0])


@lru_cache(maxsize=128)
def _kept_reach(mask: AncestorMask) -> int:
    fed, slots = mask.ancestors.shape
    last = int(mask.offsets[slots - fed :].max())
    return last - int(slots - fed) + 1


def tree_inputs(
    mask: AncestorMask, count: int, width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the positions and the ancestors of a tree, padded to static sizes.

    Slots before a mask's own are visible to all, so columns of True may stand before it. Tokens
    behind the fed ones see the prefix and themselves; nobody sees them.

    Args:
        mask: Of at most `count` new tokens and `width` slots.
        count: T.
        width: W.
        device: Where the result must live.

    Returns:
        Offsets [T] behind the cached tokens, and ancestors [T, W] bool.
    """
    if mask.ancestors.device.type == "cpu":
        return _kept_tree(mask, count, width, device)
    return _tree(mask, count, width)


@lru_cache(maxsize=128)
def _kept_tree(
    mask: AncestorMask, count: int, width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    offsets, ancestors = _tree(mask, count, width)
    return moved(offsets, device), moved(ancestors, device)


def _tree(mask: AncestorMask, count: int, width: int) -> tuple[Tensor, Tensor]:
    fed, slots = mask.ancestors.shape
    surplus = count - fed
    earlier = slots - fed
    offsets = F.pad(mask.offsets[earlier:] - earlier, (0, surplus))
    ancestors = F.pad(mask.ancestors, (width - slots - surplus, 0), value=True)
    ancestors = F.pad(ancestors, (0, surplus, 0, surplus), value=False)
    if surplus:
        own = torch.eye(surplus, dtype=torch.bool, device=ancestors.device)
        ancestors[fed:, width - surplus :] = own
    return offsets, ancestors
