"""The most frequent beginnings of many continuations, as a tree.

Continuations that come sorted have the same beginning where they stand side by side, so every
prefix is a run of rows and is counted by where the next run starts: no loop over continuations
and no dictionary.

Shapes: R continuations of at most L tokens, N nodes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.uint32]
Index = npt.NDArray[np.intp]


class PrefixTree(NamedTuple):
    """A tree of prefixes; nodes in order of depth, siblings in order of their tokens.

    Attributes:
        tokens: [N] the last token of each prefix.
        parents: [N] node of the prefix without its last token, -1 for the root.
        counts: [N] how many continuations begin with the prefix.
        depths: [N] length of each prefix.
    """

    tokens: Tokens
    parents: Index
    counts: Index
    depths: Index


def frequent_prefixes(
    rows: Tokens, end: int, nodes: int | None = None, stops: Collection[int] = ()
) -> PrefixTree:
    """Return the most frequent prefixes of sorted continuations.

    A prefix is at least as frequent as what extends it, so the kept ones form a tree. Where the
    last of them tie, shorter prefixes win, then smaller tokens: exactly `nodes` are kept if
    there are as many.

    Args:
        rows: [R, L] continuations in lexicographic order; each ends before its first `end`.
        end: Marks the end of a continuation.
        nodes: How many to keep; None keeps all.
        stops: Further tokens before which a continuation ends.
    """
    count, length = rows.shape
    if count == 0 or length == 0:
        empty = np.zeros(0, np.intp)
        return PrefixTree(np.zeros(0, np.uint32), empty, empty, empty)
    levels = np.arange(length, dtype=np.int16)[:, None]
    final = rows == end
    for stop in stops:
        final |= rows == stop
    ended = _first_true(final)
    shared = np.full(count, -1, dtype=np.int16)
    shared[1:] = _first_true(rows[1:] != rows[:-1])
    # At every depth a prefix begins where a row parts from the row before it.
    starts = np.flatnonzero(levels >= shared)
    frequency = np.diff(starts, append=count * length)
    kept = (levels < ended).ravel()[starts]
    if nodes is not None:
        repeated = kept & (frequency > 1)
        kept = repeated if np.count_nonzero(repeated) >= nodes else kept
    starts, frequency = starts[kept], frequency[kept]
    if nodes is not None and len(starts) > nodes:
        chosen = _most_frequent(frequency, nodes)
        starts, frequency = starts[chosen], frequency[chosen]
    depth, row = np.divmod(starts, count)
    parents = np.searchsorted(starts, starts - count, side="right") - 1
    return PrefixTree(rows[row, depth], parents, frequency, depth + 1)


def trim_to_path_tokens(tree: PrefixTree, limit: int) -> PrefixTree:
    """Drop the longest prefixes until the distinct tokens of all prefixes sum to `limit` or less.

    This is how REST's released retriever cuts its tree (DraftRetriever/src/lib.rs,
    `cut_to_choices`): it adds up the distinct tokens of every kept prefix, although prefixes
    share their nodes, and so keeps far fewer nodes than it was asked for. Where it cuts ties
    at random, less frequent prefixes go first here.
    """
    paths: list[frozenset[int]] = []
    for token, parent in zip(tree.tokens.tolist(), tree.parents.tolist(), strict=True):
        paths.append((paths[parent] if parent >= 0 else frozenset()) | {token})
    sizes = np.array([len(path) for path in paths], dtype=np.intp)
    order = np.lexsort((tree.counts, -tree.depths, -sizes))
    over = int(sizes.sum()) - limit
    dropped = 0
    if over > 0:
        dropped = int(np.searchsorted(np.cumsum(sizes[order]), over)) + 1
    kept = np.ones(len(sizes), dtype=bool)
    kept[order[:dropped]] = False
    new_id = np.append(np.cumsum(kept) - 1, -1)
    return PrefixTree(
        tree.tokens[kept], new_id[tree.parents[kept]], tree.counts[kept], tree.depths[kept]
    )


def _first_true(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.int16]:
    """Return the column of the first true flag in each row; their number where there is none."""
    padded = np.ones((flags.shape[0], flags.shape[1] + 1), dtype=bool)
    padded[:, :-1] = flags
    columns: npt.NDArray[np.int16] = padded.argmax(1).astype(np.int16)
    return columns


def _most_frequent(frequency: Index, count: int) -> Index:
    """Return the places of the `count` largest numbers in order, the first ones of a tie."""
    at_least = np.cumsum(np.bincount(frequency)[::-1])[::-1]
    least = int(np.flatnonzero(at_least >= count)[-1])
    chosen = frequency > least
    chosen[np.flatnonzero(frequency == least)[: count - int(chosen.sum())]] = True
    return np.flatnonzero(chosen)


def sorted_rows(rows: Tokens) -> Tokens:
    """Return continuations, [R, L], in lexicographic order."""
    return rows[np.lexsort(rows.T[::-1])] if rows.size else rows
