"""Random weights in a real shape: a model of true size and no meaning, without a download.

The speed of a forward does not depend on the values of its weights, so that an engine can be
measured on any machine. The values are drawn so that the numbers stay sane: activations and
logits have a standard deviation of about one at every depth, and the greedy continuation wanders.

Every matrix has its own seed, so that the lean decoder's weights and a module of transformers can
be made one after the other, matrix by matrix on the device, and are the same model. Numbers of a
GPU's generator are not those of a CPU's.

Shape legend: C channels, H query heads, G key-value heads, D head width, F feed-forward width,
V token ids, S positions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from specbench.errors import ModelError
from specbench.models.lean_weights import Layer, Weights, fused, projection, rotary_tables
from specbench.models.norm import HeadNorm, LayerHeadNorm, RMSHeadNorm
from specbench.schema.shape import Shape

EPSILON = 1e-5
"""Of every root-mean-square norm."""

ROTARY_BASE = 10_000.0
"""Base of the rotary frequencies; no cost depends on it."""

_HEAD_NORMS = {"chameleon": LayerHeadNorm, "qwen3": RMSHeadNorm}
"""Families whose queries and keys are normed head by head, by the beginning of a shape's name."""

_BATCH_OF_ROWS = 2**26
"""Numbers that are drawn at once: a large matrix needs no second one of its size in float32."""


@dataclass(frozen=True)
class RandomModel:
    """Which random model: the same values give the same weights on the same kind of device.

    Attributes:
        shape: Its sizes.
        context: S, the longest sequence that it accepts.
        device: Where it lives.
        dtype: Number format of its weights.
        seed: Of every weight.
    """

    shape: Shape
    context: int
    device: torch.device
    dtype: torch.dtype
    seed: int = 0

    @property
    def weight_bytes(self) -> int:
        """Bytes of its weights, with a matrix that embedding and head share counted once."""
        return int(self.shape.parameters * self.dtype.itemsize)

    def matrix(self, name: str, rows: int, columns: int, scale: float = 1.0) -> Tensor:
        """Return the weight [rows, columns] of a name: normal, of deviation scale / sqrt(columns).

        A product with it keeps the size of what is multiplied, times `scale`.
        """
        digest = hashlib.blake2b(f"{self.seed}/{name}".encode(), digest_size=7).digest()
        generator = torch.Generator(self.device).manual_seed(int.from_bytes(digest, "little"))
        weight = torch.empty(rows, columns, dtype=self.dtype, device=self.device)
        step = max(1, _BATCH_OF_ROWS // columns)
        for first in range(0, rows, step):
            weight[first : first + step].normal_(
                0.0, scale / math.sqrt(columns), generator=generator
            )
        return weight

    def block(self, index: int) -> Block:
        """Return the matrices of one block."""
        shape = self.shape
        query, cache = shape.heads * shape.head_size, shape.key_value_heads * shape.head_size
        channels, inner = shape.hidden_size, shape.intermediate_size
        residual = 1 / math.sqrt(2 * shape.layers)
        sizes: dict[str, tuple[int, int, float]] = {
            "q_proj": (query, channels, 1.0),
            "k_proj": (cache, channels, 1.0),
            "v_proj": (cache, channels, 1.0),
            "o_proj": (channels, query, residual),
            "gate_proj": (inner, channels, 1.0),
            "up_proj": (inner, channels, 1.0),
            "down_proj": (channels, inner, residual),
        }
        return Block(*(self.matrix(f"{index}.{name}", *size) for name, size in sizes.items()))

    def embedding(self) -> Tensor:
        """Return the embedding, [V, C]; the head is the same matrix where the shape ties them."""
        return self.matrix("embedding", self.shape.vocabulary, self.shape.hidden_size)

    def head(self) -> Tensor:
        """Return the head of a shape that does not tie it, [V, C]."""
        return self.matrix("head", self.shape.vocabulary, self.shape.hidden_size)


class Block(NamedTuple):
    """The matrices of one block, each [out, in], by their names in transformers."""

    q_proj: Tensor
    k_proj: Tensor
    v_proj: Tensor
    o_proj: Tensor
    gate_proj: Tensor
    up_proj: Tensor
    down_proj: Tensor


@torch.inference_mode()
def random_weights(model: RandomModel) -> Weights:
    """Return a random model's weights in the lean decoder's layout.

    Raises:
        ModelError: If a head of the shape cannot be rotated in halves.
    """
    shape, device, dtype = model.shape, model.device, model.dtype
    if shape.head_size % 2:
        raise ModelError(
            f"'{shape.name}' has heads of {shape.head_size} channels",
            "rotary positions turn the two halves of a head against each other",
            "Choose a shape with an even head_size.",
        )

    def joined(*parts: Tensor) -> Any:
        return fused(parts, device=device, dtype=dtype)

    layers = []
    ones = torch.ones(shape.hidden_size, dtype=dtype, device=device)
    for index in range(shape.layers):
        block = model.block(index)
        layers.append(
            Layer(
                attention_norm=ones,
                qkv=joined(block.q_proj, block.k_proj, block.v_proj),
                head_norm=_head_norm(model),
                output=joined(block.o_proj),
                feed_forward_norm=ones,
                gate_up=joined(block.gate_proj, block.up_proj),
                down=joined(block.down_proj),
            )
        )
    embedding = model.embedding()
    head = embedding if shape.tied else model.head()
    cos, sin = rotary_tables(_angles(model), device, dtype)
    return Weights(
        embedding=embedding,
        layers=layers,
        final_norm=ones,
        head=projection(head, device=device, dtype=dtype),
        cos=cos,
        sin=sin,
        heads=shape.heads,
        groups=shape.key_value_heads,
        epsilon=EPSILON,
        tied=shape.tied,
    )


def has_head_norm(shape: Shape) -> bool:
    """Say whether models of a shape norm their queries and keys head by head."""
    return any(shape.name.startswith(family) for family in _HEAD_NORMS)


@torch.inference_mode()
def random_module(model: RandomModel) -> Any:
    """Return the same model as a `LlamaForCausalLM` of transformers.

    Raises:
        ModelError: If the shape has a norm of queries and keys, which Llama has not.
    """
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    shape = model.shape
    if has_head_norm(shape):
        raise ModelError(
            f"'{shape.name}' is no Llama",
            "its queries and keys are normed head by head",
            "Compare with a shape of the Llama family.",
        )
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head_size,
        max_position_embeddings=model.context,
        rms_norm_eps=EPSILON,
        rope_theta=ROTARY_BASE,
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        dtype=model.dtype,
    )
    with torch.device("meta"):
        module = LlamaForCausalLM(config)
    module = module.to(model.dtype).eval()
    body = module.model
    _put(body.embed_tokens, model.embedding())
    for index, layer in enumerate(body.layers):
        for name, weight in model.block(index)._asdict().items():
            owner = layer.self_attn if hasattr(layer.self_attn, name) else layer.mlp
            _put(getattr(owner, name), weight)
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            _put(norm, torch.ones(shape.hidden_size, dtype=model.dtype, device=model.device))
    _put(body.norm, torch.ones(shape.hidden_size, dtype=model.dtype, device=model.device))
    _put(module.lm_head, body.embed_tokens.weight.data if shape.tied else model.head())
    body.rotary_emb = type(body.rotary_emb)(config).to(model.device)
    module.generation_config = GenerationConfig(do_sample=False)
    assert all(not parameter.is_meta for parameter in module.parameters())
    return module


def _put(owner: Any, weight: Tensor) -> None:
    owner.weight = torch.nn.Parameter(weight, requires_grad=False)


def _head_norm(model: RandomModel) -> HeadNorm | None:
    shape = model.shape
    kinds = [kind for name, kind in _HEAD_NORMS.items() if shape.name.startswith(name)]
    if not kinds:
        return None
    size: Sequence[int] = (shape.heads + shape.key_value_heads, shape.head_size)
    ones = torch.ones(*size, dtype=model.dtype, device=model.device)
    if kinds[0] is LayerHeadNorm:
        return LayerHeadNorm(ones, torch.zeros_like(ones), EPSILON)
    return RMSHeadNorm(ones, EPSILON)


def _angles(model: RandomModel) -> Tensor:
    """Return the rotary angles, [S, D / 2] in radians."""
    width = model.shape.head_size
    places = torch.arange(0, width, 2, dtype=torch.float64, device=model.device)
    frequencies = ROTARY_BASE ** (-places / width)
    positions = torch.arange(model.context, dtype=torch.float64, device=model.device)
    return positions[:, None] * frequencies
