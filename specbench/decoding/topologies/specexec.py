"""SpecExec's tree: the likeliest continuations of all, found best-first.

Svirschevski et al. 2024, "SpecExec: Massively Parallel Speculative Decoding for Interactive LLM
Inference on Consumer Devices", section 3; read in the released `specdec/specexec.py` and
`run_exp.py` (beam 128, 32 children, 32 iterations, decay 0.95, budgets from 16 to 4096). The
target's own draw at each node is then looked up in the tree, which is `SampleMatch`.
"""

from __future__ import annotations

import math

import torch

from specbench.decoding.growth import Growth
from specbench.decoding.topologies.base import Topology
from specbench.decoding.topologies.candidates import Candidates
from specbench.decoding.topologies.static_tree import MOST_NODES
from specbench.decoding.tree import DraftTree
from specbench.errors import ConfigError

_FED = 8


class SpecExec(Topology):
    """Feed the best candidates, some at a time, until no new one could be among the kept.

    The score of a node is the log-probability of its path plus log(decay) for each step of depth:
    a draft is the less reliable the further it looks ahead. As in the released `get_next_beams`,
    the probabilities are the softmax of the draft's logits as they are, at every temperature.

    A candidate is fed only while its best possible child would still be among the `nodes` best;
    the released code also feeds candidates whose children cannot be. One look at the device for
    each forward. While the tree is small, nearly every candidate looks promising: a beam of about
    a quarter of the budget feeds half as many nodes as the published one for the same trees. No
    more than eight times the budget is fed.

    Args:
        nodes: Nodes of the finished tree, the budget of the paper.
        beam: Most nodes that are fed at once.
        children: Most children of a node that are considered.
        decay: Factor of the value for each step of depth, in (0, 1].

    Raises:
        ConfigError: If a value is out of range.
    """

    def __init__(
        self, nodes: int = 64, beam: int = 16, children: int = 32, decay: float = 0.95
    ) -> None:
        if not 1 <= nodes <= MOST_NODES:
            raise ConfigError(
                f"A SpecExec tree of {nodes} nodes is not possible",
                "The target scores all of them in one forward",
                f"Choose 1 to {MOST_NODES}.",
            )
        if beam < 1 or children < 1 or not 0 < decay <= 1:
            raise ConfigError(
                f"SpecExec with beam {beam}, {children} children and decay {decay:g} "
                "is not possible",
                "A forward feeds at least one node, and depth adds no value",
                "Choose beam and children of 1 or more, and decay in (0, 1].",
            )
        self.nodes = (1 + _FED) * nodes
        self._kept = nodes
        self._beam = beam
        self._children = children
        self._discount = math.log(decay)

    def grow(self, growth: Growth) -> DraftTree | None:
        """Feed and rank in turns; the tree deepens by at most one level in each."""
        candidates = Candidates(growth, self._children, self._discount)
        room = _FED * self._kept
        for _ in range(growth.depth - 1):
            best = candidates.best(self._kept)
            scores = candidates.scores[best]
            promising = candidates.unfed()[best] & scores.isfinite()
            if best.shape[0] == self._kept:
                promising &= scores + self._discount > scores[-1]
            chosen = best[torch.nonzero(promising).squeeze(1)[: min(self._beam, room)]]
            if chosen.shape[0] == 0:
                break
            room -= chosen.shape[0]
            candidates.feed(chosen)
        return candidates.finish(self._kept)
