"""What every kernel computes, in plain torch.

The Triton kernels are tested against these functions, which document nothing twice: arguments are
those of the kernel of the same name. They read lengths from device tensors and never ask the device
for a value, so a CUDA graph may capture them too. Everything is computed in float32 (float64 for
float64 inputs) and rounded once, at the end.

Shapes: B rows, T new tokens, N = B T, H query heads, G key-value heads, D head width, S cache
slots, W slots that a tree mask speaks of, C channels, F feed-forward width, P rotary positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from specbench.models.masks import visible_slots
from specbench.models.norm import HeadNorm


def decode_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    length: Tensor,
    ancestors: Tensor | None = None,
    scale: float | None = None,
    first: Tensor | None = None,
) -> Tensor:
    """Attend from T new tokens to a row's cached slots and to each other."""
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
    head_norm: HeadNorm | None = None,
) -> Tensor:
    """Norm and rotate queries and keys, write keys and values, and return the queries."""
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


def _norm_heads(x: Tensor, norm: HeadNorm) -> Tensor:
    if norm.bias is None:
        return x * (x.square().mean(-1, keepdim=True) + norm.epsilon).rsqrt() * norm.weight
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred * (centred.square().mean(-1, keepdim=True) + norm.epsilon).rsqrt()
    return scaled * norm.weight + norm.bias


def norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Norm by the root mean square."""
    exact = x.to(_wide(x))
    scale = (exact.square().mean(-1, keepdim=True) + epsilon).rsqrt()
    return (exact * scale * weight).to(x.dtype)


def silu_mul(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up, [N, F], of [N, 2 F] with the gates first."""
    gate, up = gate_up.to(_wide(gate_up)).chunk(2, -1)
    return (F.silu(gate) * up).to(gate_up.dtype)


def few_token_matmul(
    x: Tensor, weight: Tensor, residual: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Multiply a few tokens by a weight and add what there is to add."""
    exact = _wide(x)
    product = x.to(exact) @ weight.to(exact).t()
    for term in (bias, residual):
        product = product if term is None else product + term
    return product.to(x.dtype)


def matmul_silu_mul(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `silu_mul` of a projection without rounding between: [N, F]."""
    exact = _wide(x)
    product = x.to(exact) @ weight.to(exact).t()
    product = product if bias is None else product + bias
    return silu_mul(product).to(x.dtype)


def _wide(x: Tensor) -> torch.dtype:
    """Return the dtype to compute in."""
    return torch.promote_types(x.dtype, torch.float32)
