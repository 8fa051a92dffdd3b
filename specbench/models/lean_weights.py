"""What the lean decoder computes with: weights in its own layout, whatever they come from.

A checkpoint of transformers is taken over block by block and released there; an adapter of
another format fills the same bundle from its own tensors. Either way the decoder meets fused
projections, one norm over all rotated heads, and rotary tables for contiguous halves.

Shape legend: C channels, H query heads, G key-value heads, D head width, F feed-forward width,
V token ids, K logits of the head, S positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from specbench.models.linear import Linear, linear
from specbench.models.long_rope import original_length
from specbench.models.norm import HeadNorm

_LAYER_NORM_EPSILON = 1e-5
"""Of the norms of queries and keys in every released Chameleon."""

SUPPORTED_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})


@dataclass(frozen=True)
class Layer:
    """The weights of one transformer block.

    Attributes:
        attention_norm: [C], root-mean-square; None where nothing is normed here (heads that join
            a token and a feature): the first block's attention then reads what stands behind the
            first C numbers of each fed feature, or these where there are no more.
        qkv: C -> (H + 2 G) D.
        head_norm: Norm of the queries and keys before they are rotated, or None.
        output: H D -> C.
        feed_forward_norm: [C], root-mean-square.
        gate_up: C -> 2 F.
        down: F -> C.
        window: Sliding window in tokens, or None.
    """

    attention_norm: Tensor | None
    qkv: Linear
    head_norm: HeadNorm | None
    output: Linear
    feed_forward_norm: Tensor
    gate_up: Linear
    down: Linear
    window: int | None = None


@dataclass(frozen=True)
class Weights:
    """All that `LeanDecoder` needs of a model, on its device and in its compute dtype.

    Attributes:
        embedding: [V, C]; a family whose images have a table of their own concatenates the two.
        layers: The blocks.
        final_norm: [C], root-mean-square; None where the head reads the last block's states.
        head: [N, C] -> [N, K], the LM head; any callable, such as a head of several layers.
        cos: [S, 1, D] cosines; S is the model's context.
        sin: [S, 1, D] sines, the first half of D negated (`rotary_tables`). A position whose
            rows are zero in both is one whose queries and keys vanish.
        heads: H.
        groups: G.
        epsilon: Of every root-mean-square norm.
        head_first: Token id of the head's first logit, for a head over a slice of the ids;
            None where it covers all of them.
        tied: Whether the checkpoint keeps embedding and head as one matrix; in memory they may
            be two.
    """

    embedding: Tensor
    layers: Sequence[Layer]
    final_norm: Tensor | None
    head: Callable[[Tensor], Tensor]
    cos: Tensor
    sin: Tensor
    heads: int
    groups: int
    epsilon: float
    head_first: int | None = None
    tied: bool = False


def supports(config: Any) -> bool:
    """Say whether a transformers configuration is one that the lean decoder computes exactly."""
    return config.model_type in SUPPORTED_TYPES and _plain(config)


def _plain(config: Any) -> bool:
    return (
        config.hidden_act == "silu"
        and getattr(config, "pretraining_tp", 1) in (1, None)
        and not getattr(config, "quantization_config", None)
        and original_length(config) is None
    )


def causal_lm_weights(module: Any, device: torch.device, dtype: torch.dtype) -> Weights:
    """Take the weights of a `*ForCausalLM` module over; it is empty afterwards."""
    assert supports(module.config)
    head = projection(module.lm_head.weight, module.lm_head.bias, device=device, dtype=dtype)
    weights = body_weights(module.model, module.config, head=head, device=device, dtype=dtype)
    return replace(weights, tied=bool(getattr(module.config, "tie_word_embeddings", False)))


def body_weights(
    body: Any,
    config: Any,
    *,
    head: Callable[[Tensor], Tensor],
    device: torch.device,
    dtype: torch.dtype,
    embedding: Tensor | None = None,
    head_first: int | None = None,
) -> Weights:
    """Take over a Llama-shaped body of transformers (the `*Model` inside a larger module).

    Chameleon's bodies too: their norm of queries and keys is recognised by its bias.

    Args:
        body: A module with `embed_tokens`, `layers`, `norm` and `rotary_emb`; its blocks are
            released one by one.
        config: The body's own configuration.
        head: [N, C] -> [N, K].
        device: Where to compute.
        dtype: Compute dtype.
        embedding: [V, C] to use in place of the body's own table.
        head_first: See `Weights`.
    """
    assert _plain(config)

    def tensor(parameter: Tensor) -> Tensor:
        # a copy: one view of a mapped file keeps the whole file in memory
        return parameter.detach().to(device=device, dtype=dtype, copy=True)

    def fuse(*parts: Any) -> Linear:
        weights = [part.weight for part in parts]
        biases = [part.bias for part in parts] if parts[0].bias is not None else None
        return fused(weights, biases, device=device, dtype=dtype)

    heads, groups = config.num_attention_heads, config.num_key_value_heads
    kinds = getattr(config, "layer_types", None) or []
    sliding = getattr(config, "sliding_window", None)
    layers = []
    for index, block in enumerate(body.layers):
        attention, feed_forward = block.self_attn, block.mlp
        slides = kinds[index] == "sliding_attention" if kinds else sliding is not None
        layers.append(
            Layer(
                attention_norm=tensor(block.input_layernorm.weight),
                qkv=fuse(attention.q_proj, attention.k_proj, attention.v_proj),
                head_norm=_head_norm(attention, heads, groups, config.rms_norm_eps, tensor),
                output=fuse(attention.o_proj),
                feed_forward_norm=tensor(block.post_attention_layernorm.weight),
                gate_up=fuse(feed_forward.gate_proj, feed_forward.up_proj),
                down=fuse(feed_forward.down_proj),
                window=sliding if slides else None,
            )
        )
        body.layers[index] = torch.nn.Identity()
    cos, sin = read_rotary(body.rotary_emb, config.max_position_embeddings, device, dtype)
    return Weights(
        embedding=tensor(body.embed_tokens.weight) if embedding is None else tensor(embedding),
        layers=layers,
        final_norm=tensor(body.norm.weight),
        head=head,
        cos=cos,
        sin=sin,
        heads=heads,
        groups=groups,
        epsilon=config.rms_norm_eps,
        head_first=head_first,
    )


def _head_norm(
    attention: Any,
    heads: int,
    groups: int,
    epsilon: float,
    tensor: Callable[[Tensor], Tensor],
) -> HeadNorm | None:
    """Read the norm of queries and keys as one over H + G heads, [H + G, D].

    A weight is [D] for all heads, or [R, D] for R groups of heads in a row.
    """
    if not hasattr(attention, "q_norm"):
        return None
    query, key = attention.q_norm, attention.k_norm

    def over(weight: Tensor, count: int) -> Tensor:
        rows = weight.reshape(-1, weight.shape[-1])
        return rows.repeat_interleave(count // rows.shape[0], 0)

    def both(left: Tensor, right: Tensor) -> Tensor:
        return tensor(torch.cat([over(left, heads), over(right, groups)]))

    weight = both(query.weight, key.weight)
    if getattr(query, "bias", None) is None:
        return HeadNorm(weight, epsilon)
    return HeadNorm(weight, _LAYER_NORM_EPSILON, both(query.bias, key.bias))


def projection(
    weight: Tensor, bias: Tensor | None = None, *, device: torch.device, dtype: torch.dtype
) -> Linear:
    """Return the fastest projection of a weight [out, in] and an optional bias [out]."""
    return fused([weight], None if bias is None else [bias], device=device, dtype=dtype)


def fused(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor] | None = None,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> Linear:
    """Return one projection whose outputs are those of several, one behind the other.

    Args:
        weights: Each [out, in].
        biases: Each [out], or None.
        device: Where to compute.
        dtype: Compute dtype.
    """

    def join(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part.detach().to(device=device, dtype=dtype) for part in parts])

    return linear(join(weights), None if biases is None else join(biases))


def halves_from_pairs(weight: Tensor, width: int) -> Tensor:
    """Reorder a query or key projection so that rotating halves does what rotating pairs did.

    Some families rotate channels (0, 1), (2, 3), ... of a head together, others (0, D/2),
    (1, D/2 + 1), ... A dot product does not see in which order the channels stand, so a
    reordering of queries and keys alike, once at load time, replaces a second kernel.

    Args:
        weight: [heads * D, in], or a bias or norm weight [heads * D].
        width: D.
    """
    shape = weight.shape
    return weight.reshape(-1, width // 2, 2, *shape[1:]).transpose(1, 2).reshape(shape)


def rotary_tables(
    angles: Tensor, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return cosines and signed sines, [S, 1, D], of the angles [S, D / 2] in radians.

    The sine's first half is negated, so that rotating is `x * cos + roll(x, D / 2) * sin`.
    Rows of positions that are not rotated but silenced may be zeroed in both afterwards.
    """
    angles = angles.to(torch.float64)
    cos, sin = angles.cos(), angles.sin()
    cos, sin = torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)
    return cos[:, None].to(device, dtype), sin[:, None].to(device, dtype)


def read_rotary(
    rotary: Any, context: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the tables of a transformers rotary module, whatever its scaling."""
    positions = torch.arange(context, device=device)[None]
    cos, sin = rotary.to(device)(torch.zeros(1, dtype=torch.float64, device=device), positions)
    half = sin.shape[-1] // 2
    sin = torch.cat([-sin[..., :half], sin[..., half:]], -1)
    return cos[0, :, None].to(dtype), sin[0, :, None].to(dtype)
