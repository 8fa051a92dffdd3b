"""The optimal verifier for the most probable tokens plus one sampled token.

Hu et al. 2025, "Towards Optimal Multi-draft Speculative Decoding" (arXiv 2502.18779): the draft
offers its n - 1 most probable tokens and one token x drawn from the rest, with law q'. The
acceptance p(top) + sum over the rest of min(p, q') is the best that any verifier can reach for
such drafts, and often more than the best for independent draws.
"""

from __future__ import annotations

import torch
from torch import Tensor

from specbench.decoding.tree import DrawKind
from specbench.decoding.verifiers.rules import Judgement, NodeRule, Offers, normalised, ratio


class GreedyDraft(NodeRule):
    """Accept x with probability min(1, p/q'), else draw from norm((p - q')+) and look again.

    The whole target law takes part in the test, so that a rejected x leaves the deterministic
    children their full share: where the token drawn after a rejection is one of them, the walk
    steps into it. Trying the deterministic children first and rejecting x afterwards is exact
    too, and accepts less.
    """

    kinds = frozenset({DrawKind.HYBRID})
    follows = True
    lenience = 1.0

    def judge(self, target: Tensor, offers: Offers, uniforms: Tensor) -> Judgement:
        """Judge the sampled child, the last offer of each node; see `NodeRule.judge`."""
        last = offers.valid.sum(1, keepdim=True) - 1
        token = offers.tokens.gather(1, last)
        draft = offers.law(0, target.dtype)
        chance = ratio(target.gather(1, token), draft.gather(1, token))
        hit = offers.choices.happens(chance, uniforms.gather(1, last))
        leftover = normalised((target - draft).clamp_(min=0), target)
        return Judgement(torch.where(hit, last, -1).squeeze(1), leftover)
