"""DFlash's block drafter: a few blocks that guess a whole block of tokens in one forward.

Chen et al. 2026, "DFlash: Block Diffusion for Flash Speculative Decoding"; read in the release,
github.com/z-lab/dflash (dflash/model.py). States of some of the target's blocks are joined, mapped
by `fc` and normed: the context. Every drafter block reads keys and values of the context, made by
its own projections and kept in its cache, beside those of the block of tokens, which sees all of
itself: the newest token, and mask tokens for those to guess. Positions are those of the text. The
logits at a mask token are of the token that it stands for. Embedding and LM head are the target's.

Published layout: config.json of a Qwen3 with `block_size`, `num_target_layers` and `dflash_config`
(`mask_token_id`, `target_layer_ids`); weights `fc`, `hidden_norm`, `layers.N.*` of a Qwen3 and
`norm`. DFlash 2, and configurations with sliding or causal layers, biases, or scaled or capped
logits, are refused. Compared in development with the release's module (commit 44947fb) and with the
assistant of transformers' DFlash generator, see `tests/unit/models/heads/test_dflash.py`.

Shapes: B rows, n context tokens, T tokens of a block, C channels, H query heads, G key-value heads,
D head width, F feed-forward width, L layers, V ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from specbench.cache import Cache, KVCache
from specbench.models.attention import attend
from specbench.models.base import CAUSAL, Model, View
from specbench.models.heads.base import Head, HeadFiles, TargetShape, uniform
from specbench.models.heads.body import BlockSettings
from specbench.models.lean_weights import read_rotary
from specbench.models.linear import Linear, linear
from specbench.models.norm import rms_norm
from specbench.models.pretrained import first_line

Rotary = tuple[Tensor, Tensor]
"""Cosines and sines of positions, each [1 or B, T, 1, D]; see `lean_weights.read_rotary`."""
MakeLinear = Callable[[Tensor], Linear]
_BLOCK_SIZE = 16
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "attention_sink_bias": (False, None),
    "causal": (False, None),
    "conv_kernel_size": (None,),
    "final_logit_softcapping": (None, 0, 0.0),
    "input_embedding_scale": (None, 1, 1.0),
    "is_causal": (False, None),
    "output_multiplier": (None, 1, 1.0),
    "use_swa": (False, None),
}
"""Keys that change the arithmetic, with the values that leave it as it is here."""


class DFlashSettings(BlockSettings):
    """The settings of a drafter, as its config.json says them, those of its blocks among them.

    Args:
        settings: The keys.

    Attributes:
        block_size: T, the newest token included.
        mask_token: Stands for a token to guess.
        taps: Blocks of the target whose states are read.
        target_layers: Blocks of the target; None where nobody says.

    Raises:
        ValueError: If a key is lacking, or asks for what is not computed here.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        own = settings.get("dflash_config") or {}
        joined = {**settings, **own}
        for key, neutral in _NEUTRAL.items():
            if joined.get(key) not in neutral:
                raise ValueError(f"it asks for {key}={joined[key]}, which is not computed here")
        lacking = [key for key in ("mask_token_id", "target_layer_ids") if joined.get(key) is None]
        if lacking:
            raise ValueError(f"it has no {' and no '.join(lacking)}")
        blocks = {key: value for key, value in settings.items() if key != "dflash_config"}
        super().__init__({**blocks, "model_type": "qwen3"})
        if set(self.config.layer_types) != {"full_attention"}:
            raise ValueError("it has sliding layers, which are not computed here")
        self.block_size = int(joined.get("block_size", _BLOCK_SIZE))
        self.mask_token = int(joined["mask_token_id"])
        self.taps = tuple(map(int, joined["target_layer_ids"]))
        self.target_layers: int | None = settings.get("num_target_layers")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every weight, by its published name."""
        width, feed_forward, each = self.width, self.feed_forward, self.head_width
        queries, keys = self.heads * each, self.groups * each
        found = {
            "fc.weight": (width, len(self.taps) * width),
            "hidden_norm.weight": (width,),
            "norm.weight": (width,),
        }
        for index in range(self.layers):
            block = {
                "input_layernorm": (width,),
                "self_attn.q_proj": (queries, width),
                "self_attn.k_proj": (keys, width),
                "self_attn.v_proj": (keys, width),
                "self_attn.o_proj": (width, queries),
                "self_attn.q_norm": (each,),
                "self_attn.k_norm": (each,),
                "post_attention_layernorm": (width,),
                "mlp.gate_proj": (feed_forward, width),
                "mlp.up_proj": (feed_forward, width),
                "mlp.down_proj": (width, feed_forward),
            }
            found |= {f"layers.{index}.{name}.weight": shape for name, shape in block.items()}
        return found

    def rotary(self, context: int, device: torch.device, dtype: torch.dtype) -> Rotary:
        """Return the tables of every position, each [S, 1, D]."""
        return read_rotary(Qwen3RotaryEmbedding(self.config), context, device, dtype)


@dataclass(frozen=True)
class _Block:
    """One block of the drafter; `key_value` makes G keys and G values."""

    attention_norm: Tensor
    query: Linear
    query_norm: Tensor
    key_value: Linear
    key_norm: Tensor
    output: Linear
    feed_forward_norm: Tensor
    gate_up: Linear
    down: Linear


class DFlashBody:
    """The arithmetic, over weights by their published names: for use and for training alike.

    Args:
        weights: On their device and in their compute dtype, with gradients or without.
        settings: Their settings.
        make: Makes a projection of a weight.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], settings: DFlashSettings, make: MakeLinear
    ) -> None:
        def block(index: int) -> _Block:
            def weight(name: str) -> Tensor:
                return weights[f"layers.{index}.{name}.weight"]

            def joined(*names: str) -> Linear:
                return make(torch.cat([weight(name) for name in names]))

            return _Block(
                attention_norm=weight("input_layernorm"),
                query=joined("self_attn.q_proj"),
                query_norm=weight("self_attn.q_norm"),
                key_value=joined("self_attn.k_proj", "self_attn.v_proj"),
                key_norm=weight("self_attn.k_norm"),
                output=joined("self_attn.o_proj"),
                feed_forward_norm=weight("post_attention_layernorm"),
                gate_up=joined("mlp.gate_proj", "mlp.up_proj"),
                down=joined("mlp.down_proj"),
            )

        self._settings = settings
        self._fc = make(weights["fc.weight"])
        self._context_norm = weights["hidden_norm.weight"]
        self._final_norm = weights["norm.weight"]
        self._blocks = [block(index) for index in range(settings.layers)]
        # The context is the same for all blocks: one product makes all of its keys and values.
        names = [
            f"layers.{index}.self_attn.{part}_proj.weight"
            for index in range(settings.layers)
            for part in "kv"
        ]
        self._all_key_values = make(torch.cat([weights[name] for name in names]))
        self._key_norms = torch.stack([each.key_norm for each in self._blocks])[:, None]

    def context(self, states: Sequence[Tensor], rotary: Rotary) -> tuple[Tensor, Tensor]:
        """Return every block's keys and values of context tokens, each [L, B, G, n, D].

        Args:
            states: The target's, each [B, n, C], in the order of the taps.
            rotary: Of their positions.
        """
        own = self._settings
        rows, count = states[0].shape[:2]
        read = torch.cat(tuple(states), -1).flatten(0, 1)
        hidden = rms_norm(self._fc(read), self._context_norm, own.epsilon)
        made = self._all_key_values(hidden).view(rows, count, own.layers, 2, own.groups, -1)
        keys, values = made.unbind(3)
        cos, sin = (table[..., None, :] for table in rotary)
        keys = _rotated(rms_norm(keys, self._key_norms, own.epsilon), (cos, sin))
        return keys.permute(2, 0, 3, 1, 4), values.permute(2, 0, 3, 1, 4)

    def states(
        self,
        x: Tensor,
        rotary: Rotary,
        join: Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]],
        visible: Tensor | None = None,
    ) -> Tensor:
        """Return the final states of block tokens, [B, T, C], which the LM head reads.

        Args:
            x: Their embeddings, [B, T, C].
            rotary: Of their positions.
            join: Given a block's index and its keys and values of these tokens, [B, G, T, D],
                returns all that it attends to, the context's first.
            visible: Additive mask [B, 1, T, S]; None where all is visible.
        """
        own, (rows, count, channels) = self._settings, x.shape
        for index, block in enumerate(self._blocks):
            hidden = rms_norm(x, block.attention_norm, own.epsilon).reshape(-1, channels)
            queries = block.query(hidden).view(rows, count, own.heads, -1)
            queries = _rotated(rms_norm(queries, block.query_norm, own.epsilon), rotary)
            made = block.key_value(hidden).view(rows, count, 2, own.groups, -1)
            keys = _rotated(rms_norm(made[:, :, 0], block.key_norm, own.epsilon), rotary)
            keys, values = join(index, keys.transpose(1, 2), made[:, :, 1].transpose(1, 2))
            attended = attend(queries.transpose(1, 2), keys, values, visible).transpose(1, 2)
            flat = block.output.add(x.reshape(-1, channels), attended.reshape(rows * count, -1))
            hidden = rms_norm(flat, block.feed_forward_norm, own.epsilon)
            gate, up = block.gate_up(hidden).chunk(2, -1)
            x = block.down.add(flat, F.silu(gate) * up).view(rows, count, channels)
        return rms_norm(x, self._final_norm, own.epsilon)


def _rotated(x: Tensor, rotary: Rotary) -> Tensor:
    cos, sin = rotary
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


class DFlashHead(Head):
    """A block drafter behind one target.

    Its cache holds the context's keys and values: of every committed token but the newest.

    Args:
        body: Its arithmetic.
        settings: Its settings.
        target: The model that it drafts for.
        embed: Maps ids [B, T] to embeddings [B, T, C].
        lm_head: Maps final states [B, T, C] to logits [B, T, V].
        name: What it is called.
    """

    family = "dflash"

    def __init__(
        self,
        body: DFlashBody,
        settings: DFlashSettings,
        target: Model,
        embed: Callable[[Tensor], Tensor],
        lm_head: Callable[[Tensor], Tensor],
        name: str,
    ) -> None:
        super().__init__(name, target, settings.layers)
        self.taps = settings.taps
        self.block_size = settings.block_size
        self.mask_token = settings.mask_token
        self._body = body
        self._settings = settings
        self._embed = embed
        self._lm_head = lm_head
        self._cos, self._sin = settings.rotary(target.context, target.device, target.dtype)

    @classmethod
    def recognises(cls, files: HeadFiles) -> bool:
        """Say whether the files hold a context's map and norm, and blocks of a Qwen3."""
        names = ("fc.weight", "hidden_norm.weight", "layers.0.self_attn.q_norm.weight")
        return all(name in files.shapes for name in names)

    @classmethod
    def check(cls, files: HeadFiles, target: TargetShape) -> None:
        """Refuse a drafter of another target, or one that lacks weights."""
        settings = _settings_of(files)
        files.fits("hidden width", settings.width, target.width, target)
        files.fits("vocabulary", settings.vocab_size, target.vocab_size, target)
        if settings.target_layers is not None:
            files.fits("number of target layers", settings.target_layers, target.layers, target)
        # Libraries hand out the last block's state behind the final norm, caches before it.
        if not settings.taps or not all(0 <= tap < target.layers - 1 for tap in settings.taps):
            raise files.unfit(
                f"it reads the states of the blocks {', '.join(map(str, settings.taps))}, and the "
                f"target has blocks 0 to {target.layers - 1}, of which the last is not read",
                target,
            )
        if settings.block_size < 2 or not 0 <= settings.mask_token < target.vocab_size:
            raise files.unfit(
                f"its blocks have {settings.block_size} tokens and its mask token is "
                f"{settings.mask_token} of {target.vocab_size}",
                target,
            )
        for name, shape in settings.shapes().items():
            files.expect(name, *shape)

    @classmethod
    def load(cls, files: HeadFiles, target: Model) -> Self:
        """Read the weights; embedding and LM head are the target's."""
        settings, state = _settings_of(files), files.read()
        weights = {name: state[name].to(target.device, target.dtype) for name in settings.shapes()}
        body = DFlashBody(weights, settings, linear)
        return cls(body, settings, target, target.embed, target.head, files.source)

    @classmethod
    def random(cls, target: Model, width: int, seed: int) -> Self:
        """Return a drafter of one small block, with an embedding and an LM head of its own."""
        draw = torch.Generator().manual_seed(seed)
        settings = DFlashSettings(
            {
                "block_size": 4,
                "dflash_config": {"mask_token_id": 0, "target_layer_ids": [0, 1]},
                "head_dim": 4,
                "hidden_size": width,
                "intermediate_size": 8,
                "num_attention_heads": 2,
                "num_hidden_layers": 1,
                "num_key_value_heads": 1,
                "vocab_size": target.vocab_size,
            }
        )
        weights = {
            name: uniform(draw, *shape).to(target.device, target.dtype)
            for name, shape in settings.shapes().items()
        }
        table, head = (
            uniform(draw, target.vocab_size, width).to(target.device, target.dtype)
            for _ in range(2)
        )
        return cls(
            DFlashBody(weights, settings, linear),
            settings,
            target,
            lambda tokens: F.embedding(tokens, table),
            lambda states: F.linear(states, 4 * head),
            "random head",
        )

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """Return an empty cache for the keys and values of `capacity` tokens."""
        own = self._settings
        return KVCache(
            own.layers, batch, own.groups, capacity, own.head_width, self.dtype, self.device
        )

    @torch.inference_mode()
    def remember(self, states: Sequence[Tensor], cache: Cache) -> None:
        """Keep the keys and values of the target's states, each [1, n, C], as context."""
        assert isinstance(cache, KVCache)
        count = states[0].shape[1]
        keys, values = self._body.context(states, self._rotary(cache, count))
        for layer in range(self.layers):
            cache.write(layer, keys[layer], values[layer])
        cache.advance(count)

    @torch.inference_mode()
    def forward(self, inputs: Tensor, cache: Cache, view: View = CAUSAL) -> Tensor:
        """Feed a block of token ids [1, T], which sees the context and all of itself."""
        assert isinstance(cache, KVCache)
        count = inputs.shape[1]
        made = self._body.states(self._embed(inputs), self._rotary(cache, count), cache.write)
        cache.advance(count)
        return self._lm_head(made[:, -view.last :])

    def _rotary(self, cache: KVCache, count: int) -> Rotary:
        start = cache.lengths[0]
        places = slice(start, start + count)
        return self._cos[None, places], self._sin[None, places]


def _settings_of(files: HeadFiles) -> DFlashSettings:
    """Return the settings of a drafter's config.json.

    Raises:
        ModelError: If it is none of a DFlash drafter that is computed here.
    """
    try:
        return DFlashSettings(files.settings)
    except Exception as error:  # transformers checks by several means
        raise files.unfit(f"its config.json is no DFlash drafter's: {first_line(error)}") from error
