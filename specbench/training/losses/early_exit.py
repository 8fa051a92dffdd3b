"""LayerSkip's recipe: layers are dropped, and early exits are learned beside the last one.

Source: Elhoushi et al. 2024, "LayerSkip: Enabling early exit inference and self-speculative
decoding", section 4; the reproduction by its authors in pytorch/torchtune
(torchtune/modules/early_exit_loss.py, layer_dropout.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

CURRICULA = ("gradual", "rotating")


def dropout_rates(layers: int, most: float) -> list[float]:
    """Return the probability with which each layer is left out: 0 for the first, `most` at last."""
    last = max(layers - 1, 1)
    return [most * (math.exp(layer * math.log(2) / last) - 1) for layer in range(layers)]


def enabled_exits(curriculum: str, layers: int, step: int, steps: int, rotation: int) -> list[bool]:
    """Return the exits that a step learns; the last one is always among them.

    Args:
        curriculum: "gradual" opens them from the last one down, all by half of the steps;
            "rotating" opens every `rotation`-th, others at each step.
        layers: L.
        step: From 0.
        steps: Of the whole training.
        rotation: Layers between two exits of one step.
    """
    if curriculum == "gradual":
        found = [step / steps >= 0.5 * (layers - layer) / layers for layer in range(layers)]
    else:
        found = [(layer - step) % rotation == 0 for layer in range(layers)]
    found[-1] = True
    return found


def exit_weights(enabled: Sequence[bool], weighting: str, scale: float) -> list[float]:
    """Return the weight of each exit's loss; together they are 1.

    Args:
        enabled: Which exits are learned.
        weighting: "linear" weighs layer l (from 0) by l + 1, "uniform" all alike.
        scale: Of every exit but the last.
    """
    last = len(enabled) - 1
    weights = [
        ((layer + 1 if weighting == "linear" else 1.0) * (1.0 if layer == last else scale))
        if on
        else 0.0
        for layer, on in enumerate(enabled)
    ]
    total = sum(weights)
    return [weight / total for weight in weights]
