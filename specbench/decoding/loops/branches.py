"""Branches that grow behind one cached prefix, side by side in one row of the cache.

Trial continuations, rollouts and beams all extend a text that is cached once. Every branch sees
the prefix and its own tokens, so that no key or value is ever copied, and forgetting a branch is
a change of length.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from specbench.decoding.tree import HOST, TreeMask


class Branches:
    """Which slots behind the prefix belong to which branch.

    Args:
        count: Number of branches; all begin at the end of the prefix.
        device: Where their masks are looked at.
    """

    def __init__(self, count: int, device: torch.device = HOST) -> None:
        self._device = device
        self._slots: list[list[int]] = [[] for _ in range(count)]
        self._depths: list[int] = []

    def slots(self, branch: int) -> list[int]:
        """Return a branch's slots in order, counted from the end of the prefix."""
        return self._slots[branch]

    def fork(self, origins: Sequence[int]) -> None:
        """Let branch i go on where branch `origins[i]` stands; the others are given up."""
        self._slots = [list(self._slots[origin]) for origin in origins]

    def grow(self, branches: Sequence[int]) -> TreeMask | None:
        """Give each of some branches one more slot; return who sees whom.

        Args:
            branches: The branches whose next tokens are fed, in the order of the tokens.

        Returns:
            The mask of that forward, or None where all slots are one chain.
        """
        for branch in branches:
            slots = self._slots[branch]
            self._depths.append(len(slots))
            slots.append(len(self._depths) - 1)
        width = len(self._depths)
        if len(branches) == 1 and len(self._slots[branches[0]]) == width:
            return None
        ancestors = torch.zeros(len(branches), width, dtype=torch.bool)
        rows = [row for row, branch in enumerate(branches) for _ in self._slots[branch]]
        columns = [slot for branch in branches for slot in self._slots[branch]]
        ancestors[rows, columns] = True
        return TreeMask.on(self._device, torch.tensor(self._depths), ancestors)


@lru_cache(maxsize=16)
def parallel_chains(
    count: int, depth: int, device: torch.device = HOST
) -> tuple[TreeMask | None, ...]:
    """Return the masks of `count` chains that are fed side by side, one for each depth."""
    branches = Branches(count, device)
    return tuple(branches.grow(range(count)) for _ in range(depth))
