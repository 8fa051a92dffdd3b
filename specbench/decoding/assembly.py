"""From the columns of a growth to the parts of a draft tree, on the host."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache


@dataclass(frozen=True)
class Places:
    """A tree but for its tokens, in order of depth.

    Attributes:
        parents: Index of each node's parent, -1 for the root.
        slots: Where each node was fed behind the committed text, -1 where it was not.
    """

    parents: tuple[int, ...]
    slots: tuple[int, ...]

    @cached_property
    def records(self) -> tuple[int, ...]:
        """The nodes that have children, -1 for the root."""
        return tuple(sorted(set(self.parents)))

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """For each record, the slot whose law its children come from."""
        return tuple(0 if parent < 0 else self.slots[parent] for parent in self.records)

    @cached_property
    def offers(self) -> tuple[tuple[int, ...], ...]:
        """For each record, its children."""
        children: dict[int, list[int]] = {parent: [] for parent in self.records}
        for node, parent in enumerate(self.parents):
            children[parent].append(node)
        return tuple(tuple(children[parent]) for parent in self.records)


@lru_cache(maxsize=64)
def complete(width: int, levels: int) -> Places:
    """Return the tree in which every node above the last level was fed and has `width` children."""
    parents = [-1] * width
    inner = 0
    for _ in range(levels - 1):
        level = range(inner, len(parents))
        inner = len(parents)
        parents += [node for node in level for _ in range(width)]
    slots = (*range(1, inner + 1), *(-1 for _ in parents[inner:]))
    return Places(tuple(parents), slots)


@dataclass
class Raw:
    """The columns of a growth on the host, one entry for each node in order of addition."""

    parents: list[int]
    tokens: list[int]
    alive: list[int]
    depths: list[int]
    slots: list[int]


class Assembly:
    """Nodes sorted by depth, the dropped ones left out and equal prefixes merged.

    Args:
        raw: The growth's columns.
        repeats: Whether a token that was drawn twice is recorded twice.
    """

    def __init__(self, raw: Raw, repeats: bool) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.slots: list[int] = []
        self._rows = {-1: 0}
        self._drawn: dict[int, list[int]] = {}
        new_id = {-1: -1}
        known: dict[tuple[int, int], int] = {}
        for node in sorted(range(len(raw.tokens)), key=raw.depths.__getitem__):
            parent = new_id.get(raw.parents[node])
            if parent is None or not raw.alive[node]:
                continue
            key = (parent, raw.tokens[node])
            merged = known.get(key)
            fresh = merged is None
            if merged is None:
                merged = known[key] = len(self.tokens)
                self.tokens.append(raw.tokens[node])
                self.parents.append(parent)
                self.slots.append(raw.slots[node])
            if raw.slots[node] >= 0 and merged not in self._rows:
                self._rows[merged] = raw.slots[node]
            new_id[node] = merged
            if fresh or repeats:
                self._drawn.setdefault(parent, []).append(merged)

    def records(self) -> tuple[tuple[int, ...], list[int], tuple[tuple[int, ...], ...]]:
        """Return the expanded parents, the row of each one's law, and what was drawn there."""
        parents = tuple(sorted(self._drawn))
        offers = tuple(tuple(self._drawn[parent]) for parent in parents)
        return parents, [self._rows[parent] for parent in parents], offers
