"""The longest path of accepted nodes, for verifiers that follow every passing child."""

from __future__ import annotations

from collections.abc import Sequence

from specbench.decoding.tree import DraftTree
from specbench.decoding.verifiers.base import Verdict


def longest_path(
    tree: DraftTree,
    passing: Sequence[int | float | bool],
    scores: Sequence[float],
    following: Sequence[int],
    tokens: Sequence[int],
) -> Verdict:
    """Return the deepest path whose nodes all pass, and the token after it.

    Args:
        tree: The structure.
        passing: Whether each node passes, [N].
        scores: What each node adds to its path's score, [N]; of equally long paths the highest
            score is kept, and the first of equals.
        following: The token after the root and after every node, [N + 1].
        tokens: The draft's token at every node, [N].
    """
    totals = [0.0] * tree.size
    alive = [False] * tree.size
    best, best_key = -1, (0, 0.0)
    for node, parent in enumerate(tree.parents):
        alive[node] = bool(passing[node]) and (parent < 0 or alive[parent])
        if not alive[node]:
            continue
        totals[node] = scores[node] + (totals[parent] if parent >= 0 else 0.0)
        key = (tree.depths[node], totals[node])
        if best < 0 or key > best_key:
            best, best_key = node, key
    path = tree.paths(best)
    token = int(following[best + 1])
    return Verdict(path, token, (*(int(tokens[node]) for node in path), token), tokens)
