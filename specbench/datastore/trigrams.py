"""How often a token followed a pair of tokens in a text, counted once.

A suffix array holds equal stretches side by side, so the tri-grams are its runs: one pass over it
counts them all, a chunk at a time.

Shapes: P pairs, T tri-grams, R stretches of three tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from specbench.datastore.format import END_OF_DOCUMENT
from specbench.datastore.prefix_tree import Tokens
from specbench.datastore.suffix import SuffixDatastore

Integers = npt.NDArray[np.int64]


class Successors(NamedTuple):
    """What followed one pair, the likeliest first.

    Attributes:
        tokens: Token ids.
        chances: Share of the pair's occurrences that each followed.
    """

    tokens: list[int]
    chances: list[float]


class Trigrams:
    """The likeliest successors of every pair of tokens that a text holds.

    Args:
        pairs: [P] the pairs in order, see `pair_key`.
        starts: [P + 1] where each pair's tri-grams begin.
        tokens: [T] their last tokens, the likeliest first.
        chances: [T] shares of the pair's occurrences, dropped successors included.
    """

    def __init__(
        self,
        pairs: Integers,
        starts: Integers,
        tokens: Tokens,
        chances: npt.NDArray[np.float64],
    ) -> None:
        self._pairs = pairs
        self._starts = starts
        self._tokens = tokens
        self._chances = chances

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._pairs)

    def after(self, first: int, second: int) -> Successors | None:
        """Return what followed a pair, or None where it does not occur."""
        key = pair_key(first, second)
        place = int(self._pairs.searchsorted(key))
        if place == len(self._pairs) or self._pairs[place] != key:
            return None
        rows = slice(int(self._starts[place]), int(self._starts[place + 1]))
        return Successors(self._tokens[rows].tolist(), self._chances[rows].tolist())


def pair_key(first: Any, second: Any) -> Any:
    """Return one number for each pair of ids, which are stored in 32 bits; numbers or arrays."""
    # Shifted by half of the range, so that 64 signed bits hold every pair in order.
    return ((first - (1 << 31)) << 32) | second


def count_trigrams(store: SuffixDatastore, keep: int) -> Trigrams:
    """Count the tri-grams of a datastore; none runs from one document into the next.

    Args:
        store: The datastore.
        keep: Successors that are kept for every pair, the most frequent ones; of equally
            frequent ones the smaller token.
    """
    parts = [_count(rows, keep) for rows in _whole_pairs(store)]
    pairs, sizes, tokens, chances = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Trigrams(pairs, np.append(0, sizes.cumsum()), tokens, chances)


def _whole_pairs(store: SuffixDatastore) -> Iterator[Tokens]:
    """Yield the sorted stretches of three tokens; no pair is spread over two parts."""
    rest = np.zeros((0, 3), dtype=np.uint32)
    for chunk in store.stretches(3):
        rows = np.concatenate([rest, chunk])
        ends = np.flatnonzero((rows[:, :2] != rows[-1, :2]).any(1))
        cut = int(ends[-1]) + 1 if len(ends) else 0
        rest = rows[cut:]
        yield rows[:cut]
    yield rest


def _count(rows: Tokens, keep: int) -> tuple[Integers, Integers, Tokens, npt.NDArray[np.float64]]:
    """Return the pairs, the successors kept of each, and these with their shares."""
    rows = rows[(rows != END_OF_DOCUMENT).all(1)]
    starts = _first_of_runs(rows)
    times = np.diff(starts, append=len(rows))
    rows = rows[starts]
    first = _first_of_runs(rows[:, :2])
    held = np.diff(first, append=len(rows))
    owner = np.repeat(np.arange(len(first)), held)
    chances = times / np.add.reduceat(times, first)[owner] if len(first) else times.astype(float)
    order = np.lexsort((-times, owner))
    kept = order[np.arange(len(rows)) - first[owner] < keep]
    keys = pair_key(rows[first, 0].astype(np.int64), rows[first, 1])
    return keys, np.minimum(held, keep), rows[kept, 2], chances[kept]


def _first_of_runs(rows: Tokens) -> Integers:
    """Return where runs of equal rows begin."""
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (rows[1:] != rows[:-1]).any(1)
    return np.flatnonzero(new)
