"""Several chains, drawn independently of each other.

Sun et al. 2023, "SpecTr: Fast Speculative Decoding via Optimal Transport", section 5: K sequences
are drawn from the draft, each as in speculative sampling, and judged together. Sequences that
begin alike share their nodes; a node that several of them drew is offered once for each.
"""

from __future__ import annotations

import torch

from specbench.decoding.assembly import complete
from specbench.decoding.growth import Growth
from specbench.decoding.topologies.base import Topology
from specbench.decoding.topologies.static_tree import MOST_NODES
from specbench.decoding.tree import DraftTree, DrawKind
from specbench.errors import ConfigError


class KChains(Topology):
    """K chains drawn with replacement, equal prefixes merged.

    A greedy draft would draw the same chain K times, so it draws it once.

    Args:
        count: K, the number of chains.
        draft_length: Longest chain.

    Raises:
        ConfigError: If a number is not positive or the chains hold too many tokens.
    """

    def __init__(self, count: int, draft_length: int) -> None:
        if count < 1 or draft_length < 1 or count * draft_length > MOST_NODES:
            raise ConfigError(
                f"{count} chains of {draft_length} tokens are not possible",
                f"there is at least one of one token, and at most {MOST_NODES} tokens in all",
                "Choose other numbers.",
            )
        self.nodes = count * draft_length
        self.needs = Topology.needs if count > 1 else frozenset()
        self._count = count
        self._draft_length = draft_length

    def grow(self, growth: Growth) -> DraftTree | None:
        """Draw the next token of every chain in one step, level after level."""
        count = 1 if growth.greedy else self._count
        laws = growth.expand_root().expand(count, -1)
        ids = torch.full((count,), -1, dtype=torch.int64, device=growth.device)
        length = min(growth.depth, self._draft_length)
        for depth in range(length):
            if depth:
                laws = growth.expand(ids)
            ids = growth.add(ids, growth.draw(laws))
        if growth.greedy:
            return growth.finish_places(DrawKind.POINT, complete(1, length))
        return growth.finish(DrawKind.WITH_REPLACEMENT)
