"""Root-mean-square norm in as few kernels as the device allows."""

from __future__ import annotations

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
        weight: [C].
        epsilon: Added to the mean square.
    """
    width = x.shape[-1]
    if x.device.type != "cpu":
        return F.rms_norm(x, (width,), weight, epsilon)
    doubled = torch.cat((x, x.neg()), -1)
    normed = F.layer_norm(doubled, (2 * width,), None, None, epsilon)
    return normed.narrow(-1, 0, width) * weight
