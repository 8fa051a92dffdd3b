"""A tree of width one."""

from __future__ import annotations

import torch
from torch import Tensor

from specbench.decoding.growth import Growth
from specbench.decoding.topologies.base import Topology
from specbench.decoding.tree import DraftTree, DrawKind, Draws


class Chain(Topology):
    """Every node has one child; the length policy alone decides where the chain ends.

    A policy that does not keep the last token drops the token whose law made it stop. The law
    is looked at before the token is drawn, so the choice depends on the law alone. A chain ends
    with a stop token too, as the drafts of assisted generation in transformers and of SVIP do.
    """

    several = False
    needs: frozenset[str] = frozenset()

    def grow(self, growth: Growth) -> DraftTree | None:
        """Draw token after token; no mask, and one transfer for each only if the policy asks."""
        length = growth.length
        tokens: list[Tensor] = []
        laws: list[Tensor] = []
        logits = growth.feed_root()
        for uniform in growth.uniforms():
            law = None if growth.greedy and not length.watches else growth.law(logits)
            judged = growth.watched(logits, law)
            if growth.unsure(judged):
                break
            token = growth.token(logits, law, uniform)
            tokens.append(token)
            if law is not None:
                laws.append(law)
            ends, _ = growth.look(token, judged)
            if ends or len(tokens) == growth.depth:
                break
            logits = growth.feed_next(token)
        if not tokens:
            return None
        chain = torch.stack(tokens, dim=1)
        if growth.greedy:
            return DraftTree.chain(chain, Draws(DrawKind.POINT))
        parents = tuple(range(-1, len(tokens) - 1))
        law = torch.stack(laws, dim=1)
        return DraftTree.chain(chain, Draws(DrawKind.WITH_REPLACEMENT, parents, law))
