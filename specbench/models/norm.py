"""Norms in as few kernels as the device allows."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Normalise the last dimension by its root mean square (Zhang and Sennrich 2019).

    On a CPU the library composes this of eight kernels, half of them casts. A layer norm of
    (x, -x) is the same number in one: the mean of the doubled vector is zero and its variance
    is the mean square of x. It accumulates in float32 for every narrower dtype.

    Args:
        x: [..., C].
        weight: [C], or [..., C] where other dimensions have weights of their own.
        epsilon: Added to the mean square.
    """
    width = x.shape[-1]
    if x.device.type != "cpu":
        if weight.ndim == 1:
            return F.rms_norm(x, (width,), weight, epsilon)
        return F.rms_norm(x, (width,), None, epsilon) * weight
    doubled = torch.cat((x, x.neg()), -1)
    normed = F.layer_norm(doubled, (2 * width,), None, None, epsilon)
    return normed.narrow(-1, 0, width) * weight


class HeadNorm(Protocol):
    """A norm of queries and keys, head by head, before they are rotated."""

    def __call__(self, x: Tensor) -> Tensor:
        """Map the H query heads and the G key heads behind them, [..., H + G, D]."""


class RMSHeadNorm:
    """Root-mean-square norm of each head (Qwen3).

    Attributes:
        weight: [H + G, D].
        epsilon: Added to the mean square.
    """

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        self.weight = weight
        self.epsilon = epsilon

    def __call__(self, x: Tensor) -> Tensor:
        """Map [..., H + G, D]."""
        return rms_norm(x, self.weight, self.epsilon)


class LayerHeadNorm:
    """Layer norm of each head with a weight and bias of its own (Chameleon, section 2.3).

    Attributes:
        weight: [H + G, D].
        bias: [H + G, D].
        epsilon: Added to the variance; 1e-5 in every released Chameleon.
    """

    def __init__(self, weight: Tensor, bias: Tensor, epsilon: float = 1e-5) -> None:
        self.weight = weight
        self.bias = bias
        self.epsilon = epsilon

    def __call__(self, x: Tensor) -> Tensor:
        """Map [..., H + G, D]."""
        normed = F.layer_norm(x, (x.shape[-1],), None, None, self.epsilon)
        return torch.addcmul(self.bias, normed, self.weight)
