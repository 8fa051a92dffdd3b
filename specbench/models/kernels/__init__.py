"""The kernels of a decoding step on a GPU: few, and each as fast as memory allows.

Every function here is `reference`'s of the same name. On a CUDA device of compute capability 8
or higher it runs Triton kernels; elsewhere, and in float64, plain torch. Triton is imported when
the first kernel is asked for and never on a CPU. A device whose kernels do not compile, or do
not compute what `reference` does, gets plain torch too (`obstacle` says why).

All functions allocate their results, read lengths on the device and wait for nothing, so that a
CUDA graph may capture them. Before a capture call `prepare`: it tries the kernels and measures
which way of multiplying is the fastest for each weight; what was not measured is the library's.

A layer of T <= 16 tokens takes nine kernels where every projection is ours: `matmul_add_norm`
(two) at the end of both sublayers, `few_token_matmul`, `rotate_and_store`, `decode_attention`
(two, one for a small cache), `matmul_silu_mul`; one more for each of the latter and the first
whose weight is split.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from specbench.models.kernels import reference
from specbench.models.kernels.reference import HeadScale

__all__ = [
    "HeadScale",
    "Projection",
    "add_norm",
    "available",
    "decode_attention",
    "few_token_matmul",
    "matmul_add_norm",
    "matmul_silu_mul",
    "obstacle",
    "prepare",
    "rotate_and_store",
    "silu_mul",
]

_CAPABILITY = (8, 0)
_DTYPES = frozenset({torch.bfloat16, torch.float16, torch.float32})
_MOST_TOKENS = 16


class Projection(NamedTuple):
    """A weight whose fastest product is to be found.

    Attributes:
        weight: [out, in], contiguous.
        gated: Whether it is a gate and an up projection behind each other.
    """

    weight: Tensor
    gated: bool = False


@cache
def obstacle(device: torch.device) -> str | None:
    """Say why no Triton kernel runs on a device; None where they run.

    The first call for a device compiles the kernels and compares them with `reference` on
    small inputs, so it must not lie within a capture.
    """
    if device.type != "cuda" or torch.version.hip is not None:
        return "the kernels are for NVIDIA GPUs"
    if torch.cuda.get_device_capability(device) < _CAPABILITY:
        return "the GPU's compute capability is below 8.0"
    if find_spec("triton") is None:
        return "Triton is not installed"
    from specbench.models.kernels.trial import failure

    try:
        reason = failure(device)
    except Exception as error:  # what a compiler or driver raises is not ours to know
        first, *_ = str(error).strip().splitlines() or [""]
        reason = f"{type(error).__name__}: {first}"
    if reason is not None:
        warnings.warn(f"plain torch replaces the Triton kernels: {reason}", stacklevel=2)
    return reason


def available(device: torch.device) -> bool:
    """Say whether Triton kernels run on a device; see `obstacle`."""
    return obstacle(device) is None


def prepare(projections: Iterable[Projection]) -> None:
    """Measure how each weight is multiplied fastest, once for each shape and device.

    It takes seconds for the first model on a device. Nothing happens where no kernel runs.

    Args:
        projections: Weights of a model; those of equal shape are measured once.
    """
    for weight, gated in projections:
        if _runs(weight):
            from specbench.models.kernels import choose

            choose.measured(weight, gated=gated)


def decode_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    length: Tensor,
    ancestors: Tensor | None = None,
    scale: float | None = None,
    first: Tensor | None = None,
) -> Tensor:
    """Attend from a few new tokens to a cache; see `reference.decode_attention`."""
    if not _runs(query):
        return reference.decode_attention(query, keys, values, length, ancestors, scale, first)
    from specbench.models.kernels import attention

    return attention.decode_attention(query, keys, values, length, ancestors, scale, first)


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
    """Norm, rotate, and write keys and values; see `reference.rotate_and_store`."""
    if not _runs(qkv):
        return reference.rotate_and_store(qkv, cos, sin, keys, values, length, offsets, head_norm)
    from specbench.models.kernels import pointwise

    return pointwise.rotate_and_store(qkv, cos, sin, keys, values, length, offsets, head_norm)


def add_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Add to the residual stream and norm it; see `reference.add_norm`."""
    if not _runs(x):
        return reference.add_norm(x, residual, weight, epsilon)
    from specbench.models.kernels import pointwise

    return pointwise.add_norm(x, residual, weight, epsilon)


def silu_mul(gate_up: Tensor) -> Tensor:
    """Multiply activated gates; see `reference.silu_mul`."""
    if not _runs(gate_up):
        return reference.silu_mul(gate_up)
    from specbench.models.kernels import pointwise

    return pointwise.silu_mul(gate_up)


def few_token_matmul(
    x: Tensor, weight: Tensor, residual: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Multiply tokens by a weight; see `reference.few_token_matmul`.

    Any number of tokens will do: above 16, and where it was measured to be faster, the
    library's product runs.
    """
    if _streams(x):
        from specbench.models.kernels import choose, matmul

        plan = choose.plan_of(weight, x.shape[0], gated=False)
        if plan is not None:
            return matmul.few_token_matmul(x, weight, residual, bias, plan=plan)
    return _library(x, weight, residual, bias)


def matmul_add_norm(
    x: Tensor,
    weight: Tensor,
    residual: Tensor,
    norm_weight: Tensor,
    epsilon: float,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """End a sublayer; see `reference.matmul_add_norm` and `few_token_matmul`."""
    if _streams(x):
        from specbench.models.kernels import choose, matmul

        plan = choose.plan_of(weight, x.shape[0], gated=False)
        if plan is not None:
            return matmul.matmul_add_norm(
                x, weight, residual, norm_weight, epsilon, bias, plan=plan
            )
    return add_norm(_library(x, weight, residual, bias), None, norm_weight, epsilon)


def matmul_silu_mul(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Project and activate; see `reference.matmul_silu_mul` and `few_token_matmul`."""
    if _streams(x):
        from specbench.models.kernels import choose, matmul

        plan = choose.plan_of(weight, x.shape[0], gated=True)
        if plan is not None:
            return matmul.matmul_silu_mul(x, weight, bias, plan=plan)
    return silu_mul(_library(x, weight, None, bias))


def _runs(x: Tensor) -> bool:
    """Say whether kernels run on a tensor's device and in its dtype."""
    return x.device.type == "cuda" and x.dtype in _DTYPES and available(x.device)


def _streams(x: Tensor) -> bool:
    return x.shape[0] <= _MOST_TOKENS and _runs(x)


def _library(x: Tensor, weight: Tensor, residual: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return the library's product of tokens and a weight [out, in]."""
    if residual is None:
        return F.linear(x, weight, bias)
    if bias is not None:
        residual = residual + bias
    return torch.addmm(residual, x, weight.t())
