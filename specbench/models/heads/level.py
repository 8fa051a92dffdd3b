"""Heads that guess a token for each level of a tree, from the last true state of the target.

Shapes: T tokens, C channels, K levels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from specbench.cache import Cache, LengthCache
from specbench.models.base import Model
from specbench.models.heads.base import Head


class LevelHead(Head):
    """A head with a part for each level; nothing that is drafted enters its cache.

    Args:
        name: What it is called.
        target: Behind which it stands.
        levels: K.

    Attributes:
        levels: The deepest tree that it can draft.
    """

    def __init__(self, name: str, target: Model, levels: int) -> None:
        super().__init__(name, target, 0)
        self.levels = levels

    def along(self, states: Tensor, tokens: Tensor) -> list[Tensor]:
        """Return each level's logits along a known text.

        Args:
            states: [1, T, C] the target's.
            tokens: [1, T] the text.

        Returns:
            For level k [T - 2 - k, V], row t after the state at t and of the token at t + 2 + k;
            levels that the text is too short for are left out.
        """
        raise NotImplementedError

    def ranks(self, states: Tensor, tokens: Tensor, start: int) -> list[Tensor]:
        """Return the rank that each level gives to the text's own tokens, 0 the likeliest.

        Args:
            states: [1, T, C] the target's.
            tokens: [1, T] the text.
            start: The first state that is looked at.

        Returns:
            For level k [T - 2 - k - start].
        """
        found = []
        for level, logits in enumerate(self.along(states, tokens)):
            label = tokens[0, 2 + level + start :, None]
            rows = logits[start:]
            found.append((rows > rows.gather(1, label)).sum(1))
        return found

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """Return a cache that keeps nothing."""
        return LengthCache(batch, capacity)


def randomised(module: nn.Module, seed: int) -> None:
    """Fill a module with random weights in float64 that do more than keep their inputs' size."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        scale = 3 * parameter.shape[-1] ** -0.5
        drawn: Tensor = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
        parameter.data = drawn * scale
