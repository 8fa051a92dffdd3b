"""The fixed tree for heads with a part for each level: named, or fitted to how often each is right.

FasterDecoding/Medusa: medusa/model/medusa_choices.py names trees, eval/heads_accuracy.py counts
how often each head's token of each rank is the target's, eval/gen_results.py picks the tree from
that (`static_tree.optimal_paths`). One detail differs: a level is counted where the levels above
it had the target's tokens among their candidates, and not at every position, because the tree's
value is the product of the levels' shares along one path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specbench.decoding.calibrated import Calibrating
from specbench.decoding.topologies.optimal_tree import OptimalTree
from specbench.decoding.topologies.static_tree import TreeShape
from specbench.errors import ConfigError
from specbench.models.base import Taps, View
from specbench.models.heads.level import LevelHead
from specbench.transfer import read, to_device


class HeadTree(OptimalTree):
    """A tree of the given rank paths; without them, the one that a calibration finds best.

    Args:
        paths: Rank paths, such as [[0], [1], [0, 0]]; None to use a calibration.
        nodes: Draft nodes of a calibrated tree.
        max_depth: Most levels of it.
        width: Most children of its nodes.
        calibration: A calibration file; None to look one up.

    Raises:
        ConfigError: If a number is out of its range, or the paths make no tree.
    """

    def __init__(
        self,
        paths: Sequence[Sequence[int]] | None = None,
        nodes: int = 16,
        max_depth: int = 4,
        width: int = 10,
        calibration: str | None = None,
    ) -> None:
        super().__init__(nodes, max_depth, width, None, calibration)
        if paths is not None:
            self._set_shape(TreeShape.from_paths(paths))
            self.needs_calibration = False

    def calibrate(self, context: Calibrating) -> dict[str, Any]:
        """Count, along the target's answers, the rank of its token among each level's.

        Returns:
            As `OptimalTree.calibrate`.

        Raises:
            ConfigError: If no answer is long enough to count at.
        """
        head = context.models.head
        assert isinstance(head, LevelHead)
        counts = np.zeros((head.levels, self._width + 1), dtype=np.int64)
        for request in context.requests:
            generation = context.generate(context.decoder, request)
            tokens = [*request.prompt, *generation.tokens]
            states = _states(context, tokens)
            ranks = head.ranks(states, to_device([tokens], head.device), len(request.prompt) - 1)
            followed = torch.ones_like(ranks[0], dtype=torch.bool)
            for level, found in enumerate(ranks):
                followed = followed[: found.shape[0]]
                counted = found[followed].clamp(max=self._width)
                counts[level] += np.bincount(read(counted), minlength=self._width + 1)
                followed = followed & (found < self._width)
        positions = [int(count) for count in counts.sum(1) if count]
        if not positions:
            raise ConfigError(
                "The calibration samples gave no position to count",
                "every answer ended before its second token",
                "Calibrate on more samples or longer answers (max_new_tokens).",
            )
        levels = counts[: len(positions), :-1] / np.array(positions)[:, None]
        return {
            "accuracies": levels.round(6).tolist(),
            "positions": positions,
            "width": self._width,
            "max_depth": self._max_depth,
        }


def _states(context: Calibrating, tokens: Sequence[int]) -> Tensor:
    """Return what the target hands to the head along a text, [1, T, C]."""
    models, head = context.models, context.models.head
    assert head is not None
    taps = Taps(head.taps, every=True)
    fed = to_device([list(tokens)], models.target.device)
    cache = models.target_cache(len(tokens))
    models.target.forward(fed, cache, View(last=1, taps=taps, logits=False))
    return taps.states[0]
