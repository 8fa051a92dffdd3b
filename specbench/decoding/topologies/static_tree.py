"""Trees whose shape is fixed beforehand: the same ranks of children at the same places.

A place is named by its rank path: (0, 2) is the third child of the first child of the root. A
sampling draft draws the children of a node without replacement, so that a rank is the place in
the order of the draws; a greedy draft takes its most probable tokens, the most probable first.

Sources: Cai et al. 2024, "Medusa", section 2.3 (rank paths, and the tree that repeatedly takes
the path with the largest product of rank accuracies); Yang et al. 2024, "Multi-Candidate
Speculative Decoding", and its code, github.com/NJUNLP/MCSD (a width for each level, called
k_config there).

Shapes: N draft nodes, n nodes of one level.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from specbench.decoding.assembly import Places, complete
from specbench.decoding.growth import Growth
from specbench.decoding.topologies.base import Topology
from specbench.decoding.tree import DraftTree, DrawKind, Draws, depths_of
from specbench.errors import ConfigError
from specbench.transfer import to_device

MOST_NODES = 1024
"""Largest tree that a topology of fixed shape accepts."""


@dataclass(frozen=True)
class TreeShape:
    """Places of a tree in order of depth, siblings side by side in order of rank.

    Attributes:
        parents: Index of each place's parent, -1 for the root.
        ranks: Rank of each place among its siblings, from 0 without gaps.
    """

    parents: tuple[int, ...]
    ranks: tuple[int, ...]

    @classmethod
    def from_counts(cls, counts: Sequence[int]) -> TreeShape:
        """Return the shape with so many children at the root and at each place.

        Args:
            counts: Numbers of children: the root's first, then those of the places in order of
                depth. Places behind the end have none.
        """
        parents: list[int] = []
        ranks: list[int] = []
        for node, count in enumerate(counts):
            assert node <= len(parents), "children of a place that does not exist"
            parents += [node - 1] * count
            ranks += range(count)
        return cls(tuple(parents), tuple(ranks))

    @classmethod
    def from_widths(cls, widths: Sequence[int]) -> TreeShape:
        """Return the tree in which every place of level i has `widths[i]` children.

        Raises:
            ConfigError: If a width is not positive or the tree would be too large.
        """
        if not widths or any(width < 1 for width in widths):
            raise ConfigError(
                f"Branching widths {list(widths)} make no tree",
                "there is one width for each level, and each is at least 1",
                "Give a list such as [4,2,2].",
            )
        sizes = [prod(widths[: depth + 1]) for depth in range(len(widths))]
        _check_size(sum(sizes), f"Branching widths {list(widths)}")
        counts = [widths[0]]
        for size, width in zip(sizes, widths[1:], strict=False):
            counts += [width] * size
        return cls.from_counts(counts)

    @classmethod
    def from_paths(cls, paths: Sequence[Sequence[int]]) -> TreeShape:
        """Return the tree of some rank paths, in any order.

        Raises:
            ConfigError: If a path's parent or elder sibling is missing: the second child is
                what a draft draws after the first one.
        """
        places = {tuple(path) for path in paths}
        for path in sorted(places):
            if not path or min(path) < 0:
                raise ConfigError(
                    f"{list(path)} is not a rank path",
                    "a path lists the rank of each node from the root down, from 0",
                    "Give paths such as [[0],[1],[0,0]].",
                )
            elder = (*path[:-1], path[-1] - 1)
            for needed in (path[:-1], elder if elder[-1] >= 0 else ()):
                if needed and needed not in places:
                    raise ConfigError(
                        f"The tree has the path {list(path)} and not {list(needed)}",
                        "a child needs its parent and its elder siblings",
                        "Add the missing path.",
                    )
        _check_size(len(places), "The list of paths")
        order = sorted(places, key=lambda path: (len(path), path))
        index = {path: node for node, path in enumerate(order)}
        parents = tuple(index.get(path[:-1], -1) for path in order)
        return cls(parents, tuple(path[-1] for path in order))

    @property
    def size(self) -> int:
        """Number of draft nodes, the root not counted."""
        return len(self.parents)

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Depth of each place; children of the root have depth 1."""
        return depths_of(self.parents)

    @property
    def depth(self) -> int:
        """Length of the longest path."""
        return max(self.depths, default=0)


class Level(NamedTuple):
    """One level of a shape as tensors.

    Attributes:
        inner: Places of the level above that have children; the root where there is none above.
        owner: [n] which of `inner` each place hangs on.
        parents: [n] parents of the places.
        ranks: [n] ranks of the places.
        most: Largest number of children of one place.
    """

    inner: Tensor
    owner: Tensor
    parents: Tensor
    ranks: Tensor
    most: int


def levels(shape: TreeShape, device: torch.device) -> tuple[Level, ...]:
    """Return the levels of a shape, the children of the root first."""
    result = []
    for depth in range(1, shape.depth + 1):
        nodes = [node for node, at in enumerate(shape.depths) if at == depth]
        parents = [shape.parents[node] for node in nodes]
        ranks = [shape.ranks[node] for node in nodes]
        inner = sorted(set(parents))
        place = {parent: index for index, parent in enumerate(inner)}
        owner = [place[parent] for parent in parents]
        columns = [to_device(part, device) for part in (inner, owner, parents, ranks)]
        result.append(Level(columns[0], columns[1], columns[2], columns[3], max(ranks) + 1))
    return tuple(result)


class StaticTree(Topology):
    """A tree of one shape in every round, cut to the depth that there is room for.

    Args:
        paths: Rank paths of the nodes, such as [[0], [1], [0, 0]].
        widths: Instead of paths: the number of children on each level.
        replacement: Draw siblings with replacement. Equal siblings become one node, and each
            draw stays recorded.
        copies: Whether a greedy draft that draws with replacement draws its argmax again and
            again, so that the tree is a chain; else it takes its most probable tokens.

    Attributes:
        shape: The shape.
        parents: [N] parents of the nodes, -1 for the root.
        ranks: [N] ranks among siblings.
        depths: [N] depths, from 1.

    Raises:
        ConfigError: If paths or widths make no tree, or both or neither are given.
    """

    def __init__(
        self,
        paths: Sequence[Sequence[int]] | None = None,
        widths: Sequence[int] | None = None,
        replacement: bool = False,
        copies: bool = False,
    ) -> None:
        if (paths is None) == (widths is None):
            raise ConfigError(
                "A static tree needs either paths or widths",
                "paths name every node, widths give the number of children on each level",
                "Give one of them and leave the other out.",
            )
        if paths is not None:
            self._set_shape(TreeShape.from_paths(paths))
        elif widths is not None:
            self._set_shape(TreeShape.from_widths(widths))
        self._replacement = replacement
        self._copies = copies

    def _set_shape(self, shape: TreeShape) -> None:
        self.shape = shape
        self.nodes = shape.size
        self.needs = frozenset() if set(shape.ranks) <= {0} else Topology.needs
        self.parents = torch.tensor(shape.parents, dtype=torch.int64)
        self.ranks = torch.tensor(shape.ranks, dtype=torch.int64)
        self.depths = torch.tensor(shape.depths, dtype=torch.int64)
        self._levels: dict[torch.device, tuple[Level, ...]] = {}
        self._at: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = {}
        self._known: dict[int, Places] = {}

    def grow(self, growth: Growth) -> DraftTree | None:
        """Feed the inner nodes of one level after another and draw the children of each."""
        if growth.greedy and self._copies:
            return self._grow_copies(growth)
        device = growth.device
        if device not in self._levels:
            self._levels[device] = levels(self.shape, device)
        grown = self._levels[device][: growth.depth]
        chosen = growth.greedy
        for depth, level in enumerate(grown):
            laws = growth.expand(level.inner) if depth else growth.expand_root()
            growth.add(level.parents, self._children(growth, laws, level))
            chosen = chosen and level.most <= laws.shape[-1]
        if chosen:
            return growth.finish_places(DrawKind.POINT, self._places(len(grown)))
        kind = DrawKind.WITH_REPLACEMENT if self._replacement else DrawKind.WITHOUT_REPLACEMENT
        return growth.finish(kind)

    def filled(self, logits: Tensor) -> DraftTree:
        """Return the tree whose places on a level hold the likeliest tokens of one law.

        Args:
            logits: [K, V], a row for each level; further levels of the shape are left out.
        """
        depth = min(logits.shape[0], self.shape.depth)
        places = self._places(depth)
        key = logits.device, depth
        if key not in self._at:
            size = len(places.parents)
            at, ranks = self.depths[:size] - 1, self.ranks[:size].clamp(max=logits.shape[1] - 1)
            self._at[key] = (
                to_device(at.tolist(), logits.device),
                to_device(ranks.tolist(), logits.device),
            )
        at, ranks = self._at[key]
        most = min(max(self.shape.ranks) + 1, logits.shape[1])
        likeliest = logits[:depth].topk(most, -1).indices
        draws = Draws(DrawKind.POINT, places.records, None, places.offers)
        return DraftTree(likeliest[at, ranks][None], places.parents, draws)

    def _grow_copies(self, growth: Growth) -> DraftTree:
        """Draw the one token that every sibling would be, level after level."""
        depth = min(growth.depth, self.shape.depth)
        ids = torch.full((1,), -1, dtype=torch.int64, device=growth.device)
        for level in range(depth):
            laws = growth.expand(ids) if level else growth.expand_root()
            ids = growth.add(ids, growth.draw(laws))
        return growth.finish_places(DrawKind.POINT, complete(1, depth))

    def _places(self, depth: int) -> Places:
        """Return where the nodes of the first `depth` levels stand."""
        if depth not in self._known:
            size = sum(at <= depth for at in self.shape.depths)
            parents = self.shape.parents[:size]
            inner = [node for node in sorted(set(parents)) if node >= 0]
            fed = {node: slot for slot, node in enumerate(inner, start=1)}
            self._known[depth] = Places(parents, tuple(fed.get(node, -1) for node in range(size)))
        return self._known[depth]

    def _children(self, growth: Growth, laws: Tensor, level: Level) -> Tensor:
        """Return the tokens of one level, [n], from the laws of its inner nodes."""
        if self._replacement and not growth.greedy:
            return growth.draw(laws[level.owner])
        picked = growth.pick(laws, level.most)
        ranks = level.ranks
        if picked.shape[1] < level.most:
            ranks = ranks.clamp(max=picked.shape[1] - 1)
        return picked[level.owner, ranks]


def optimal_paths(accuracies: Sequence[Sequence[float]], nodes: int) -> tuple[tuple[int, ...], ...]:
    """Return the rank paths of the tree that accepts most tokens on average.

    A path is accepted with the product of its ranks' accuracies, so the best tree repeatedly
    takes the path with the largest product. This is the optimum where accuracies of different
    depths are independent and do not rise with the rank; a path waits for its elder siblings.

    Args:
        accuracies: For each depth and rank, how often the token of that rank is the right one.
        nodes: Number of paths to take; fewer are taken where there are no more.

    Raises:
        ConfigError: If there is nothing to choose from.
    """
    if nodes < 1 or not accuracies or any(not ranks for ranks in accuracies):
        raise ConfigError(
            f"No tree of {nodes} nodes can be chosen from {len(accuracies)} depths",
            "there is at least one node, and each depth has accuracies of its ranks",
            "Give 1 node or more and a list of accuracies for each depth.",
        )
    chosen: list[tuple[int, ...]] = []
    heap: list[tuple[float, tuple[int, ...], float]] = [(-accuracies[0][0], (0,), 1.0)]
    while heap and len(chosen) < nodes:
        value, path, above = heapq.heappop(heap)
        chosen.append(path)
        depth, rank = len(path), path[-1]
        siblings = accuracies[depth - 1]
        if rank + 1 < len(siblings):
            following = (-above * siblings[rank + 1], (*path[:-1], rank + 1), above)
            heapq.heappush(heap, following)
        if depth < len(accuracies):
            heapq.heappush(heap, (value * accuracies[depth][0], (*path, 0), -value))
    return tuple(chosen)


def _check_size(nodes: int, what: str) -> None:
    if nodes > MOST_NODES:
        raise ConfigError(
            f"{what} would make a tree of {nodes} nodes",
            f"a tree has at most {MOST_NODES}",
            "Choose a smaller tree.",
        )
