"""Random weights in a real shape: a model of true size and no meaning, without a download.

The speed of a forward does not depend on the values of its weights, so that an engine can be
measured on any machine. The values are drawn so that the numbers stay sane: activations and
logits have a standard deviation of about one at every depth, and the greedy continuation wanders.

Every matrix has its own seed, so that the lean decoder's weights and a module of transformers can
be made one after the other and are the same model. Numbers of a GPU's generator are not those of a
CPU's.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from specbench.errors import ModelError
from specbench.models.lean_weights import Weights, causal_lm_weights
from specbench.models.norm import HeadNorm
from specbench.schema.shape import Shape

EPSILON = 1e-5
"""Of every root-mean-square norm."""

_LAYER_NORMED, _ROOT_NORMED = "chameleon", "qwen3"
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


@torch.inference_mode()
def random_weights(model: RandomModel) -> Weights:
    """Return a random model's weights in the lean decoder's layout.

    Raises:
        ModelError: If a head of the shape cannot be rotated in halves.
    """
    shape = model.shape
    weights = causal_lm_weights(_module(model), model.device, model.dtype)
    if not has_head_norm(shape):
        return weights
    size = (shape.heads + shape.key_value_heads, shape.head_size)
    ones = torch.ones(*size, dtype=model.dtype, device=model.device)
    layered = shape.name.startswith(_LAYER_NORMED)
    norm = HeadNorm(ones, EPSILON, torch.zeros_like(ones) if layered else None)
    layers = [replace(layer, head_norm=norm) for layer in weights.layers]
    return replace(weights, layers=layers)


def has_head_norm(shape: Shape) -> bool:
    """Say whether models of a shape norm their queries and keys head by head."""
    return shape.name.startswith((_LAYER_NORMED, _ROOT_NORMED))


def random_module(model: RandomModel) -> Any:
    """Return the same model as a `LlamaForCausalLM` of transformers.

    Raises:
        ModelError: If the shape has a norm of queries and keys, which Llama has not.
    """
    if has_head_norm(model.shape):
        raise ModelError(
            f"'{model.shape.name}' is no Llama",
            "its queries and keys are normed head by head",
            "Compare with a shape of the Llama family.",
        )
    return _module(model)


@torch.inference_mode()
def _module(model: RandomModel) -> Any:
    """Make the module empty, and fill it matrix by matrix on the device."""
    shape = model.shape
    if shape.head_size % 2:
        raise ModelError(
            f"'{shape.name}' has heads of {shape.head_size} channels",
            "rotary positions turn the two halves of a head against each other",
            "Choose a shape with an even head_size.",
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
    residual = 1 / math.sqrt(2 * shape.layers)

    def put(owner: Any, weight: Tensor) -> None:
        owner.weight = torch.nn.Parameter(weight, requires_grad=False)

    vocabulary, channels = shape.vocabulary, shape.hidden_size
    ones = torch.ones(channels, dtype=model.dtype, device=model.device)
    put(body.embed_tokens, model.matrix("embedding", vocabulary, channels))
    for index, layer in enumerate(body.layers):
        for part in (layer.self_attn, layer.mlp):
            for name, linear in part.named_children():
                if name.endswith("_proj"):
                    scale = residual if name in ("o_proj", "down_proj") else 1.0
                    rows, columns = linear.weight.shape
                    put(linear, model.matrix(f"{index}.{name}", rows, columns, scale))
        put(layer.input_layernorm, ones)
        put(layer.post_attention_layernorm, ones)
    put(body.norm, ones)
    embedding = body.embed_tokens.weight.data
    put(module.lm_head, embedding if shape.tied else model.matrix("head", vocabulary, channels))
    body.rotary_emb = type(body.rotary_emb)(config).to(model.device)
    module.generation_config = GenerationConfig(do_sample=False)
    assert all(not parameter.is_meta for parameter in module.parameters())
    return module
