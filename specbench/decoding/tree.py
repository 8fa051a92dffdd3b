"""Draft trees, and the record of how each draft token was drawn.

A tree's node 0 is the first draft token; its parent is the root, the newest committed token,
written as -1. Parents stand before children. A chain is a tree of width one.

The verifier may read nothing about the draft but its `Draws`, so a drafter cannot claim a law
that it did not sample from.

Shapes: B rows, N draft nodes, P expanded parents, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import torch
from torch import Tensor


class DrawKind(StrEnum):
    """How the children of a node were drawn from the draft's law."""

    WITH_REPLACEMENT = "sampled_wr"
    WITHOUT_REPLACEMENT = "sampled_wor"
    POINT = "point"  # chosen deterministically from a law
    HYBRID = "hybrid"  # some deterministic, one sampled
    NONE = "none"  # no law: retrieved or copied


@dataclass(frozen=True)
class Draws:
    """How every child of a tree was drawn; children of a parent stand in draw order.

    Attributes:
        kind: How children were drawn, the same for all parents of a tree.
        parents: The expanded parents, -1 for the root.
        law: [B, P, V] the law that the children of `parents[i]` were drawn from; None for
            kind NONE.
    """

    kind: DrawKind
    parents: tuple[int, ...] = ()
    law: Tensor | None = None


@dataclass(frozen=True)
class DraftTree:
    """What a drafter proposes for one round.

    Attributes:
        tokens: [B, N] draft token ids.
        parents: Index of each node's parent, -1 for the root.
        draws: How the tokens were drawn.
    """

    tokens: Tensor
    parents: tuple[int, ...]
    draws: Draws = field(default_factory=lambda: Draws(DrawKind.NONE))

    def __post_init__(self) -> None:
        assert self.tokens.shape[1] == len(self.parents)
        assert all(-1 <= parent < node for node, parent in enumerate(self.parents))

    @classmethod
    def chain(cls, tokens: Tensor, draws: Draws | None = None) -> DraftTree:
        """Return the tree in which every token follows the one before it."""
        parents = tuple(range(-1, tokens.shape[1] - 1))
        return cls(tokens, parents, draws or Draws(DrawKind.NONE))

    @property
    def size(self) -> int:
        """Number of draft nodes."""
        return len(self.parents)

    @cached_property
    def is_chain(self) -> bool:
        """Whether every node's parent is the node before it."""
        return self.parents == tuple(range(-1, self.size - 1))

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Depth of every node; children of the root have depth 1."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent < 0 else depths[parent] + 1)
        return tuple(depths)

    @property
    def depth(self) -> int:
        """Length of the longest path."""
        return max(self.depths, default=0)

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Children of the root (entry 0) and of node i (entry i + 1), in draw order."""
        groups: list[list[int]] = [[] for _ in range(self.size + 1)]
        for node, parent in enumerate(self.parents):
            groups[parent + 1].append(node)
        return tuple(tuple(group) for group in groups)

    def mask(self) -> TreeMask | None:
        """Return who sees whom among the root and the nodes, or None for a chain."""
        return None if self.is_chain else TreeMask.from_parents(self.parents)

    def paths(self, node: int) -> tuple[int, ...]:
        """Return the nodes from a child of the root down to `node`."""
        path: list[int] = []
        while node >= 0:
            path.append(node)
            node = self.parents[node]
        return tuple(reversed(path))


@dataclass(frozen=True, eq=False)
class TreeMask:
    """Which of the tokens fed together see each other; all of them see the committed prefix.

    Attributes:
        offsets: Position of each fed token behind the committed prefix; the root has 0.
        ancestors: [N + 1, N + 1] bool on the CPU; row i is True at i and at its ancestors.
    """

    offsets: tuple[int, ...]
    ancestors: Tensor

    @classmethod
    def from_parents(cls, parents: tuple[int, ...]) -> TreeMask:
        """Build the mask of a root and a tree below it."""
        count = len(parents) + 1
        ancestors = torch.eye(count, dtype=torch.bool)
        offsets = [0]
        for node, parent in enumerate(parents):
            ancestors[node + 1] |= ancestors[parent + 1]
            offsets.append(offsets[parent + 1] + 1)
        return cls(tuple(offsets), ancestors)
