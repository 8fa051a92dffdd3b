"""EAGLE's losses: the next feature, and the law that the target's LM head makes of it.

Sources: Li et al. 2024, "EAGLE: Speculative sampling requires rethinking feature uncertainty";
Li et al. 2025, "EAGLE-3: Scaling up inference acceleration of large language models via
training-time test"; read in SafeAILab/EAGLE, eagle/train/main.py and eagle/traineagle3/cnets.py.

Shapes: N places, C channels, V vocabulary, D ids of a draft vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NOISE_LENGTH = 512
"""Tokens of a text to which EAGLE's feature noise has its nominal width."""


def noisy(features: Tensor, width: float, source: torch.Generator) -> Tensor:
    """Return features [B, T, C] with uniform noise, narrower in longer texts, as released."""
    noise = torch.rand(features.shape, generator=source).to(features) - 0.5
    return features + noise * width * NOISE_LENGTH / features.shape[1]


def feature_loss(made: Tensor, true: Tensor) -> Tensor:
    """Return the smooth L1 distance at every place, [N], mean over channels, of [N, C]."""
    return F.smooth_l1_loss(made, true, reduction="none").mean(-1)


def soft_cross_entropy(target: Tensor, draft: Tensor) -> Tensor:
    """Return the cross-entropy of the draft's law under the target's, [N], of logits [N, V]."""
    return -(target.softmax(-1) * draft.log_softmax(-1)).sum(-1)


def reduced(target: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Restrict a law to a draft vocabulary, as EAGLE-3 learns it.

    Args:
        target: Logits, [N, V].
        ids: The draft vocabulary, [D], increasing.

    Returns:
        Logits [N, D], whose softmax is the law renormalised; and [N] bool, where the target's
        likeliest token has a place in the draft vocabulary: only these are learned.
    """
    likeliest = target.argmax(-1)
    found = torch.searchsorted(ids, likeliest).clamp(max=len(ids) - 1)
    return target[:, ids], ids[found] == likeliest


def frequent_ids(tokens: Tensor, size: int, vocabulary: int) -> Tensor:
    """Return the ids of a draft vocabulary: the most frequent ones of some texts, increasing.

    Of equally frequent ids the lowest are taken.
    """
    counts = torch.bincount(tokens, minlength=vocabulary)[:vocabulary]
    order = counts.argsort(descending=True, stable=True)
    return order[:size].sort().values
