"""Norms in as few kernels as the device allows."""

from __future__ import annotations

from typing import NamedTuple

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


class HeadNorm(NamedTuple):
    """A norm of queries and keys, head by head, before they are rotated.

    Attributes:
        weight: [H + G, D], of the H query heads and the G key heads behind them.
        epsilon: Added to the mean square or the variance.
        bias: [H + G, D] of a layer norm (Chameleon, section 2.3); None for a root-mean-square
            norm (Qwen3).
    """

    weight: Tensor
    epsilon: float
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Map [..., H + G, D]."""
        if self.bias is None:
            return rms_norm(x, self.weight, self.epsilon)
        normed = F.layer_norm(x, (x.shape[-1],), None, None, self.epsilon)
        return torch.addcmul(self.bias, normed, self.weight)
