"""The lean decoder with static shapes: one pure function of tensors that stay where they are.

On a GPU a small model's forward is bound by launching kernels, not by running them. Here a
forward of T tokens reads its length, its tokens and its mask from device memory and asks the
host for nothing, so that it can be captured once as a CUDA graph, or compiled, and then be
replayed for every length (`models.graphs`, `models.compiled`).

A step (`Step`) is captured between requests, once it has been used twice; `settle` does it, and
the runner calls `settle` outside of timed regions. Until then the same function runs operation
by operation over the same memory, only slower to launch. What is not
static (a prompt, a layer whose sliding window has been passed) runs through the lean decoder's
own forward on the same cache.

Logits and states belong to the caller: they are copies of what a graph has written, a small
price beside reading the weights, because drafters keep the logits of several forwards.

Shapes: B rows, T new tokens, C channels, H query heads, G key-value heads, D head width.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from specbench.cache import Cache
from specbench.models.base import CAUSAL, NO_SKIP, View, Wrapper
from specbench.models.decoder import LeanDecoder
from specbench.models.linear import PlainLinear
from specbench.models.ops import Ops, Place
from specbench.models.static_cache import (
    SLOT_STEP,
    Inputs,
    Outputs,
    Replay,
    StaticCache,
    Step,
    Storage,
    round_up,
    tree_reach,
    tree_width,
)

MOST_TOKENS = 320
"""Tokens of the largest step; trees of more than `_EXACT_TREE` are padded, so that few sizes
are in use."""

LEAST_CAPACITY = 2048
"""Slots of a cache that the runner keeps between requests: growing costs its graphs."""

_EXACT_TREE = 64
_TREE_STEP = 16
_USES_BEFORE_CAPTURE = 2
_MOST_CAPTURED = 512
_MOST_SETTLED = 4
_MOST_SPARE = 1


Capture = Callable[[Replay, Callable[[Replay], None]], Replay]
"""Makes a step fast: returns what replays a step, given what runs it operation by operation, and a
function that runs what it is given where nothing is kept, for warming up."""


class StaticDecoder(Wrapper):
    """A lean decoder whose forwards of few tokens are static.

    Args:
        lean: The decoder whose weights it shares, and which runs what is not static.
        ops: What computes; by default the library's operations.
        capture: What makes steps fast; None leaves them as they are.
        engine: What results call it.
    """

    body: LeanDecoder
    least_capacity = LEAST_CAPACITY
    captures = True

    def __init__(
        self,
        lean: LeanDecoder,
        ops: Ops | None = None,
        capture: Capture | None = None,
        engine: str = "lean static",
    ) -> None:
        super().__init__(lean)
        self.engine = engine
        self._ops = ops or Ops()
        self._capture = capture
        self._layers = tuple(self._ops.adopt(layer) for layer in lean.weights.layers)
        self._head = self._ops.adopt_head(lean.weights.head, lean.embedding[:1])
        windows = [layer.window for layer in self._layers if layer.window is not None]
        self._window = min(windows, default=None)
        self._longest: int = lean.weights.cos.shape[0]
        self._caches: weakref.WeakSet[StaticCache] = weakref.WeakSet()
        self._spare: list[Storage] = []

    def new_cache(self, batch: int, capacity: int) -> StaticCache:
        """Return an empty cache for `batch` rows of at least `capacity` tokens.

        It takes over the memory of a dead one that is large enough and not much too large.
        """
        slots = round_up(capacity, SLOT_STEP)
        storage = self._reused(batch, slots)
        if storage is None:
            storage = Storage.empty(self.body.new_cache(batch, slots).store)
        cache = StaticCache(storage)
        weakref.finalize(cache, _give_back, self._spare, storage).atexit = False
        self._caches.add(cache)
        return cache

    def grow(self, cache: Cache, capacity: int) -> StaticCache:
        """Return an empty, larger cache in the place of one.

        The next `settle` captures for it what was in use there.
        """
        assert isinstance(cache, StaticCache)
        larger = self.new_cache(len(cache.lengths), capacity)
        for step, use in cache.storage.uses.items():
            larger.storage.use(step).count += use.count
        return larger

    def _reused(self, batch: int, slots: int) -> Storage | None:
        for storage in self._spare:
            found = storage.store.shape
            if found[2] == batch and slots <= found[4] <= 2 * slots:
                self._spare.remove(storage)
                return storage
        return None

    @torch.inference_mode()
    def forward(self, inputs: Tensor, cache: Cache, view: View = CAUSAL) -> Tensor:
        """Feed new tokens behind each row's cached prefix; see `Model.forward`."""
        assert isinstance(cache, StaticCache)
        step = self._step_of(inputs, cache, view)
        if step is None:
            return self.body.forward(inputs, cache, view)
        storage, count, last = cache.storage, inputs.shape[1], view.last
        use = storage.use(step)
        use.count += 1
        use.inputs.fill(inputs, view.mask)
        storage.point(cache.lengths, cache.padding)
        outputs = self._run(step, storage, use.inputs) if use.replay is None else use.replay()
        storage.advanced(step.tokens)
        cache.advance(count)
        logits = outputs.logits
        if view.taps is not None:
            kept = 0 if view.taps.every else last
            view.taps.states = [state[:, :count][:, -kept:] for state in outputs.states]
        if logits.shape[1] > (last or count):
            logits = logits[:, :count][:, -last:]
        if self.body.weights.head_first is None and logits.shape[2] > self.vocab_size:
            logits = logits[..., : self.vocab_size]
        return logits

    def _step_of(self, inputs: Tensor, cache: StaticCache, view: View) -> Step | None:
        """Return the step of a forward, or None where it has to run as it comes."""
        rows, count = inputs.shape[:2]
        mask, last, taps = view.mask, view.last, view.taps
        width, fed = 0, count
        if inputs.ndim == 3 or view.first_layer or not view.logits:
            return None
        if mask is not None and mask.ancestors.ndim == 3:
            return None
        if mask is not None:
            fed = count if count <= _EXACT_TREE else round_up(count, _TREE_STEP)
            width = tree_width(mask.ancestors.shape[1] + fed - count)
        longest, shortest = max(cache.lengths), min(cache.lengths)
        hidden = max(cache.padding) if cache.padding is not None else 0
        reach = count if mask is None else tree_reach(mask)
        if (
            shortest == 0
            or shortest < hidden
            or count > MOST_TOKENS
            or longest + fed > cache.capacity
            or longest + reach > self._longest
            or (self._window is not None and longest + count > self._window)
        ):
            return None
        wanted = 0 if last >= count or fed > count else last
        layers = taps.layers if taps is not None else ()
        every = taps is not None and taps.every and wanted > 0
        end = view.blocks(self.layers).stop
        return Step(rows, fed, width, wanted, hidden > 0, view.skip, layers, every, end)

    def settle(self) -> None:
        """Capture the steps that are in use, for every cache that is; never in a timed region."""
        if self._capture is None:
            return
        settled = sum(cache.storage.settled for cache in self._caches)
        settled += sum(storage.settled for storage in self._spare)
        for cache in list(self._caches):
            if not cache.storage.settled and settled >= _MOST_SETTLED:
                continue
            settled += not cache.storage.settled
            cache.storage.settled = True
            self._settle(cache, self._capture)

    @torch.inference_mode()
    def _settle(self, cache: StaticCache, capture: Capture) -> None:
        storage = cache.storage
        captured = sum(use.replay is not None for use in storage.uses.values())
        for step, use in storage.uses.items():
            place = min(max(cache.lengths), max(self._longest - step.tokens, 0))
            place = min(place, cache.capacity - step.tokens)
            if (
                use.replay is not None
                or use.count < _USES_BEFORE_CAPTURE
                or place < 0
                or captured >= _MOST_CAPTURED
            ):
                continue
            run = partial(self._run, step, storage, use.inputs)
            rehearse = partial(storage.rehearse, place, step.tokens)
            use.replay = capture(run, rehearse)
            captured += 1
            storage.forget()

    def _run(self, step: Step, storage: Storage, inputs: Inputs) -> Outputs:
        """Compute a step: a pure function of tensors, but for the cache and its lengths."""
        ops, weights, skip = self._ops, self.body.weights, step.skip or NO_SKIP
        epsilon = weights.epsilon
        rows, count = step.rows, step.tokens
        place = ops.place(
            Place(
                storage.length,
                count,
                storage.store.shape[-2],
                weights.heads // weights.groups,
                weights.cos,
                weights.sin,
                inputs.offsets,
                inputs.ancestors,
                storage.first if step.padded else None,
            )
        )
        x = F.embedding(inputs.tokens.reshape(-1), self.body.embedding)
        tapped: dict[int, Tensor] = {}
        kept = 0 if step.every else step.last
        for index, layer in enumerate(self._layers[: step.end]):
            if index not in skip.attention:
                qkv = ops.project(layer.qkv, ops.norm(x, layer.attention_norm, epsilon))
                keys, values = storage.store[0, index], storage.store[1, index]
                query = ops.rotate(qkv, place, keys, values, layer.head_norm)
                mixed = ops.attend(query, keys, values, place)
                x = ops.project_add(layer.output, mixed.reshape(rows * count, -1), x)
            if index not in skip.feed_forward:
                normed = ops.norm(x, layer.feed_forward_norm, epsilon)
                x = ops.project_add(layer.down, ops.project_silu_mul(layer.gate_up, normed), x)
            if index in step.layers:
                tapped[index] = x.view(rows, count, -1)[:, -kept:]
        storage.length.add_(count)
        if step.last and not step.every:
            x = _last(x, step)
        hidden = ops.norm(x, weights.final_norm, epsilon)
        tapped[-1] = hidden.view(rows, -1, hidden.shape[-1])
        if step.last and step.every:
            hidden = _last(hidden, step)
        head = self._head
        logits = ops.project(head, hidden) if isinstance(head, PlainLinear) else head(hidden)
        states = tuple(tapped[layer] for layer in step.layers)
        return Outputs(logits.view(rows, -1, logits.shape[-1]), states)


def _last(x: Tensor, step: Step) -> Tensor:
    """Return the last tokens of each row, [B last, C], of [B T, C]."""
    return x.view(step.rows, step.tokens, -1)[:, -step.last :].reshape(-1, x.shape[-1])


def _give_back(spare: list[Storage], storage: Storage) -> None:
    """Keep a dead cache's memory for the next one."""
    if len(spare) < _MOST_SPARE:
        spare.append(storage)
