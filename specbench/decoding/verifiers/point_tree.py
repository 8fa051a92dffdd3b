"""Tree rejection for children that were chosen and not drawn.

A chosen child is a point mass, so it is accepted with the probability that the target gives it
among the tokens not yet rejected. The law of the emitted token is that of drawing from the
target and looking whether a child matches (`sample_match`), and so is the acceptance: the
probability of the children together. EAGLE-2 and EAGLE-3 verify their top-k children this way
(Li et al. 2024, "EAGLE-2: Faster Inference of Language Models with Dynamic Draft Trees").
"""

from __future__ import annotations

import torch
from torch import Tensor

from specbench.decoding.tree import DrawKind
from specbench.decoding.verifiers.rules import Judgement, NodeRule, Offers


class PointTree(NodeRule):
    """Accept child c with probability r(c); a rejected child leaves the running law r.

    The children may have been found in any way that does not look at the target's draw: given
    the children, the emitted token has the target's law. A child that repeats an earlier
    sibling's token was judged with it and is skipped.

    Args:
        lenience: Divides the acceptance probability. Exact at 1; for lossy rules that fall back
            on this one where children are deterministic.
    """

    kinds = frozenset(DrawKind)
    follows = False

    def __init__(self, lenience: float = 1.0) -> None:
        self.lenience = lenience

    def judge(self, target: Tensor, offers: Offers, uniforms: Tensor) -> Judgement:
        """Judge all children of each node in one step; see `NodeRule.judge`.

        The running law after rejections is the target's divided by what they left of its mass,
        so the sequence of tests needs only a cumulative sum over the children.
        """
        tokens = offers.tokens
        fresh = fresh_tokens(tokens, offers.valid)
        p = torch.where(fresh, target.gather(1, tokens), 0.0).double()
        left = 1 - (p.cumsum(1) - p)
        chance = torch.where(p > 0, p / left.clamp_min(p), 0.0) / self.lenience
        hits = offers.choices.happens(chance, uniforms)
        accepted = torch.where(hits.any(1), hits.long().argmax(1), -1)
        tried = torch.where(offers.valid, tokens, tokens[:, :1])
        leftover = target.scatter(1, tried, 0.0)
        empty = leftover.sum(-1, keepdim=True) <= 0
        return Judgement(accepted, torch.where(empty, target, leftover))


def fresh_tokens(tokens: Tensor, valid: Tensor) -> Tensor:
    """Say which offers are valid and repeat no earlier sibling's token, [M, K] bool."""
    if tokens.shape[1] == 1:
        return valid
    repeated = (tokens[:, :, None] == tokens[:, None, :]).tril(-1).any(2)
    return valid & ~repeated
