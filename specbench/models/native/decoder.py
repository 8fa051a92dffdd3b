"""The lean decoder with a whole forward in one native call.

What the step does not compute (a prompt of very many tokens, a padded prompt) runs through the
lean decoder's own forward, over the same cache and the same weights.

Shapes: B rows, T new tokens, C channels, V vocabulary, K logits of the head, W slots of a mask.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_int64, c_uint8, c_void_p
from dataclasses import replace

import torch
from torch import Tensor

from specbench.cache import Cache, KVCache
from specbench.models.base import CAUSAL, LayerSkip, View, Wrapper
from specbench.models.decoder import LeanDecoder
from specbench.models.lean_weights import Layer
from specbench.models.linear import Linear, PackedLinear, PlainLinear
from specbench.models.native import library
from specbench.models.native.weights import CLayer, CModel, CStep, NativeLinear, Room

MOST_ROWS = 512
"""Tokens of all rows in one step: trees and short prompts. Longer prompts attend as torch does."""

_DTYPES = (torch.float32, torch.bfloat16)


class NativeDecoder(Wrapper):
    """A lean decoder whose forwards of few tokens are one call each.

    Args:
        lean: The decoder whose weights it takes over, projection by projection.
        release: Whether `lean` may be left without its own: else they are in memory twice.

    Raises:
        Unavailable: If there is no native step here, or none for this model.
    """

    body: LeanDecoder

    def __init__(self, lean: LeanDecoder, *, release: bool = False) -> None:
        obstacle = _obstacle(lean)
        if obstacle is not None:
            raise library.Unavailable(obstacle)
        self._library = library.load()
        super().__init__(_with_native_weights(lean, release))
        self.engine = "lean native"
        weights = self.body.weights
        self._kept: list[Tensor] = []
        self._skips: dict[LayerSkip, ctypes.Array[c_uint8]] = {}
        self._layers = (CLayer * self.layers)(*(self._described(each) for each in weights.layers))
        self._longest: int = weights.cos.shape[0]
        self._outputs = weights.head.outputs if isinstance(weights.head, NativeLinear) else None
        self._model = CModel(
            int(self.dtype == torch.bfloat16),
            self.layers,
            weights.embedding.shape[1],
            weights.heads,
            weights.groups,
            weights.cos.shape[-1],
            weights.layers[0].gate_up.outputs // 2,
            weights.embedding.shape[0],
            weights.epsilon,
            self._layers,
            self._wide(weights.final_norm),
            self._wide(weights.cos),
            self._wide(weights.sin),
            weights.embedding.data_ptr(),
        )
        if isinstance(weights.head, NativeLinear):
            self._model.head = weights.head.described

    def _wide(self, tensor: Tensor | None) -> int | None:
        """Return where a small tensor's numbers lie in float32."""
        if tensor is None:
            return None
        self._kept.append(tensor.float().contiguous())
        return int(self._kept[-1].data_ptr())

    def _described(self, layer: Layer) -> CLayer:
        norm = layer.head_norm
        parts = [layer.qkv, layer.output, layer.gate_up, layer.down]
        return CLayer(
            *(part.described for part in parts if isinstance(part, NativeLinear)),
            self._wide(layer.attention_norm),
            self._wide(layer.feed_forward_norm),
            self._wide(None if norm is None else norm.weight),
            self._wide(None if norm is None else norm.bias),
            0.0 if norm is None else norm.epsilon,
            layer.window or 0,
        )

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """Return an empty cache for `batch` rows of at most `capacity` tokens."""
        return self.body.new_cache(batch, capacity)

    @torch.inference_mode()
    def forward(self, inputs: Tensor, cache: Cache, view: View = CAUSAL) -> Tensor:
        """Feed new tokens behind each row's cached prefix; see `Model.forward`."""
        assert isinstance(cache, KVCache)
        if not self._takes(inputs, cache, view):
            return self.body.forward(inputs, cache, view)
        rows, count = inputs.shape[:2]
        last = min(view.last or count, count)
        blocks, taps, mask = view.blocks(self.layers), view.taps, view.mask
        inputs = inputs.contiguous()
        step = CStep(
            rows, count, last, blocks.start, blocks.stop, torch.get_num_threads(), cache.capacity
        )
        lengths = (c_int64 * rows)(*cache.lengths)
        step.lengths = ctypes.addressof(lengths)
        if cache.padding is not None:
            padding = (c_int64 * rows)(*cache.padding)
            step.padding = ctypes.addressof(padding)
        if inputs.ndim == 3:
            step.features = inputs.data_ptr()
        else:
            step.ids = inputs.data_ptr()
        if mask is not None:
            offsets, ancestors = mask.offsets.contiguous(), mask.ancestors.contiguous()
            step.mask_width = ancestors.shape[-1]
            if ancestors.ndim == 3:
                step.mask_stride = ancestors.shape[-1] * count
                offsets = offsets.expand(rows, -1).contiguous()
            step.offsets, step.ancestors = offsets.data_ptr(), ancestors.data_ptr()
        if view.skip is not None:
            step.skip = ctypes.addressof(self._skip(view.skip))
        step.keys, step.values = cache.store[0].data_ptr(), cache.store[1].data_ptr()
        channels = self._model.channels
        outside = view.logits and self._outputs is None
        step.kept = count if taps is not None and taps.every else last
        wanted = dict.fromkeys(taps.layers if taps is not None else ())
        if outside:
            wanted[-1] = None
        states = {each: self._empty(rows, step.kept, channels) for each in wanted}
        if states:
            pointers = (c_void_p * (self.layers + 1))()
            for each, state in states.items():
                pointers[each] = state.data_ptr()
            step.taps = ctypes.addressof(pointers)
        logits = self._empty(rows, last if view.logits else 0, self._outputs or self.vocab_size)
        if view.logits and not outside:
            step.logits = logits.data_ptr()
        if not self._library.forward(byref(self._model), byref(step)):
            raise IndexError("a token id is out of range")
        cache.advance(count)
        if taps is not None:
            taps.states = [states[each] for each in taps.layers]
        if outside:
            return self.body.head(states[-1][:, -last:])
        return (
            logits if self.body.weights.head_first is not None else logits[..., : self.vocab_size]
        )

    def _takes(self, inputs: Tensor, cache: KVCache, view: View) -> bool:
        """Say whether the step computes a forward as it is asked for."""
        rows, count = inputs.shape[:2]
        hidden = max(cache.padding) if cache.padding is not None else 0
        reach = count
        if view.mask is not None:
            reach = int(view.mask.offsets.max()) + count - view.mask.ancestors.shape[-1] + 1
        longest = max(cache.lengths)
        return (
            0 < rows * count <= MOST_ROWS
            and inputs.dtype == (torch.int64 if inputs.ndim == 2 else self.dtype)
            and min(cache.lengths) >= hidden
            and longest + count <= cache.capacity
            and longest + reach <= self._longest
        )

    def _skip(self, skip: LayerSkip) -> ctypes.Array[c_uint8]:
        if skip not in self._skips:
            flags = (
                (index in skip.attention) + 2 * (index in skip.feed_forward)
                for index in range(self.layers)
            )
            self._skips[skip] = (c_uint8 * self.layers)(*flags)
        return self._skips[skip]

    def _empty(self, rows: int, count: int, width: int) -> Tensor:
        return torch.empty(rows, count, width, dtype=self.dtype)


def _obstacle(lean: LeanDecoder) -> str | None:
    """Say why the step cannot compute a model, as a clause; None where it can."""
    weights = lean.weights
    if lean.device.type != "cpu" or lean.dtype not in _DTYPES:
        return (
            f"it computes float32 and bfloat16 on a CPU, and this is {lean.dtype} on {lean.device}"
        )
    lanes = library.load().lanes()
    sizes = [weights.embedding.shape[1], weights.layers[0].gate_up.outputs // 2]
    if weights.cos.shape[-1] % lanes or any(size % 2 for size in sizes):
        return f"heads of {weights.cos.shape[-1]} channels do not divide into vectors of {lanes}"
    return None


def _with_native_weights(lean: LeanDecoder, release: bool) -> LeanDecoder:
    """Return a lean decoder over projections in the step's layout."""
    weights = lean.weights
    layers, room = list(weights.layers), Room()
    for index, layer in enumerate(layers):
        layers[index] = replace(
            layer,
            qkv=_native(layer.qkv, room),
            output=_native(layer.output, room),
            gate_up=_native(layer.gate_up, room, halves=True),
            down=_native(layer.down, room),
        )
        if release and isinstance(weights.layers, list):
            weights.layers[index] = layers[index]
    head = weights.head
    if isinstance(head, PackedLinear | PlainLinear):
        head = _native(head, room)
    body = LeanDecoder(replace(weights, layers=layers, head=head), lean.name)
    body.context = lean.context
    body.mask_token = lean.mask_token
    return body


def _native(linear: Linear, room: Room, *, halves: bool = False) -> NativeLinear:
    if isinstance(linear, NativeLinear):
        return linear
    assert isinstance(linear, PackedLinear | PlainLinear)
    return NativeLinear(linear.dense(), linear.bias, room, halves=halves)
