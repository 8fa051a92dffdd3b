"""What every kernel of this package computes, in plain torch.

These functions are the definition: the Triton kernels are tested against them, and they serve
where no kernel runs (on a CPU, in float64, without Triton). They read lengths from device
tensors and never ask the device for a value, so a CUDA graph may capture them too. Everything
is computed in float32 (float64 for float64 inputs) and rounded once, at the end.

Shapes: B rows, T new tokens, N = B T, H query heads, G key-value heads, D head width, S cache
slots, W slots that a tree mask speaks of, C channels, F feed-forward width, P rotary positions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from specbench.models.masks import visible_slots


class HeadScale(NamedTuple):
    """The norm of queries and keys, head by head, before they are rotated.

    Attributes:
        weight: [H + G, D].
        epsilon: Added to the mean square or the variance.
        bias: [H + G, D] of a layer norm (Chameleon); None for a root-mean-square norm (Qwen3).
    """

    weight: Tensor
    epsilon: float
    bias: Tensor | None = None


def decode_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    length: Tensor,
    ancestors: Tensor | None = None,
    scale: float | None = None,
    first: Tensor | None = None,
) -> Tensor:
    """Attend from T new tokens to a row's cached slots and to each other.

    The new keys and values already stand in the slots `length` to `length + T`; the slots
    behind them may hold anything finite.

    Args:
        query: [B, T, H, D].
        keys: [B, G, S, D]; H / G query heads share one.
        values: [B, G, S, D].
        length: [B] int32, cached tokens of each row before the T new ones.
        ancestors: [T, W] bool: whether new token i sees slot `length + T - W + w`. Every slot
            before these W is visible to all; columns whose slot would be negative are ignored.
            None: new token i sees the new tokens up to itself.
        scale: Of the products; 1 / sqrt(D) where None.
        first: [B] int32, the number of leading slots that nobody may see (padding); None for 0.

    Returns:
        [B, T, H, D].
    """
    rows, count, heads, width = query.shape
    groups, slots = keys.shape[1], keys.shape[2]
    exact = _wide(query)
    visible = visible_slots(length, count, slots, ancestors, first)
    grouped = query.to(exact).view(rows, count, groups, heads // groups, width)
    scores = torch.einsum("btgrd,bgsd->bgrts", grouped, keys.to(exact))
    scores = scores * (width**-0.5 if scale is None else scale)
    scores = scores.masked_fill(~visible[:, None, None], -torch.inf)
    weights = scores.softmax(-1)
    attended = torch.einsum("bgrts,bgsd->btgrd", weights, values.to(exact))
    return attended.reshape(query.shape).to(query.dtype)


def rotate_and_store(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    length: Tensor,
    offsets: Tensor | None = None,
    head_norm: HeadScale | None = None,
) -> Tensor:
    """Norm and rotate queries and keys, write keys and values, and return the queries.

    Args:
        qkv: [N, (H + 2 G) D], N = B T with a row's tokens one after the other.
        cos: [P, 1, D] cosines.
        sin: [P, 1, D] sines, the first half of D negated (`lean_weights.rotary_tables`).
        keys: [B, G, S, D] of one layer; slots `length` to `length + T` are written.
        values: [B, G, S, D], likewise.
        length: [B] int32, cached tokens of each row before the T new ones.
        offsets: [T] int, positions of the new tokens behind `length`; None for 0 .. T - 1. The
            slots are in order whatever the positions are.
        head_norm: Norm of queries and keys, or None.

    Returns:
        Queries [B, T, H, D].
    """
    rows, groups, _, width = keys.shape
    count = qkv.shape[0] // rows
    split = qkv.view(rows, count, -1, width)
    turned = split[:, :, :-groups].to(_wide(qkv))
    if head_norm is not None:
        turned = _norm_heads(turned, head_norm)
    order = torch.arange(count, device=qkv.device)
    positions = length[:, None].long() + (order if offsets is None else offsets)
    half = width // 2
    turned = turned * cos[positions] + turned.roll(half, -1) * sin[positions]
    turned = turned.to(qkv.dtype)
    row = torch.arange(rows, device=qkv.device)[:, None]
    slot = length[:, None].long() + order
    keys[row, :, slot] = turned[:, :, -groups:].to(keys.dtype)
    values[row, :, slot] = split[:, :, -groups:].to(values.dtype)
    return turned[:, :, :-groups].contiguous()


def _norm_heads(x: Tensor, norm: HeadScale) -> Tensor:
    if norm.bias is None:
        return x * (x.square().mean(-1, keepdim=True) + norm.epsilon).rsqrt() * norm.weight
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred * (centred.square().mean(-1, keepdim=True) + norm.epsilon).rsqrt()
    return scaled * norm.weight + norm.bias


def add_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Add to the residual stream and norm it by its root mean square.

    Args:
        x: [N, C].
        residual: [N, C], or None where nothing is added.
        weight: [C].
        epsilon: Added to the mean square.

    Returns:
        The sum and the normed sum, [N, C] each. The norm reads the sum as it was rounded.
    """
    total = x if residual is None else (x.to(_wide(x)) + residual).to(x.dtype)
    exact = total.to(_wide(x))
    scale = (exact.square().mean(-1, keepdim=True) + epsilon).rsqrt()
    return total, (exact * scale * weight).to(x.dtype)


def silu_mul(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up, [N, F], of [N, 2 F] with the gates first."""
    gate, up = gate_up.to(_wide(gate_up)).chunk(2, -1)
    return (F.silu(gate) * up).to(gate_up.dtype)


def few_token_matmul(
    x: Tensor, weight: Tensor, residual: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Multiply a few tokens by a weight and add what there is to add.

    Args:
        x: [N, in].
        weight: [out, in].
        residual: [N, out] or None.
        bias: [out] or None.

    Returns:
        [N, out].
    """
    exact = _wide(x)
    product = x.to(exact) @ weight.to(exact).t()
    for term in (bias, residual):
        product = product if term is None else product + term
    return product.to(x.dtype)


def matmul_add_norm(
    x: Tensor,
    weight: Tensor,
    residual: Tensor,
    norm_weight: Tensor,
    epsilon: float,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return `add_norm` of a projection and the residual stream: the end of a sublayer.

    Args:
        x: [N, in].
        weight: [C, in].
        residual: [N, C].
        norm_weight: [C], of the norm that comes next.
        epsilon: Added to the mean square.
        bias: [C] or None.

    Returns:
        The new residual stream and the normed one, [N, C] each.
    """
    return add_norm(few_token_matmul(x, weight, residual, bias), None, norm_weight, epsilon)


def matmul_silu_mul(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `silu_mul` of a projection without rounding between: [N, F].

    Args:
        x: [N, in].
        weight: [2 F, in], the gates first.
        bias: [2 F] or None.
    """
    exact = _wide(x)
    product = x.to(exact) @ weight.to(exact).t()
    product = product if bias is None else product + bias
    return silu_mul(product).to(x.dtype)


def _wide(x: Tensor) -> torch.dtype:
    """Return the dtype to compute in."""
    return torch.promote_types(x.dtype, torch.float32)
