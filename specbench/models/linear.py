"""Projections in the layout in which few tokens multiply fastest.

A decoding step multiplies one token, or the handful of a draft, by every weight of the model: it
is bound by reading weights. On a CPU the general matrix product reads a weight at about half the
speed for one token and a quarter for five. oneDNN's packed layout reads it at the same speed for
both, so that verifying five tokens costs little more than decoding one. The packed kernels are
those that `torch.compile` uses on a CPU; where a build of torch lacks them, the plain product
serves. A GPU multiplies a weight as it is stored.

Shapes: N tokens.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Linear(Protocol):
    """A projection of N tokens.

    Attributes:
        outputs: Numbers that it makes of a token.
        parameters: Its weights and biases.
    """

    outputs: int
    parameters: int

    def __call__(self, x: Tensor) -> Tensor:
        """Map [N, in] to [N, out]."""

    def add(self, residual: Tensor, x: Tensor) -> Tensor:
        """Return residual + projection, [N, out], in one kernel."""


class PlainLinear:
    """The library's matrix product, with the weight as it is stored: one row an output.

    Attributes:
        weight: [out, in].
        bias: [out] or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight.contiguous()
        self.bias = bias
        self.outputs, self.parameters = _sizes(weight, bias)

    def dense(self) -> Tensor:
        """Return the weight [out, in]."""
        return self.weight

    def __call__(self, x: Tensor) -> Tensor:
        """Map [N, in] to [N, out]."""
        return F.linear(x, self.weight, self.bias)

    def add(self, residual: Tensor, x: Tensor) -> Tensor:
        """Return residual + projection."""
        if self.bias is not None:
            residual = residual + self.bias
        return torch.addmm(residual, x, self.weight.t())


class PackedLinear:
    """oneDNN's product with a prepacked weight.

    Attributes:
        bias: [out] or None.

    Args:
        weight: [out, in], float32 or bfloat16, on the CPU.
        bias: [out] or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        self.bias = bias
        self.outputs, self.parameters = _sizes(weight, bias)

    def dense(self) -> Tensor:
        """Return the weight [out, in] as it was before it was packed."""
        return self._weight.to_dense()

    def __call__(self, x: Tensor) -> Tensor:
        """Map [N, in] to [N, out]."""
        return torch.ops.mkldnn._linear_pointwise(x, self._weight, self.bias, "none", [], "")

    def add(self, residual: Tensor, x: Tensor) -> Tensor:
        """Return residual + projection in one kernel."""
        return torch.ops.mkldnn._linear_pointwise.binary(
            x, residual, self._weight, self.bias, "add"
        )


def linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """Return the fastest projection for a weight's device and dtype."""
    if weight.device.type == "cpu" and weight.dtype in _packable():
        return PackedLinear(weight, bias)
    return PlainLinear(weight, bias)


def _sizes(weight: Tensor, bias: Tensor | None) -> tuple[int, int]:
    """Return the outputs and the number of parameters of a projection."""
    return weight.shape[0], weight.numel() + (0 if bias is None else bias.numel())


@cache
def _packable() -> frozenset[torch.dtype]:
    """Return the dtypes that this build of torch packs and this processor multiplies."""
    return frozenset(dtype for dtype in (torch.float32, torch.bfloat16) if _packs_correctly(dtype))


def _packs_correctly(dtype: torch.dtype) -> bool:
    """Try a small product both ways."""
    with torch.inference_mode():
        weight = (torch.arange(48).reshape(6, 8) % 7).to(dtype)
        x = (torch.arange(24).reshape(3, 8) % 5).to(dtype)
        residual = torch.ones(3, 6, dtype=dtype)
        try:
            packed = PackedLinear(weight, None)
            right = torch.equal(packed(x), x @ weight.t())
            added = torch.equal(packed.add(residual, x), x @ weight.t() + residual)
            return bool(right and added)
        except (AttributeError, RuntimeError, NotImplementedError):
            return False
