"""Medusa's and Hydra's loss: each head guesses a token further on, later heads weigh less.

Head k (from 0) reads the state at t and guesses the token at t + 2 + k. The paper of Medusa weighs
head k by 0.8^k, its released trainer all alike; Hydra++ learns the target's law instead of the
token. Sources: Cai et al. 2024, "Medusa: Simple LLM inference acceleration framework with multiple
decoding heads", section 2.2; Ankner et al. 2024, "Hydra: Sequentially-dependent draft heads for
Medusa decoding".

Shapes: B rows, T tokens, K heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from specbench.training.learner import Sum


def guessed(learned: Tensor, level: int) -> Tensor:
    """Return the places at which a head guesses a learned token behind a learned one.

    Args:
        learned: [B, T] bool, the tokens of answers.
        level: k.

    Returns:
        [B, T] bool; at a place t the token at t + 2 + k is guessed, and that at t + 1 is learned
        too, so that the state at t is one that is drafted from.
    """
    places = torch.zeros_like(learned)
    reach = 2 + level
    if reach < learned.shape[1]:
        places[:, :-reach] = learned[:, 1 : 1 - reach] & learned[:, reach:]
    return places


def level_loss(
    logits: Sequence[Tensor],
    labels: Sequence[Tensor],
    decay: float,
) -> Sum:
    """Return the weighted sum of the heads' cross-entropies, over the places of the first.

    Args:
        logits: Each head's at its places, [N_k, V].
        labels: The tokens there, [N_k], or the target's laws, [N_k, V].
        decay: Weight of a head by that of the head before it.
    """
    losses = [
        decay**level * F.cross_entropy(own.float(), label, reduction="sum")
        for level, (own, label) in enumerate(zip(logits, labels, strict=True))
    ]
    return Sum(torch.stack(losses).sum(), len(logits[0]))
