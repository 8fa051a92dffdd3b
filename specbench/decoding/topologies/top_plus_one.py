"""The most probable children plus one sampled child, at every node.

Hu et al. 2025, "Towards Optimal Multi-draft Speculative Decoding" (arXiv 2502.18779), "greedy"
draft sampling: of the n children of a node, n - 1 are the most probable tokens and one is drawn
from the rest. To be verified by `GreedyDraft`, which is optimal for such drafts. No official
code was found; every node of the tree, down to the last level, has n children.

Shapes: n nodes, k deterministic children, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from specbench.decoding.assembly import complete
from specbench.decoding.growth import Growth
from specbench.decoding.topologies.base import Topology
from specbench.decoding.tree import DraftTree, DrawKind
from specbench.errors import ConfigError
from specbench.transfer import to_device

MOST_NODES = 1024
"""Largest tree that is grown."""


class TopPlusOne(Topology):
    """A complete tree of width - 1 most probable children and one sampled child per node.

    Where the draft's law is greedy all children are the most probable ones.

    Args:
        width: Children of every node, at least 2.
        depth: Levels, at least 1; the length policy and the request may allow fewer.
    """

    def __init__(self, width: int, depth: int) -> None:
        self.nodes = sum(width**level for level in range(1, depth + 1)) if width > 0 else 0
        if width < 2 or depth < 1 or self.nodes > MOST_NODES:
            raise ConfigError(
                f"width is {width} and depth is {depth}, a tree of {self.nodes} nodes",
                "Every node gets width - 1 most probable children and one sampled child",
                f"Choose width of at least 2 and depth of at least 1, at most {MOST_NODES} nodes.",
            )
        self._width = width
        self._depth = depth

    def grow(self, growth: Growth) -> DraftTree | None:
        """Grow the tree level by level, one draft forward each."""
        law = growth.expand_root()
        parents = torch.full((1,), -1, dtype=torch.int64, device=growth.device)
        levels = min(self._depth, growth.depth)
        for level in range(1, levels + 1):
            tokens = self._children(growth, law)
            parents = growth.add(parents.repeat_interleave(tokens.shape[1]), tokens.flatten())
            if level < levels:
                law = growth.expand(parents)
        tree = growth.finish_places(DrawKind.HYBRID, complete(tokens.shape[1], levels))
        return tree if growth.greedy else _with_rest_laws(tree)

    def _children(self, growth: Growth, law: Tensor) -> Tensor:
        """Return the children of each node, the sampled one last, [n, width]."""
        width = min(self._width, law.shape[-1])
        if growth.greedy:
            return growth.pick(law, width)
        top = law.topk(width - 1, dim=-1).indices
        sampled = growth.draw(rest_law(law, top))
        return torch.cat([top, sampled[:, None]], 1)


def rest_law(laws: Tensor, top: Tensor) -> Tensor:
    """Return the law of the sampled child: the draft's law without the deterministic children.

    Where these hold all mass, the rest is uniform, so that the sampled child still has a law
    that is stated truly.

    Args:
        laws: [n, V] the draft's laws.
        top: [n, k] the deterministic children, k < V.
    """
    rest = laws.scatter(1, top, 0.0)
    mass = rest.sum(-1, keepdim=True)
    uniform = torch.ones_like(laws).scatter_(1, top, 0.0) / (laws.shape[-1] - top.shape[1])
    return torch.where(mass > 0, rest / mass, uniform)


def _with_rest_laws(tree: DraftTree) -> DraftTree:
    """State, of each expanded node, the law of its sampled child instead of the draft's."""
    draws = tree.draws
    assert draws.law is not None and draws.offers is not None
    nodes = to_device([nodes[:-1] for nodes in draws.offers], tree.tokens.device)
    law = rest_law(draws.law[0], tree.tokens[0][nodes])[None]
    return replace(tree, draws=replace(draws, law=law))
