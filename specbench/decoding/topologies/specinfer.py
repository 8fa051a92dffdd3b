"""The union of the trees of several draft models.

Miao et al. 2024, "SpecInfer: Accelerating Generative Large Language Model Serving with Tree-based
Speculative Inference and Verification", section 3: every small model expands a tree of its own;
trees are merged on equal prefixes, and a node remembers which models proposed it. Here that
memory is the records of the merged `Draws`: one for every model and expanded node, with that
model's law and its draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from specbench.decoding.tree import DraftTree, DrawKind, Draws
from specbench.transfer import to_device


class MergedTree(NamedTuple):
    """A union of trees.

    Attributes:
        tree: The union.
        origins: For each of the merged trees: its node that each node of the union came from,
            -1 where it has none.
    """

    tree: DraftTree
    origins: tuple[tuple[int, ...], ...]


def merge(trees: Sequence[DraftTree], tokens: Sequence[Sequence[int]]) -> MergedTree:
    """Merge trees on equal prefixes.

    Args:
        trees: Trees over one root, all drawn in the same way.
        tokens: The token ids of each tree on the host.

    Returns:
        Their union in order of depth. At every node, the first tree's draws are offered first.
    """
    entries = [
        (tree.depths[node], index, node)
        for index, tree in enumerate(trees)
        for node in range(tree.size)
    ]
    known: dict[tuple[int, int], int] = {}
    places: list[dict[int, int]] = [{-1: -1} for _ in trees]
    parents: list[int] = []
    merged_tokens: list[int] = []
    for _, index, node in sorted(entries):
        key = (places[index][trees[index].parents[node]], tokens[index][node])
        if key not in known:
            known[key] = len(parents)
            parents.append(key[0])
            merged_tokens.append(key[1])
        places[index][node] = known[key]
    inverse = [{merged: node for node, merged in place.items()} for place in places]
    origins = tuple(
        tuple(nodes.get(merged, -1) for merged in range(len(parents))) for nodes in inverse
    )
    device = trees[0].tokens.device
    draft = to_device([merged_tokens], device, torch.int64)
    return MergedTree(DraftTree(draft, tuple(parents), _union(trees, places)), origins)


def _union(trees: Sequence[DraftTree], places: Sequence[dict[int, int]]) -> Draws:
    """Return the records of all trees, with the nodes' places in the union."""
    kinds = {tree.draws.kind for tree in trees}
    assert len(kinds) == 1, "trees that were drawn in different ways"
    (kind,) = kinds
    laws = [tree.draws.law for tree in trees if tree.draws.law is not None]
    if kind in (DrawKind.POINT, DrawKind.NONE) or not laws:
        return Draws(kind)
    parents: list[int] = []
    offers: list[tuple[int, ...]] = []
    for tree, place in zip(trees, places, strict=True):
        for record, parent in enumerate(tree.draws.parents):
            drawn = tree.draws.offers[record] if tree.draws.offers else tree.children[parent + 1]
            parents.append(place[parent])
            offers.append(tuple(place[node] for node in drawn))
    return Draws(kind, tuple(parents), torch.cat(laws, dim=1), tuple(offers))
