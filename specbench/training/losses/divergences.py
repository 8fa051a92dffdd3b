"""How far a draft's law is from the target's: what DistillSpec descends.

The acceptance rate of speculative sampling is 1 - TVD, so the total variation distance is the
direct objective; the others bound it (TVD <= sqrt(KL / 2), Pinsker's inequality).

Source: Zhou et al. 2024, "DistillSpec: Improving speculative decoding via knowledge distillation".

Shapes: N places, V vocabulary. p is the target's law, q the draft's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from specbench.errors import ConfigError, did_you_mean
from specbench.training.learner import Sum


def forward_kl(target: Tensor, draft: Tensor) -> Tensor:
    """Return KL(p || q) at every place, [N], of logits [N, V]."""
    p = target.log_softmax(-1)
    return F.kl_div(draft.log_softmax(-1), p, reduction="none", log_target=True).sum(-1)


def reverse_kl(target: Tensor, draft: Tensor) -> Tensor:
    """Return KL(q || p) at every place, [N], of logits [N, V]."""
    return forward_kl(draft, target)


def jsd(target: Tensor, draft: Tensor, weight: float) -> Tensor:
    """Return b KL(p || m) + (1 - b) KL(q || m) with m = b p + (1 - b) q at every place, [N].

    Args:
        target: Logits, [N, V].
        draft: Logits, [N, V].
        weight: b, above 0 and below 1.
    """
    p, q = target.log_softmax(-1), draft.log_softmax(-1)
    mean = torch.logaddexp(p + math.log(weight), q + math.log1p(-weight))
    first = F.kl_div(mean, p, reduction="none", log_target=True).sum(-1)
    second = F.kl_div(mean, q, reduction="none", log_target=True).sum(-1)
    return weight * first + (1 - weight) * second


def tvd(target: Tensor, draft: Tensor) -> Tensor:
    """Return half the sum of |p - q| at every place, [N], of logits [N, V]."""
    return (target.softmax(-1) - draft.softmax(-1)).abs().sum(-1) / 2


class Distillation:
    """A divergence over every place.

    Args:
        divergence: Which one.
        jsd_weight: b of `jsd`.

    Raises:
        ConfigError: If there is no such divergence, or the weight is not between 0 and 1.
    """

    def __init__(self, divergence: str, jsd_weight: float) -> None:
        if not 0 < jsd_weight < 1:
            raise ConfigError(
                f"'recipe.learner.loss.jsd_weight' cannot be {jsd_weight}",
                "it must be a number above 0 and below 1",
            )
        known: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "forward_kl": forward_kl,
            "reverse_kl": reverse_kl,
            "jsd": lambda target, draft: jsd(target, draft, jsd_weight),
            "tvd": tvd,
        }
        if divergence not in known:
            raise ConfigError(
                f"'recipe.learner.loss.divergence' cannot be '{divergence}'",
                f"it must be one of {', '.join(known)}",
                did_you_mean(divergence, known),
            )
        self._of = known[divergence]

    def __call__(self, target: Tensor, draft: Tensor) -> Sum:
        """Return the sum over places, of logits [N, V]."""
        return Sum(self._of(target, draft).sum(), len(target))
