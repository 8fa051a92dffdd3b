"""A Monte Carlo tree search over tri-grams: ADED's.

Read in the authors' `DraftRetriever/src/mcts_sub.rs` (github.com/liuxukun2000/Adaptix). The nodes
lie in flat lists, the children of one node side by side, and a node's row of the table is looked
up when a simulation first goes on from it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate

BASE = 32.0
GROWTH = 8.0
"""The two constants of the authors' exploration weight."""


class Row:
    """The successors of one pair of tokens, the heaviest first.

    Attributes:
        tokens: Token ids.
        weights: What the table holds for each; shares at first, more where it was raised.
    """

    __slots__ = ("tokens", "weights", "_sums")

    def __init__(self, tokens: list[int], weights: list[float]) -> None:
        self.tokens = tokens
        self.weights = weights
        self._sums: list[float] | None = None

    def place(self, uniform: float) -> int:
        """Return the place of a successor drawn in proportion to the weights.

        Args:
            uniform: A number in [0, 1).
        """
        if self._sums is None:
            self._sums = list(accumulate(self.weights))
        place = bisect_left(self._sums, uniform * self._sums[-1])
        return min(place, len(self.tokens) - 1)


Table = Callable[[int, int], Row | None]
"""Returns the row of a pair, or None where the table holds none."""


class Search:
    """The tree of one search.

    Every simulation descends to the child with the largest mean return plus
    (32 + ln((N + 9) / 8)) p sqrt(N) / (1 + n), for N visits of the node, n of the child, and the
    child's weight p in the table. Children that were never visited come first, in the order of
    their weights; the release takes a hash map's order. A node without children gets all of them
    at once, and the simulation goes on to the first. From there it draws tokens from the table
    until the text has its full length. It returns 1 plus the sum of the weights on its way.

    A simulation follows from all before it, so that they run one after another on the host, at
    about 7 microseconds each.

    Args:
        table: The tri-grams.
        first: The newest token but one.
        second: The newest token.
        depth: Deepest level of the tree.
    """

    def __init__(self, table: Table, first: int, second: int, depth: int) -> None:
        self._table = table
        self._depth = depth
        self._pairs = [(first, second)]
        self._parents = [-1]
        self._rows: list[Row | None] = [table(first, second)]
        self._looked = [True]
        self._prior = [0.0]
        self._chance = [0.0]  # prior / (1 + visits)
        self._visits = [0]
        self._total = [0.0]
        self._mean = [0.0]
        self._first = [0]  # first child; 0 where there is none
        self._fresh = [0]  # first child that was never visited
        self._stop = [0]

    def run(self, simulations: int, uniform: Callable[[], float]) -> None:
        """Simulate.

        Args:
            simulations: How often.
            uniform: Returns a fresh number in [0, 1).
        """
        scales = _scales(simulations)
        for _ in range(simulations):
            self._simulate(scales, uniform)

    def sentences(self, count: int) -> list[list[int]]:
        """Return the paths to the most visited nodes, each longer by its likeliest successor.

        Args:
            count: Nodes, the root among them; it has no path of its own. Of nodes visited
                equally often a parent comes first, then whatever is below its earlier child.
        """
        visits = self._visits
        least = sorted(visits, reverse=True)[:count][-1]
        ranked: list[tuple[int, list[int]]] = []
        stack: list[tuple[int, list[int]]] = [(0, [])]
        while stack:
            node, path = stack.pop()
            ranked.append((node, path))
            children = range(self._first[node], self._stop[node])
            stack += [
                (child, [*path, self._pairs[child][1]])
                for child in reversed(children)
                if visits[child] >= least
            ]
        ranked.sort(key=lambda entry: -visits[entry[0]])
        sentences = []
        for node, path in ranked[:count]:
            row = self._row(node) if path else None
            if row is not None:
                path.append(row.tokens[0])
            if path:
                sentences.append(path)
        return sentences

    def _simulate(self, scales: Sequence[float], uniform: Callable[[], float]) -> None:
        node, depth, returned = 0, 0, 1.0
        visits, chance, mean, prior = self._visits, self._chance, self._mean, self._prior
        row = self._rows[0]
        while row is not None and depth < self._depth:
            first = self._first[node]
            if not first:
                node = self._expand(node, row)
                returned += prior[node]
                depth += 1
                break
            stop, fresh = self._stop[node], self._fresh[node]
            if fresh < stop:
                self._fresh[node] = fresh + 1
                node = fresh
            elif stop - first == 1:
                node = first
            else:
                scale = scales[visits[node]]
                scores = [
                    value + scale * share
                    for value, share in zip(mean[first:stop], chance[first:stop], strict=True)
                ]
                node = first + scores.index(max(scores))
            returned += prior[node]
            depth += 1
            row = self._row(node) if depth < self._depth else None
        pair = self._pairs[node]
        while depth < self._depth:
            row = self._table(*pair)
            if row is None:
                break
            place = row.place(uniform())
            returned += row.weights[place]
            pair = (pair[1], row.tokens[place])
            depth += 1
        while node >= 0:
            visits[node] += 1
            count = visits[node]
            self._total[node] += returned
            mean[node] = self._total[node] / count
            chance[node] = prior[node] / (1 + count)
            node = self._parents[node]

    def _row(self, node: int) -> Row | None:
        """Return the row of a node; it is looked up once."""
        if not self._looked[node]:
            self._looked[node] = True
            self._rows[node] = self._table(*self._pairs[node])
        return self._rows[node]

    def _expand(self, node: int, row: Row) -> int:
        """Give a node all of its children; return the first, which the simulation visits."""
        first, count = len(self._pairs), len(row.tokens)
        last = self._pairs[node][1]
        self._first[node], self._fresh[node] = first, first + 1
        self._stop[node] = first + count
        self._pairs += [(last, token) for token in row.tokens]
        self._prior += row.weights
        self._chance += row.weights
        zeros, none = [0] * count, [0.0] * count
        self._parents += [node] * count
        self._rows += [None] * count
        self._looked += [False] * count
        self._visits += zeros
        self._total += none
        self._mean += none
        self._first += zeros
        self._fresh += zeros
        self._stop += zeros
        return first


@lru_cache(maxsize=8)
def _scales(most: int) -> tuple[float, ...]:
    """Return what multiplies p / (1 + n) at a node of 0, 1, ... `most` visits."""
    weights = (BASE + math.log((visits + GROWTH + 1) / GROWTH) for visits in range(most + 1))
    return tuple(weight * math.sqrt(visits) for visits, weight in enumerate(weights))
