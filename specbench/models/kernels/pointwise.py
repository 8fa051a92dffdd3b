# mypy: disable-error-code="no-untyped-def, import-untyped, import-not-found"
"""Norms, rotations and activations between the matrix products, each in one Triton kernel.

A token's numbers are a few kilobytes, so that these kernels cost their launch and little else:
what counts is how few of them there are.

Shapes: B rows, T new tokens, N = B T, H query heads, G key-value heads, D head width, S cache
slots, C channels, F feed-forward width, P rotary positions.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from specbench.models.kernels.launch import OPTIONS
from specbench.models.norm import HeadNorm

_SILU_BLOCK = 1024


@triton.jit(do_not_specialize=["count", "capacity", "positions"])
def rotate_kernel(
    qkv,
    cos,
    sin,
    keys,
    values,
    query,
    length,
    offsets,
    weight,
    bias,
    epsilon,
    count,
    capacity,
    positions,
    key_row,
    key_group,
    key_slot,
    value_row,
    value_group,
    value_slot,
    HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
    OFFSETS: tl.constexpr,
    NORM: tl.constexpr,
    BIAS: tl.constexpr,
):
    """Handle one head of one token; grid (N, H + 2 G)."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    row, index = token // count, token % count
    cached = tl.load(length + row)
    slot = cached + index
    channel = tl.arange(0, WIDTH_BLOCK)
    inside = channel < WIDTH
    writable = channel < tl.where(slot < capacity, WIDTH, 0)
    source = qkv + (token * (HEADS + 2 * GROUPS) + head) * WIDTH
    x = tl.load(source + channel, mask=inside, other=0.0)
    if head >= HEADS + GROUPS:
        group = head - HEADS - GROUPS
        to = values + row * value_row + group * value_group + slot * value_slot + channel
        tl.store(to, x, mask=writable)
        return
    # The other half of the head, as rotating halves needs it; its bytes are cached by now.
    partner = (channel + WIDTH // 2) % WIDTH
    x = x.to(tl.float32)
    y = tl.load(source + partner, mask=inside, other=0.0).to(tl.float32)
    if NORM:
        if BIAS:
            mean = tl.sum(x, 0) / WIDTH
            x = tl.where(inside, x - mean, 0.0)
            y = y - mean
        spread = tl.rsqrt(tl.sum(x * x, 0) / WIDTH + epsilon)
        x = x * spread * tl.load(weight + head * WIDTH + channel, mask=inside, other=0.0)
        y = y * spread * tl.load(weight + head * WIDTH + partner, mask=inside, other=0.0)
        if BIAS:
            x += tl.load(bias + head * WIDTH + channel, mask=inside, other=0.0)
            y += tl.load(bias + head * WIDTH + partner, mask=inside, other=0.0)
    position = slot
    if OFFSETS:
        position = cached + tl.load(offsets + index)
    known = channel < tl.where(position < positions, WIDTH, 0)
    x = x * tl.load(cos + position * WIDTH + channel, mask=known, other=0.0).to(tl.float32)
    x += y * tl.load(sin + position * WIDTH + channel, mask=known, other=0.0).to(tl.float32)
    x = x.to(query.dtype.element_ty)
    if head < HEADS:
        tl.store(query + (token * HEADS + head) * WIDTH + channel, x, mask=inside)
    else:
        to = keys + row * key_row + (head - HEADS) * key_group + slot * key_slot + channel
        tl.store(to, x, mask=writable)


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
    """Norm and rotate queries and keys, write keys and values, and return the queries.

    A token behind the capacity writes nothing, so that a wrong length harms no other memory.

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
    rows, groups, capacity, width = keys.shape
    tokens = qkv.shape[0]
    count, heads = tokens // rows, qkv.shape[1] // width - 2 * groups
    assert width % 2 == 0 and keys.stride(3) == values.stride(3) == 1
    assert length.dtype == torch.int32
    assert qkv.is_contiguous() and cos.is_contiguous() and sin.is_contiguous()
    query = qkv.new_empty(rows, count, heads, width)
    norm = head_norm or HeadNorm(cos, 0.0)
    rotate_kernel[(tokens, heads + 2 * groups)](
        qkv,
        cos,
        sin,
        keys,
        values,
        query,
        length,
        length if offsets is None else offsets,
        norm.weight,
        norm.weight if norm.bias is None else norm.bias,
        norm.epsilon,
        count,
        capacity,
        cos.shape[0],
        *keys.stride()[:3],
        *values.stride()[:3],
        HEADS=heads,
        GROUPS=groups,
        WIDTH=width,
        WIDTH_BLOCK=triton.next_power_of_2(width),
        OFFSETS=offsets is not None,
        NORM=head_norm is not None,
        BIAS=norm.bias is not None,
        num_warps=1,
        **OPTIONS,
    )
    return query


@triton.jit
def norm_kernel(x, weight, normed, epsilon, WIDTH: tl.constexpr, WIDTH_BLOCK: tl.constexpr):
    """Norm one token; grid (N)."""
    channel = tl.arange(0, WIDTH_BLOCK)
    inside = channel < WIDTH
    at = tl.program_id(0).to(tl.int64) * WIDTH + channel
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    spread = tl.rsqrt(tl.sum(value * value, 0) / WIDTH + epsilon)
    scaled = value * spread * tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + at, scaled.to(normed.dtype.element_ty), mask=inside)


def norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Norm x [N, C] by its root mean square, with a weight [C], in one kernel."""
    x = x.contiguous()
    tokens, width = x.shape
    normed = torch.empty_like(x)
    block = triton.next_power_of_2(width)
    warps = max(1, min(16, block // 512))  # 16 numbers a thread, two accesses in bfloat16
    norm_kernel[(tokens,)](
        x, weight, normed, epsilon, WIDTH=width, WIDTH_BLOCK=block, num_warps=warps, **OPTIONS
    )
    return normed


@triton.jit
def silu_kernel(gate_up, output, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Multiply activated gates; grid (blocks of F, N)."""
    token = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < WIDTH
    source = gate_up + token * 2 * WIDTH + channel
    gate = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(source + WIDTH, mask=inside, other=0.0).to(tl.float32)
    value = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(output + token * WIDTH + channel, value.to(output.dtype.element_ty), mask=inside)


def silu_mul(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up, [N, F], of [N, 2 F] with the gates first, in one kernel."""
    gate_up = gate_up.contiguous()
    tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    output = gate_up.new_empty(tokens, width)
    silu_kernel[(triton.cdiv(width, _SILU_BLOCK), tokens)](
        gate_up,
        output,
        WIDTH=width,
        BLOCK=_SILU_BLOCK,
        num_warps=4,
        **OPTIONS,
    )
    return output
