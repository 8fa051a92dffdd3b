"""Scored candidates of a deterministic tree: the best of them are fed, and the best are kept.

A candidate is a likely child of a node that was fed. It becomes a node when it is fed itself, or
when it is among the best at the end. No candidate's score is above its parent's, and parents
stand before their children, so that the best candidates, the earlier first where scores are
equal, make a tree whose parents are all in it. Nothing is emitted behind a stop token, so that
what would stand below one is the worst of all.

Shapes: m candidates, n nodes fed at once, k children of each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from specbench.decoding.growth import Growth
from specbench.decoding.tree import DraftTree, DrawKind


class Candidates:
    """The most probable children of the root, and of every node that is fed.

    Args:
        growth: The tree that grows.
        children: k, how many children of a node become candidates.
        discount: Added to the score for every step of depth; not positive.
        warped: Whether children are ranked by the law that a sampling draft would draw from, and
            not by the draft's softmax at temperature 1 with nothing cut off.

    Attributes:
        scores: [m] cumulative log-probability of the draft and discounts, float64.
    """

    def __init__(
        self, growth: Growth, children: int, discount: float = 0.0, warped: bool = False
    ) -> None:
        self._growth = growth
        self._rank = growth.expand if warped else growth.rank
        self._children = children
        self._discount = discount
        device = growth.device
        self.scores = torch.zeros(0, dtype=torch.float64, device=device)
        self._parents = torch.zeros(0, dtype=torch.int64, device=device)
        self._tokens = self._parents
        self._ids = self._parents
        root = torch.full((1,), -1, dtype=torch.int64, device=device)
        start = torch.zeros(1, dtype=torch.float64, device=device)
        self._offer(root, growth.expand_root() if warped else growth.rank_root(), start)

    @property
    def count(self) -> int:
        """Number of candidates so far."""
        return len(self.scores)

    def feed(self, chosen: Tensor) -> None:
        """Feed candidates in one forward; their children become candidates.

        Args:
            chosen: [n] indices of candidates that were not fed before.
        """
        growth = self._growth
        ids = growth.add(self._parents[chosen], self._tokens[chosen])
        self._ids[chosen] = ids
        laws, scores = self._rank(ids), self.scores[chosen]
        ended = growth.ended(ids)
        self._offer(ids, laws, scores if ended is None else scores.masked_fill(ended, -torch.inf))

    def unfed(self) -> Tensor:
        """Return which candidates were not fed, [m] bool."""
        return self._ids < 0

    def best(self, count: int, first: int = 0) -> Tensor:
        """Return the indices of the best candidates from index `first` on, best first, [count].

        Of equal scores the earlier candidate is better.
        """
        order = self.scores[first:].sort(descending=True, stable=True).indices
        return order[:count] + first

    def finish(self, count: int) -> DraftTree | None:
        """Return the tree of the `count` best candidates; impossible ones are left out."""
        growth = self._growth
        kept = self.best(count)
        added = growth.add(self._parents[kept], self._tokens[kept])
        fed = self._ids[kept]
        keep = torch.where(fed >= 0, fed, added)
        possible = self.scores[kept].isfinite()
        return growth.finish(DrawKind.POINT, torch.where(possible, keep, keep[0]))

    def _offer(self, ids: Tensor, laws: Tensor, scores: Tensor) -> None:
        likely = laws.topk(min(self._children, laws.shape[-1]), dim=-1)
        steps = likely.values.double().log().clamp_(max=0.0) + self._discount
        fresh = torch.full((steps.numel(),), -1, dtype=torch.int64, device=ids.device)
        self.scores = torch.cat([self.scores, (scores[:, None] + steps).flatten()])
        self._parents = torch.cat([self._parents, ids.repeat_interleave(steps.shape[1])])
        self._tokens = torch.cat([self._tokens, likely.indices.flatten()])
        self._ids = torch.cat([self._ids, fresh])
