"""Stop where the entropy of the draft's law predicts a rejection."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from specbench.decoding.lengths.base import LengthPolicy
from specbench.decoding.lengths.confidence import check_cap
from specbench.errors import ConfigError


class Svip(LengthPolicy):
    """Self-verification length policy (Zhang et al. 2024, "Draft Model Knows When to Stop").

    The acceptance of a token, 1 - TV(p, q), is at least 1 - sqrt(KL(q, p) / 2); the divergence is
    taken as a multiple of the draft's own entropy H(q). A draft ends where sqrt(c H(q)) > h, and
    the token of that law is still proposed. Values and order of the released
    `vanilla-sd/eval_specbench.py`: c = 0.15, h = 0.3, at most 40 tokens, entropy in nats, and
    that of the draft's softmax at every temperature.

    Args:
        threshold: h; the draft ends above it. Infinity never stops.
        coefficient: c, which turns entropy into an estimate of the divergence.
        max_length: Most tokens of a round.

    Raises:
        ConfigError: If a value is out of range.
    """

    raw = True

    def __init__(
        self, threshold: float = 0.3, coefficient: float = 0.15, max_length: int = 40
    ) -> None:
        if not (threshold >= 0 and coefficient >= 0):
            raise ConfigError(
                f"SVIP's threshold {threshold:g} with coefficient {coefficient:g} is not possible",
                "sqrt(coefficient * entropy) is compared with the threshold",
                "Choose 0 or more for both.",
            )
        check_cap(max_length)
        self.watches = math.isfinite(threshold) and coefficient > 0
        self._threshold = threshold
        self._coefficient = coefficient
        self._max_length = max_length

    def limit(self) -> int:
        """Return the most tokens of a round."""
        return self._max_length

    def measure(self, law: Tensor, token: Tensor | None) -> Tensor:
        """Return the entropy."""
        return torch.special.entr(law).sum()

    def ends(self, measured: float) -> bool:
        """Say whether the entropy is above its bound."""
        return math.sqrt(self._coefficient * max(measured, 0.0)) > self._threshold
