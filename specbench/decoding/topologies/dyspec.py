"""DySpec's tree: always draw where the draft expects the next token to be accepted most.

Xiong et al. 2024, "DySpec: Faster Speculative Decoding with Dynamic Token Tree Structure",
section 4 and Algorithms 1 and 2. No code of the authors was found on GitHub.

A slot is a place where one more token can be drawn: below a node, after the siblings that were
drawn there before. Its value is the probability that the walk gets there, if tokens are accepted
with their draft probability: v for the first slot below a node whose own value is v; after a
sibling of conditional probability r is drawn, v r is the value of that sibling's first slot and
v (1 - r) that of the next slot beside it.

The paper pops the best slot of a heap, one draft forward for each new node. Values never rise
along siblings or from parent to child, so the popped slots are the `nodes` most valuable of all
slots. Here they are found level by level: every node of a level whose slots can still be among
the best so far is fed in one forward. The tree is the heap's, with one forward for each level.

Whether a slot is used depends on values above it alone, never on the token that is drawn in it.
That is what keeps draws without replacement lossless: leaving out tokens that turned out
improbable would not be.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import torch

from specbench.decoding.growth import Growth
from specbench.decoding.topologies.base import Topology
from specbench.decoding.topologies.static_tree import MOST_NODES
from specbench.decoding.tree import DraftTree, DrawKind
from specbench.errors import ConfigError
from specbench.transfer import read, to_device

MOST_GROWN = 8192
_EXHAUSTED = 1e-6


class DySpec(Topology):
    """Draw the slots of largest value, level by level.

    Args:
        nodes: Nodes of the finished tree, the budget of the paper.
        depth: Most levels; the paper has no limit of its own.
        children: Most children of a node; the paper has no limit.
        threshold: Slots up to this value are left empty, in [0, 1). With 0 the budget alone
            decides, as in the paper's heap; above 0 this is the paper's layer-by-layer variant.

    Raises:
        ConfigError: If a value is out of range.
    """

    def __init__(
        self, nodes: int = 64, depth: int = 16, children: int = 8, threshold: float = 0.0
    ) -> None:
        if not (1 <= nodes <= MOST_NODES and depth >= 1 and nodes * depth <= MOST_GROWN):
            raise ConfigError(
                f"A DySpec tree of {nodes} nodes and depth {depth} is not possible",
                f"It holds 1 to {MOST_NODES} nodes, and nodes * depth is at most {MOST_GROWN}",
                "Choose fewer nodes or less depth.",
            )
        if children < 1 or not 0 <= threshold < 1:
            raise ConfigError(
                f"DySpec with {children} children and threshold {threshold:g} is not possible",
                "A node has at least one child, and no slot's value is above 1",
                "Choose 1 child or more, and a threshold in [0, 1).",
            )
        self.nodes = nodes * depth
        self._kept = nodes
        self._depth = depth
        self._children = children
        self._threshold = threshold

    def grow(self, growth: Growth) -> DraftTree | None:
        """Grow level by level; one look at the device for each."""
        slots = _Slots(self._kept, self._threshold)
        depth = min(growth.depth, self._depth)
        laws = growth.expand_root()
        ids = torch.full((1,), -1, dtype=torch.int64, device=growth.device)
        values = [1.0]
        for level in range(1, depth + 1):
            tokens = growth.pick(laws, self._children)
            level_slots = slots.open(values, read(laws.gather(-1, tokens)))
            if not level_slots:
                break
            places = [(slot.row, slot.rank) for slot in level_slots]
            rows, ranks = to_device(places, growth.device).unbind(1)
            added = growth.add(ids[rows], tokens[rows, ranks])
            fertile = [i for i, slot in enumerate(level_slots) if slot.below > slots.bound]
            if level == depth or not fertile:
                break
            ids = added[to_device(fertile, growth.device)]
            values = [level_slots[i].below for i in fertile]
            laws = growth.expand(ids)
        keep = to_device(slots.best(), growth.device)
        return growth.finish(DrawKind.WITHOUT_REPLACEMENT, keep)


class _Slot(NamedTuple):
    """A slot with the token drawn in it.

    Attributes:
        value: Probability that the walk tries this slot, under the draft's law.
        below: Value of the token's own first slot.
        row: Which of the level's parents it hangs on.
        rank: How many siblings were drawn before it.
    """

    value: float
    below: float
    row: int
    rank: int


class _Slots:
    """The values of all slots so far, and which of them are the best."""

    def __init__(self, count: int, threshold: float) -> None:
        self._count = count
        self._threshold = threshold
        self._heap: list[float] = []
        self._values: list[float] = []

    @property
    def bound(self) -> float:
        """What a slot's value must exceed to be among the best so far."""
        return self._heap[0] if len(self._heap) == self._count else self._threshold

    def open(self, values: list[float], chances: list[list[float]]) -> list[_Slot]:
        """Return the slots of a level that are among the best so far, in draw order.

        Args:
            values: [n] the value of each parent's first slot.
            chances: [n][k] draft probability of the tokens that were drawn below each.
        """
        opened = []
        for row, (value, drawn) in enumerate(zip(values, chances, strict=True)):
            left = 1.0
            for rank, chance in enumerate(drawn):
                if left < _EXHAUSTED or value * left <= self.bound:
                    break
                here = value * left
                opened.append(_Slot(here, min(value * chance, here), row, rank))
                heapq.heappush(self._heap, here)
                if len(self._heap) > self._count:
                    heapq.heappop(self._heap)
                left -= chance
        bound = self.bound
        good = [slot for slot in opened if slot.value >= bound]
        best = heapq.nlargest(self._count, range(len(good)), key=lambda i: (good[i].value, -i))
        chosen = [good[i] for i in sorted(best)]
        self._values += [slot.value for slot in chosen]
        return chosen

    def best(self) -> list[int]:
        """Return which of the returned slots, counted through all levels, make the tree."""
        order = sorted(range(len(self._values)), key=lambda i: -self._values[i])
        return order[: self._count]
