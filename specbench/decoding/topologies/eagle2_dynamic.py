"""The dynamic tree of EAGLE-2: expand the likeliest nodes, then keep the likeliest of all.

Li et al. 2024, "EAGLE-2: Faster Inference of Language Models with Dynamic Draft Trees", section 4;
read in the released `eagle/model/cnets.py` (`topK_genrate`). The draft's own probabilities stand
for acceptance: the value of a node is their product along its path. The released code takes the
softmax of the logits as they are, whatever the temperature and the cuts of the target's law.
"""

from __future__ import annotations

from specbench.decoding.growth import Growth
from specbench.decoding.topologies.base import Topology
from specbench.decoding.topologies.candidates import Candidates
from specbench.decoding.topologies.static_tree import MOST_NODES
from specbench.decoding.tree import DraftTree
from specbench.errors import ConfigError


class Eagle2Dynamic(Topology):
    """Level by level, expand the `top_k` nodes of largest value; keep the `nodes` best of all.

    Children are chosen deterministically (the most probable ones), so the draws are of kind POINT
    for a sampling draft too. Nothing waits for the device before the tree is finished.

    Args:
        top_k: Nodes that are expanded on each level, and children of each.
        nodes: Nodes of the finished tree.
        depth: Levels of the tree; a draft forward for each.
        warped: Whether the probabilities are those of the law that a sampling draft would draw
            from, as in the released code of LANTERN.

    Raises:
        ConfigError: If a value is out of range.
    """

    def __init__(
        self, top_k: int = 10, nodes: int = 60, depth: int = 6, warped: bool = False
    ) -> None:
        if not (1 <= nodes <= MOST_NODES and 1 <= top_k <= nodes and depth >= 1):
            raise ConfigError(
                f"A dynamic tree of {nodes} nodes, top_k {top_k} and depth {depth} is not possible",
                f"It holds 1 to {MOST_NODES} nodes, expands 1 to 'nodes' of them on a level, "
                "and has at least one level",
                "Choose other numbers.",
            )
        self.nodes = top_k * (depth - 1) + nodes
        if self.nodes > 4 * MOST_NODES:
            raise ConfigError(
                f"A dynamic tree of depth {depth} with top_k {top_k} is not possible",
                f"top_k * (depth - 1) + nodes is at most {4 * MOST_NODES}",
                "Choose a smaller depth or top_k.",
            )
        self._top_k = top_k
        self._kept = nodes
        self._depth = depth
        self._warped = warped

    def grow(self, growth: Growth) -> DraftTree | None:
        """Expand level by level, and rank all candidates at the end."""
        candidates = Candidates(growth, self._top_k, warped=self._warped)
        level = 0
        for _ in range(min(growth.depth, self._depth) - 1):
            end = candidates.count
            candidates.feed(candidates.best(self._top_k, first=level))
            level = end
        return candidates.finish(self._kept)
