"""A trial of every kernel on a device before the first is used.

A kernel that compiles somewhere and computes something else there would be a wrong measurement
nobody notices. The trial compares each kernel with its definition on small random inputs, in
bfloat16 and in float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from specbench.models.kernels import attention, matmul, pointwise, reference
from specbench.models.kernels.matmul import MatmulPlan
from specbench.models.kernels.reference import HeadScale

_TOLERANCES = {torch.bfloat16: 1e-2, torch.float32: 1e-5}
_PLANS = (MatmulPlan(32, 64, 1, 4, 3), MatmulPlan(32, 64, 2, 4, 3))


def failure(device: torch.device) -> str | None:
    """Return which kernel computes something else than its definition; None where all agree.

    The measure is ||kernel - definition|| / ||definition||.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        for dtype, tolerance in _TOLERANCES.items():
            for name, got, expected in _trials(device, dtype):
                error = (got.float() - expected.float()).norm() / expected.float().norm()
                if not float(error) <= tolerance:  # not-a-number fails too
                    kind = str(dtype).removeprefix("torch.")
                    return f"{name} in {kind} is off by {float(error):.2g} of its norm"
    return None


def _trials(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield a name, what a kernel computes, and what it should."""

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, device=device).to(dtype)

    rows, count, heads, groups, width = 2, 5, 6, 2, 64
    length = torch.tensor([3, 140], dtype=torch.int32, device=device)
    first = torch.tensor([0, 9], dtype=torch.int32, device=device)
    tree = torch.eye(count, device=device).bool()
    tree[:, 0] = True
    query = numbers(rows, count, heads, width)
    for slots in (160, 300):
        keys, values = numbers(rows, groups, slots, width), numbers(rows, groups, slots, width)
        for ancestors in (None, tree):
            asked = (query, keys, values, length, ancestors, None, first)
            expected = reference.decode_attention(*asked)
            yield "decode_attention", attention.decode_attention(*asked), expected

    qkv = numbers(rows * count, (heads + 2 * groups) * width)
    angles = torch.arange(400, device=device)[:, None, None] * torch.linspace(
        1, 0.01, width // 2, device=device
    )
    cos = torch.cat([angles.cos(), angles.cos()], -1).to(dtype)
    sin = torch.cat([-angles.sin(), angles.sin()], -1).to(dtype)
    scale, shift = numbers(heads + groups, width), numbers(heads + groups, width)
    for norm in (None, HeadScale(scale, 1e-5), HeadScale(scale, 1e-5, shift)):
        ours = (torch.zeros_like(keys), torch.zeros_like(values))
        plain = (torch.zeros_like(keys), torch.zeros_like(values))
        got = pointwise.rotate_and_store(qkv, cos, sin, *ours, length, None, norm)
        expected = reference.rotate_and_store(qkv, cos, sin, *plain, length, None, norm)
        for one, other in zip((got, *ours), (expected, *plain), strict=True):
            yield "rotate_and_store", one, other

    x, residual, weight = numbers(count, 256), numbers(count, 192), numbers(192, 256)
    norm_weight = numbers(192)
    normed = reference.add_norm(residual, residual, norm_weight, 1e-5)
    for one, other in zip(
        pointwise.add_norm(residual, residual, norm_weight, 1e-5), normed, strict=True
    ):
        yield "add_norm", one, other
    yield "silu_mul", pointwise.silu_mul(x), reference.silu_mul(x)
    for plan in _PLANS:
        got = matmul.few_token_matmul(x, weight, residual, norm_weight, plan=plan)
        expected = reference.few_token_matmul(x, weight, residual, norm_weight)
        yield "few_token_matmul", got, expected
        got = matmul.matmul_silu_mul(x, weight, plan=plan)
        yield "matmul_silu_mul", got, reference.matmul_silu_mul(x, weight)
        ended = matmul.matmul_add_norm(x, weight, residual, norm_weight, 1e-5, plan=plan)
        right = reference.matmul_add_norm(x, weight, residual, norm_weight, 1e-5)
        for one, other in zip(ended, right, strict=True):
            yield "matmul_add_norm", one, other
