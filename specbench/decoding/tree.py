"""Draft trees, and the record of how each draft token was drawn.

A tree's node 0 is the first draft token; its parent is the root, the newest committed token,
written as -1. Parents stand before children. A chain is a tree of width one.

The verifier may read nothing about the draft but its `Draws`, so a drafter cannot claim a law
that it did not sample from.

Shapes: B rows, N draft nodes, P draws records, V vocabulary, W slots seen by a mask.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from specbench.models.base import AncestorMask
from specbench.transfer import moved

HOST = torch.device("cpu")


def depths_of(parents: Sequence[int]) -> tuple[int, ...]:
    """Return the depth of every node of a tree; children of the root (-1) have depth 1."""
    depths: list[int] = []
    for parent in parents:
        depths.append(1 if parent < 0 else depths[parent] + 1)
    return tuple(depths)


class DrawKind(StrEnum):
    """How the children of a node were drawn from the draft's law."""

    WITH_REPLACEMENT = "sampled_wr"
    WITHOUT_REPLACEMENT = "sampled_wor"
    POINT = "point"  # chosen deterministically from a law
    HYBRID = "hybrid"  # some deterministic, one sampled
    NONE = "none"  # no law: retrieved or copied


@dataclass(frozen=True)
class Draws:
    """How the children of a tree's nodes were drawn.

    Record i says that the children `offers[i]` of node `parents[i]` were drawn from
    `law[:, i]`. Where several draft models drew children of one node, the node has a record for
    each of them; the verifier tries their offers in the order of the records.

    Attributes:
        kind: How children were drawn, the same for all records of a tree.
        parents: The expanded node of each record, -1 for the root.
        law: [B, P, V] the law of each record. For draws without replacement it is the law of
            the first draw: what the earlier draws removed is the verifier's to remove. For kind
            HYBRID it is the law of the sampled child. None for kinds POINT and NONE.
        offers: The drawn nodes of each record in draw order; a node that was drawn twice
            stands there twice. None: the children of `parents[i]`, in node order.
    """

    kind: DrawKind
    parents: tuple[int, ...] = ()
    law: Tensor | None = None
    offers: tuple[tuple[int, ...], ...] | None = None


class Offer(NamedTuple):
    """A child that the verifier tries at a node.

    Attributes:
        node: The child.
        record: Which record of the tree's `Draws` it was drawn by; -1 where there is no record.
    """

    node: int
    record: int


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
        return depths_of(self.parents)

    @property
    def depth(self) -> int:
        """Length of the longest path."""
        return max(self.depths, default=0)

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Children of the root (entry 0) and of node i (entry i + 1), in node order."""
        groups: list[list[int]] = [[] for _ in range(self.size + 1)]
        for node, parent in enumerate(self.parents):
            groups[parent + 1].append(node)
        return tuple(tuple(group) for group in groups)

    @cached_property
    def offers(self) -> tuple[tuple[Offer, ...], ...]:
        """What was drawn at the root (entry 0) and at node i (entry i + 1), in draw order."""
        draws = self.draws
        if not draws.parents:
            return tuple(tuple(Offer(node, -1) for node in nodes) for nodes in self.children)
        offers: list[list[Offer]] = [[] for _ in range(self.size + 1)]
        for record, parent in enumerate(draws.parents):
            drawn = draws.offers[record] if draws.offers else self.children[parent + 1]
            offers[parent + 1].extend(Offer(node, record) for node in drawn)
        return tuple(tuple(entry) for entry in offers)

    def reach(self, drafted: Sequence[int], stops: Collection[int]) -> int:
        """Return the length of the longest path that no stop token cuts short.

        Args:
            drafted: The tokens of all nodes on the host.
            stops: Tokens behind which nothing is emitted; they are themselves part of a path.
        """
        if not any(token in stops for token in drafted):
            return self.depth
        ended: list[bool] = []
        for parent in self.parents:
            ended.append(parent >= 0 and (ended[parent] or drafted[parent] in stops))
        return max(depth for depth, end in zip(self.depths, ended, strict=True) if not end)

    def mask(self) -> TreeMask | None:
        """Return who sees whom among the root and the nodes, or None for a chain."""
        if self.is_chain:
            return None
        return TreeMask.from_parents(self.parents, self.tokens.device)

    def paths(self, node: int) -> tuple[int, ...]:
        """Return the nodes from a child of the root down to `node`."""
        path: list[int] = []
        while node >= 0:
            path.append(node)
            node = self.parents[node]
        return tuple(reversed(path))


class TreeMask(AncestorMask):
    """Who sees whom in a tree."""

    @classmethod
    def from_parents(cls, parents: tuple[int, ...], device: torch.device = HOST) -> TreeMask:
        """Return the mask of a root and the tree below it; equal trees share one mask."""
        return _tree_mask(parents, device)

    @classmethod
    def on(cls, device: torch.device, offsets: Tensor, ancestors: Tensor) -> TreeMask:
        """Return a mask that was made on the host, on the device that will look at it."""
        return cls(moved(offsets, device), moved(ancestors, device))


@lru_cache(maxsize=64)
def _tree_mask(parents: tuple[int, ...], device: torch.device) -> TreeMask:
    count = len(parents) + 1
    ancestors = np.eye(count, dtype=bool)
    offsets = np.zeros(count, dtype=np.int64)
    for node, parent in enumerate(parents):
        ancestors[node + 1] |= ancestors[parent + 1]
        offsets[node + 1] = offsets[parent + 1] + 1
    return TreeMask.on(device, torch.from_numpy(offsets), torch.from_numpy(ancestors))
