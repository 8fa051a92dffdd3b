"""The lean decoder: one small forward for every Llama-shaped checkpoint.

Plain decoding is the denominator of every speedup, so it must be as fast as we can write it; a
general-purpose module spends most of a small model's step on Python and tiny kernels. This one
fuses the query-key-value and the gate-up projections, keeps its weights in the layout in which
few tokens multiply fastest, writes into a preallocated cache, and slices its masks and rotary
tables out of precomputed ones.

It runs Llama, Mistral, Qwen2 and Qwen3 weights (`supports` says whether a configuration is one
that it computes exactly) and whatever an adapter hands over as `Weights`. It refuses to know how
weights are loaded or tokens chosen.

Shape legend: B rows, T new tokens, C channels, H query heads, G key-value heads, D head width,
F feed-forward width, V token ids, K logits of the head, S cache slots.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from specbench.cache import Cache, KVCache
from specbench.models.attention import attend
from specbench.models.base import AncestorMask, Capability, LayerSkip, Taps
from specbench.models.lean_weights import Layer, Weights, causal_lm_weights, supports
from specbench.models.masks import MaskTable, window
from specbench.models.norm import rms_norm
from specbench.models.shape import Sizes
from specbench.schema.shape import Shape
from specbench.transfer import to_device

__all__ = ["LeanDecoder", "supports"]

_NO_SKIP = LayerSkip()


class LeanDecoder:
    """A Llama-shaped model behind the Model port.

    Args:
        module: The loaded `*ForCausalLM` module of transformers; its weights are taken over
            layer by layer and released there.
        name: What the model is called in results.
        device: Where to compute.
        dtype: Compute dtype.

    Attributes:
        embedding: [V, C]. An adapter whose prompts are no token ids (features of a caption)
            writes them into rows that it reserved.
        head_first: Token id of the first of the head's K logits, or None where the head covers
            all V ids.
    """

    engine = "lean"
    capabilities = frozenset(Capability)

    def __init__(self, module: Any, name: str, device: torch.device, dtype: torch.dtype) -> None:
        self._take(causal_lm_weights(module, device, dtype), name)

    @classmethod
    def from_weights(cls, weights: Weights, name: str) -> LeanDecoder:
        """Make a decoder of weights that an adapter has laid out.

        Args:
            weights: On their device and in their compute dtype.
            name: What the model is called in results.
        """
        model = cls.__new__(cls)
        model._take(weights, name)
        return model

    def _take(self, weights: Weights, name: str) -> None:
        self.name = name
        self.embedding = weights.embedding
        self.device: torch.device = weights.embedding.device
        self.dtype: torch.dtype = weights.embedding.dtype
        self.vocab_size: int = weights.embedding.shape[0]
        self.layers: int = len(weights.layers)
        self.context: int = weights.cos.shape[0]
        self.head_first = weights.head_first
        self._layers = tuple(weights.layers)
        self._final_norm = weights.final_norm
        self._head = weights.head
        self._cos, self._sin = weights.cos, weights.sin
        self._heads = weights.heads
        self._groups = weights.groups
        self._width: int = weights.cos.shape[-1]
        self._epsilon = weights.epsilon
        self._tied = weights.tied
        self._masks = MaskTable(0, self.dtype, self.device)

    @property
    def sizes(self) -> Sizes:
        """What its forwards read and compute; a matrix that the checkpoint ties counts once."""
        layers, channels = self._layers, self.embedding.shape[1]
        outputs = self._head(self.embedding.new_zeros(1, channels)).shape[-1]
        projections = [part for each in layers for part in (each.qkv, each.output, each.down)]
        projections += [each.gate_up for each in layers]
        parameters = sum(part.parameters for part in projections)
        parameters += self.embedding.numel() + channels * (2 * len(layers) + 1)
        parameters += 0 if self._tied else channels * outputs
        shape = Shape(
            name=self.name,
            title=self.name,
            hidden_size=channels,
            layers=len(layers),
            heads=self._heads,
            key_value_heads=self._groups,
            head_size=self._width,
            intermediate_size=layers[0].gate_up.outputs // 2,
            vocabulary=outputs,
            tied=self._tied,
        )
        return Sizes.of(shape, parameters, self.dtype.itemsize)

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """Return an empty cache for `batch` rows of at most `capacity` tokens."""
        if self._masks.capacity < capacity:
            self._masks = MaskTable(capacity, self.dtype, self.device)
        return KVCache(
            len(self._layers), batch, self._groups, capacity, self._width, self.dtype, self.device
        )

    @torch.inference_mode()
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

        A head over a slice of the ids gives logits of that slice, [B, T or last, K].
        """
        assert isinstance(cache, KVCache)
        rows, count = tokens.shape
        skip = skip or _NO_SKIP
        wanted = taps.layers if taps else ()
        every = taps is not None and taps.every
        tapped_last = 0 if every else last
        tapped: dict[int, Tensor] = {}
        cos, sin, visible = self._positions(cache, count, mask)
        x = F.embedding(tokens.reshape(-1), self.embedding)
        for index, layer in enumerate(self._layers):
            if index not in skip.attention:
                x = self._attend(x, index, layer, cache, cos, sin, visible, rows, mask)
            if index not in skip.feed_forward:
                hidden = self._norm(x, layer.feed_forward_norm)
                gate, up = layer.gate_up(hidden).chunk(2, -1)
                x = layer.down.add(x, F.silu(gate).mul_(up))
            if index in wanted:
                tapped[index] = x.view(rows, count, -1)[:, -tapped_last:]
        cache.advance(count)
        if every:
            x = self._norm(x, self._final_norm)
            tapped[-1] = x.view(rows, count, -1)
        if last and last < count:
            x = x.view(rows, count, -1)[:, -last:].reshape(rows * last, -1)
        if not every:
            x = self._norm(x, self._final_norm)
        if taps is not None:
            tapped.setdefault(-1, x.view(rows, -1, x.shape[-1]))
            taps.states = [tapped[layer] for layer in wanted]
        logits = self._head(x)
        logits = logits.view(rows, -1, logits.shape[-1])
        return logits[..., : self.vocab_size] if self.head_first is None else logits

    def _attend(
        self,
        x: Tensor,
        index: int,
        layer: Layer,
        cache: KVCache,
        cos: Tensor,
        sin: Tensor,
        visible: Tensor | None,
        rows: int,
        mask: AncestorMask | None,
    ) -> Tensor:
        heads, groups = self._heads, self._groups
        qkv = layer.qkv(self._norm(x, layer.attention_norm))
        qkv = qkv.view(rows, -1, heads + 2 * groups, self._width)
        rotated = qkv[:, :, : heads + groups]
        if layer.head_norm is not None:
            rotated = layer.head_norm(rotated)
        rotated = torch.addcmul(rotated * cos, rotated.roll(self._width // 2, -1), sin)
        rotated = rotated.transpose(1, 2)
        keys, values = cache.write(
            index, rotated[:, heads:], qkv[:, :, heads + groups :].transpose(1, 2)
        )
        count = qkv.shape[1]
        first = visible is None and count > 1
        if layer.window is not None and max(cache.lengths) + count > layer.window:
            visible = self._windowed(cache, count, mask, visible, layer.window)
            first = False
        attended = attend(rotated[:, :heads], keys, values, visible, causal=first)
        return layer.output.add(x, attended.transpose(1, 2).reshape(rows * count, -1))

    def _positions(
        self, cache: KVCache, count: int, mask: AncestorMask | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return rotary rows, [1 or B, T, 1, D], and the additive mask, or None.

        None means that causal order suffices: an empty cache, or a single token. A row's
        padding counts in its positions: rotary attention sees differences alone.
        """
        if not cache.uniform:
            starts = to_device(cache.lengths, self.device)[:, None]
            positions = starts + self._offsets(count, mask)
            visible = self._masks.ragged(cache.lengths, count, mask)
            if cache.padding is not None:
                visible = self._masks.padded(cache.padding, cache.lengths, count, visible)
            return self._cos[positions], self._sin[positions], visible
        start = cache.lengths[0]
        if mask is not None:
            positions = start + self._offsets(count, mask)
            cos, sin = self._cos[positions][None], self._sin[positions][None]
            seen: Tensor | None = self._masks.tree(mask, start)
        else:
            cos = self._cos[None, start : start + count]
            sin = self._sin[None, start : start + count]
            unpadded = cache.padding is None or start >= max(cache.padding)
            plain = unpadded and (count == 1 or start == 0)
            seen = None if plain else self._masks.chain(start, count)
        if cache.padding is not None:
            seen = self._masks.padded(cache.padding, cache.lengths, count, seen)
        return cos, sin, seen

    def _offsets(self, count: int, mask: AncestorMask | None) -> Tensor:
        """Return the positions of the new tokens behind the cached ones, [T]."""
        if mask is None:
            return torch.arange(count, device=self.device)
        return self._masks.offsets(mask)

    def _windowed(
        self,
        cache: KVCache,
        count: int,
        mask: AncestorMask | None,
        visible: Tensor | None,
        width: int,
    ) -> Tensor:
        """Return the mask of a sliding-window layer; trees count by position, not by slot."""
        if visible is None:
            visible = self._masks.chain(cache.lengths[0], count)
        offsets = self._offsets(count, mask)
        masks = []
        for row, length in enumerate(cache.lengths):
            slots = torch.arange(visible.shape[-1], device=self.device)
            slots[length : length + count] = length + offsets
            if mask is not None:
                first = length + count - mask.offsets.shape[0]
                slots[first : length + count] = first + mask.offsets.to(self.device)
            own = visible[row, 0] if visible.ndim == 4 else visible
            masks.append(window(own, length + offsets, slots, width))
        return torch.stack(masks)[:, None]

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x, weight, self._epsilon)
