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
from specbench.models.base import CAUSAL, NO_SKIP, AncestorMask, Capability, Model, View
from specbench.models.lean_weights import Layer, Weights, causal_lm_weights
from specbench.models.masks import MaskTable, slot_positions
from specbench.models.norm import rms_norm
from specbench.models.shape import Sizes
from specbench.schema.shape import Shape
from specbench.transfer import to_device


class LeanDecoder(Model):
    """A Llama-shaped model behind the Model port.

    Args:
        weights: On their device and in their compute dtype.
        name: What the model is called in results.

    Attributes:
        embedding: [V, C]. An adapter whose prompts are no token ids (features of a caption)
            writes them into rows that it reserved.
        weights: What it computes with.
    """

    engine = "lean"
    capabilities = frozenset(Capability)

    def __init__(self, weights: Weights, name: str) -> None:
        self.name = name
        self.weights = weights
        self.embedding = weights.embedding
        self.device = weights.embedding.device
        self.dtype = weights.embedding.dtype
        self.vocab_size = weights.embedding.shape[0]
        self.layers = len(weights.layers)
        self.context = weights.cos.shape[0]
        self._width: int = weights.cos.shape[-1]
        self._masks = MaskTable(0, self.dtype, self.device)

    @classmethod
    def of(cls, module: Any, name: str, device: torch.device, dtype: torch.dtype) -> LeanDecoder:
        """Make a decoder of a loaded `*ForCausalLM` module of transformers.

        Its weights are taken over layer by layer and released there.
        """
        return cls(causal_lm_weights(module, device, dtype), name)

    @property
    def sizes(self) -> Sizes:
        """What its forwards read and compute; a matrix that the checkpoint ties counts once."""
        weights, channels = self.weights, self.embedding.shape[1]
        outputs = weights.head(self.embedding.new_zeros(1, channels)).shape[-1]
        parameters = self.embedding.numel() + channels * (2 * self.layers + 1)
        parameters += 0 if weights.tied else channels * outputs
        for each in weights.layers:
            parts = (each.qkv, each.output, each.gate_up, each.down)
            parameters += sum(part.parameters for part in parts)
        shape = Shape(
            name=self.name,
            title=self.name,
            hidden_size=channels,
            layers=self.layers,
            heads=weights.heads,
            key_value_heads=weights.groups,
            head_size=self._width,
            intermediate_size=weights.layers[0].gate_up.outputs // 2,
            vocabulary=outputs,
            tied=weights.tied,
        )
        return Sizes.of(shape, parameters, self.dtype.itemsize)

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """Return an empty cache for `batch` rows of at most `capacity` tokens."""
        if self._masks.capacity < capacity:
            self._masks = MaskTable(capacity, self.dtype, self.device)
        groups = self.weights.groups
        return KVCache(self.layers, batch, groups, capacity, self._width, self.dtype, self.device)

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the embeddings [B, T, C] of token ids [B, T]."""
        return F.embedding(tokens, self.embedding)

    @torch.inference_mode()
    def head(self, states: Tensor, *, normed: bool = True) -> Tensor:
        """Apply the LM head to states [B, T, C]; see `Model.head`."""
        rows, count, channels = states.shape
        x = states.reshape(-1, channels)
        return self._logits(x if normed else self._norm(x, self.weights.final_norm), rows)

    def _logits(self, x: Tensor, rows: int) -> Tensor:
        """Return the logits [B, T, K] of final states [B T, C]."""
        logits = self.weights.head(x)
        logits = logits.view(rows, -1, logits.shape[-1])
        return logits[..., : self.vocab_size] if self.weights.head_first is None else logits

    @torch.inference_mode()
    def forward(self, inputs: Tensor, cache: Cache, view: View = CAUSAL) -> Tensor:
        """Feed new tokens behind each row's cached prefix; see `Model.forward`.

        A head over a slice of the ids gives logits of that slice, [B, T or last, K].
        """
        assert isinstance(cache, KVCache)
        rows, count = inputs.shape[:2]
        last, taps, skip = view.last, view.taps, view.skip or NO_SKIP
        wanted = taps.layers if taps else ()
        every = taps is not None and taps.every
        tapped_last = 0 if every else last
        tapped: dict[int, Tensor] = {}
        place = self._positions(cache, count, view.mask)
        beside: Tensor | None = None
        if inputs.is_floating_point():
            x = inputs.reshape(rows * count, -1)
            channels = self.embedding.shape[1]
            if x.shape[1] > channels:
                x, beside = x[:, :channels], x[:, channels:]
        else:
            x = F.embedding(inputs.reshape(-1), self.embedding)
        for index in view.blocks(self.layers):
            layer = self.weights.layers[index]
            if index not in skip.attention:
                read = self._norm(x, layer.attention_norm) if beside is None else beside
                x, beside = self._attend(x, read, index, layer, cache, place, view.mask), None
            if index not in skip.feed_forward:
                hidden = self._norm(x, layer.feed_forward_norm)
                gate, up = layer.gate_up(hidden).chunk(2, -1)
                x = layer.down.add(x, F.silu(gate).mul_(up))
            if index in wanted:
                tapped[index] = x.view(rows, count, -1)[:, -tapped_last:]
        cache.advance(count)
        if every:
            x = self._norm(x, self.weights.final_norm)
            tapped[-1] = x.view(rows, count, -1)
        if last and last < count:
            x = x.view(rows, count, -1)[:, -last:].reshape(rows * last, -1)
        if not every:
            x = self._norm(x, self.weights.final_norm)
        if taps is not None:
            tapped.setdefault(-1, x.view(rows, -1, x.shape[-1]))
            taps.states = [tapped[layer] for layer in wanted]
        return self._logits(x, rows) if view.logits else x.new_empty(rows, 0, self.vocab_size)

    def _attend(
        self,
        x: Tensor,
        read: Tensor,
        index: int,
        layer: Layer,
        cache: KVCache,
        place: tuple[Tensor, Tensor, Tensor | None],
        mask: AncestorMask | None,
    ) -> Tensor:
        cos, sin, visible = place
        rows = len(cache.lengths)
        heads, groups = self.weights.heads, self.weights.groups
        qkv = layer.qkv(read)
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
        start = cache.lengths[0]
        if not cache.uniform:
            starts = to_device(cache.lengths, self.device)[:, None]
            positions = starts + self._offsets(count, mask)
            seen: Tensor | None = self._masks.ragged(cache.lengths, count, mask)
        elif mask is not None:
            positions = (start + self._offsets(count, mask)).view(-1, count)
            seen = self._masks.tree(mask, start)
        else:
            positions = slice(start, start + count)
            unpadded = cache.padding is None or start >= max(cache.padding)
            plain = unpadded and (count == 1 or start == 0)
            seen = None if plain else self._masks.chain(start, count)
        if cache.padding is not None:
            seen = self._masks.padded(cache.padding, cache.lengths, count, seen)
        cos, sin = self.weights.cos[positions], self.weights.sin[positions]
        return (cos, sin, seen) if cos.ndim == 4 else (cos[None], sin[None], seen)

    def _offsets(self, count: int, mask: AncestorMask | None) -> Tensor:
        """Return the positions of the new tokens behind the cached ones, [T] or [B, T]."""
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
        """Hide slots that lie `width` or more positions before a token: [B, 1, T, n + T]."""
        if visible is None:
            visible = self._masks.chain(cache.lengths[0], count)
        new = to_device(cache.lengths, self.device)[:, None] + self._offsets(count, mask)
        old = slot_positions(cache.lengths, count, mask, self.device)
        far = new[:, None, :, None] - old[:, None, None] >= width
        return visible.expand(far.shape).masked_fill(far, -torch.inf)

    def _norm(self, x: Tensor, weight: Tensor | None) -> Tensor:
        return x if weight is None else rms_norm(x, weight, self.weights.epsilon)
