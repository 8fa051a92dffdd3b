# mypy: disable-error-code="no-untyped-def, import-untyped, import-not-found"
"""Products of up to 16 tokens and a weight, at the speed at which the weight can be read.

A decoding step reads every weight once; what it computes with them is little. Whether one
token is multiplied or the sixteen that a draft asks about, the same kernel streams the weight
once through the tensor cores, with the tokens padded to the 16 rows that these multiply anyway.
A weight with too few outputs to occupy the device is split along its inputs; the partial sums
are added in their order by whatever kernel comes next, without atomics. So a token's result has
the same bits on every call, alone or among others.

Shapes: N tokens, F feed-forward width, C channels, K splits.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from specbench.models.kernels.launch import OPTIONS, multiprocessors, precision

MOST_TOKENS = 16
"""Rows of a tensor core's operand: more tokens are the library's."""

_JOIN_BLOCK = 512
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_SPLITS = (1, 2, 4, 8)


class MatmulPlan(NamedTuple):
    """How a weight is streamed.

    Attributes:
        outputs: Rows of the weight that a program holds at a time.
        inputs: Columns of the weight that a program holds at a time.
        split: Programs that share the inputs of one output.
        warps: Of a program.
        stages: Steps of the pipeline; one tile fewer lies in shared memory.
    """

    outputs: int
    inputs: int
    split: int
    warps: int
    stages: int


TILE = MatmulPlan(32, 128, 1, 4, 4)
"""Of a program for numbers of two bytes: at most 60 KiB lie in or on the way to shared memory, so
that every GPU holds it and two or three programs a multiprocessor hide the latency of its memory.
Of wider numbers a program holds fewer columns; splits follow from the weight and the device."""


@triton.jit(do_not_specialize=["tokens", "steps"])
def stream_kernel(
    x,
    weight,
    bias,
    residual,
    output,
    tokens,
    outputs,
    inputs,
    steps,
    OUT: tl.constexpr,
    IN: tl.constexpr,
    ROWS: tl.constexpr,
    GATED: tl.constexpr,
    PARTIAL: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Multiply all tokens by OUT rows of the weight; grid (tiles of outputs, K).

    With GATED the weight has 2 F rows, `outputs` is F, and both halves are read. With PARTIAL
    the output is [K, N, outputs] in float32. EVEN: every step is full.
    """
    split = tl.program_id(1)
    token = tl.arange(0, ROWS)
    real = token < tokens
    out = tl.program_id(0) * OUT + tl.arange(0, OUT)
    wanted = out < outputs
    inner = split * steps * IN + tl.arange(0, IN)
    source = x + token[:, None] * inputs + inner[None, :]
    stream = weight + out[:, None].to(tl.int64) * inputs + inner[None, :]
    total = tl.zeros([ROWS, OUT], tl.float32)
    total_up = tl.zeros([ROWS, OUT], tl.float32)
    up = stream + outputs.to(tl.int64) * inputs
    for step in range(0, steps):
        take, read = real[:, None], wanted[:, None]
        if not EVEN:
            left = (inner + step * IN < inputs)[None, :]
            take, read = take & left, read & left
        few = tl.load(source + step * IN, mask=take, other=0.0)
        tile = tl.load(stream + step * IN, mask=read, other=0.0)
        total = tl.dot(few, tl.trans(tile), total, input_precision=PRECISION)
        if GATED:
            tile = tl.load(up + step * IN, mask=read, other=0.0)
            total_up = tl.dot(few, tl.trans(tile), total_up, input_precision=PRECISION)

    at = token[:, None].to(tl.int64) * outputs + out[None, :]
    keep = real[:, None] & wanted[None, :]
    if PARTIAL:
        tl.store(output + split.to(tl.int64) * tokens * outputs + at, total, mask=keep)
    else:
        if BIAS:
            total += tl.load(bias + out, mask=wanted, other=0.0).to(tl.float32)[None, :]
        if GATED:
            if BIAS:
                other = tl.load(bias + outputs + out, mask=wanted, other=0.0)
                total_up += other.to(tl.float32)[None, :]
            total = total / (1.0 + tl.exp(-total)) * total_up
        if RESIDUAL:
            total += tl.load(residual + at, mask=keep, other=0.0).to(tl.float32)
        tl.store(output + at, total.to(output.dtype.element_ty), mask=keep)


@triton.jit(do_not_specialize=["tokens", "split"])
def join_kernel(
    partial,
    bias,
    residual,
    output,
    tokens,
    outputs,
    split,
    BLOCK: tl.constexpr,
    GATED: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
):
    """Add the partial products of one token in their order; grid (blocks of outputs, N).

    With GATED the partial products are [K, N, 2 F] and `outputs` is F.
    """
    HALVES: tl.constexpr = 2 if GATED else 1
    token = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < outputs
    source = partial + token * outputs * HALVES + channel
    total = tl.zeros([BLOCK], tl.float32)
    total_up = tl.zeros([BLOCK], tl.float32)
    for part in range(0, split):
        of = source + part * tokens * outputs * HALVES
        total += tl.load(of, mask=inside, other=0.0)
        if GATED:
            total_up += tl.load(of + outputs, mask=inside, other=0.0)
    if BIAS:
        total += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    if GATED:
        if BIAS:
            total_up += tl.load(bias + outputs + channel, mask=inside, other=0.0).to(tl.float32)
        total = total / (1.0 + tl.exp(-total)) * total_up
    at = token * outputs + channel
    if RESIDUAL:
        total += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(output + at, total.to(output.dtype.element_ty), mask=inside)


@cache
def plan_of(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, *, gated: bool = False
) -> MatmulPlan | None:
    """Return how a weight is streamed, by a rule that was not tried on a GPU.

    It is one for every number of tokens, split until every multiprocessor has a program.

    Args:
        shape: [out, in] of the weight.
        dtype: Its type.
        device: Where it lies.
        gated: Whether it is a gate and an up projection behind each other.

    Returns:
        The plan; None where the tile is wider than the weight or the type is no kernel's.
    """
    tile = TILE._replace(inputs=TILE.inputs * 2 // dtype.itemsize)
    outputs, inputs = shape[0] // (2 if gated else 1), shape[1]
    splits = [split for split in _SPLITS if split * tile.inputs <= inputs]
    if dtype not in _DTYPES or not splits:
        return None
    programs = -(-outputs // tile.outputs)
    enough = [split for split in splits if programs * split >= multiprocessors(device)]
    return tile._replace(split=(enough or splits[-1:])[0])


def few_token_matmul(
    x: Tensor,
    weight: Tensor,
    residual: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    plan: MatmulPlan,
) -> Tensor:
    """Multiply up to 16 tokens and add what there is to add: one kernel, two if split.

    Args:
        x: [N, in].
        weight: [out, in].
        residual: [N, out] or None.
        bias: [out] or None.
        plan: How the weight is streamed.

    Returns:
        [N, out].
    """
    outputs = weight.shape[0]
    output = x.new_empty(x.shape[0], outputs)
    if plan.split == 1:
        _stream(x, weight, bias, residual, output, outputs, plan)
    else:
        _join(_partial(x, weight, plan), bias, residual, output)
    return output


def matmul_silu_mul(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, plan: MatmulPlan
) -> Tensor:
    """Return `pointwise.silu_mul` of a product, [N, F]: one kernel, two if split.

    Args:
        x: [N, in], up to 16 tokens.
        weight: [2 F, in], the gates first.
        bias: [2 F] or None.
        plan: How the weight is streamed.
    """
    outputs = weight.shape[0] // 2
    output = x.new_empty(x.shape[0], outputs)
    if plan.split == 1:
        _stream(x, weight, bias, None, output, outputs, plan, gated=True)
    else:
        _join(_partial(x, weight, plan), bias, None, output, gated=True)
    return output


def _partial(x: Tensor, weight: Tensor, plan: MatmulPlan) -> Tensor:
    """Return the partial products [K, N, out] in float32."""
    outputs = weight.shape[0]
    partial = x.new_empty(plan.split, x.shape[0], outputs, dtype=torch.float32)
    _stream(x, weight, None, None, partial, outputs, plan, partial=True)
    return partial


def _stream(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    output: Tensor,
    outputs: int,
    plan: MatmulPlan,
    *,
    gated: bool = False,
    partial: bool = False,
) -> None:
    tokens, inputs = x.shape
    assert tokens <= MOST_TOKENS and weight.is_contiguous() and weight.shape[1] == inputs
    assert x.is_contiguous() and (residual is None or residual.is_contiguous())
    steps = triton.cdiv(inputs, plan.inputs * plan.split)
    stream_kernel[(triton.cdiv(outputs, plan.outputs), plan.split)](
        x,
        weight,
        x if bias is None else bias,
        x if residual is None else residual,
        output,
        tokens,
        outputs,
        inputs,
        steps,
        OUT=plan.outputs,
        IN=plan.inputs,
        ROWS=MOST_TOKENS,
        GATED=gated,
        PARTIAL=partial,
        BIAS=bias is not None,
        RESIDUAL=residual is not None,
        EVEN=inputs % (plan.inputs * plan.split) == 0,
        PRECISION=precision(x.dtype),
        num_warps=plan.warps,
        num_stages=plan.stages,
        **OPTIONS,
    )


def _join(
    partial: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    output: Tensor,
    *,
    gated: bool = False,
) -> None:
    split, tokens, _ = partial.shape
    outputs = output.shape[1]
    assert residual is None or residual.is_contiguous()
    join_kernel[(triton.cdiv(outputs, _JOIN_BLOCK), tokens)](
        partial,
        partial if bias is None else bias,
        partial if residual is None else residual,
        output,
        tokens,
        outputs,
        split,
        BLOCK=_JOIN_BLOCK,
        GATED=gated,
        BIAS=bias is not None,
        RESIDUAL=residual is not None,
        num_warps=4,
        **OPTIONS,
    )
