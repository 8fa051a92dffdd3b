"""What the routing and quality loops share: entropies and ranked candidates.

Shapes: B rows, V vocabulary, K candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from specbench.errors import ConfigError
from specbench.finite import argmax
from specbench.law import Law


def widened(logits: Tensor) -> Tensor:
    """Return logits in float32 or wider."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()


def entropy(probabilities: Tensor) -> Tensor:
    """Return the Shannon entropy of each distribution, [...], in nats.

    Args:
        probabilities: [..., V], each summing to one.
    """
    return torch.special.entr(probabilities).sum(-1)


def ranked(logits: Tensor, count: int) -> Tensor:
    """Return the `count` most probable tokens of each row, best first, lowest id on ties.

    The first one is the greedy token, whatever the order in which the device's top-k returns
    equal logits.

    Args:
        logits: [B, V].
        count: K; the whole vocabulary where it is larger.

    Returns:
        Token ids, [B, K].
    """
    first = argmax(logits).unsqueeze(-1)
    if count == 1:
        return first
    values, ids = logits.topk(min(count, logits.shape[-1]), dim=-1)
    ids, by_id = ids.sort(dim=-1)
    order = values.gather(-1, by_id).sort(dim=-1, descending=True, stable=True).indices
    # Where more tokens tie for the first place than are asked for, top-k may lack the lowest id.
    return torch.cat((first, ids.gather(-1, order)[:, 1:]), -1)


def refuse_sampling(law: Law, method: str) -> None:
    """Refuse a sampled law for a method that is deterministic.

    Args:
        law: The target's law.
        method: What the method is called, as the subject of a sentence.

    Raises:
        ConfigError: If the law's temperature is above zero.
    """
    if not law.greedy:
        raise ConfigError(
            f"{method} cannot run at temperature {law.temperature:g}",
            "it is deterministic and would ignore the temperature that its baseline follows",
            "Set sampling.temperature=0, or choose another method.",
        )
