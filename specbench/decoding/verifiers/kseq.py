"""SpecTr's K-sequential selection over K independent draft sequences.

Sun et al. 2023, "SpecTr: Fast Speculative Decoding via Optimal Transport", Algorithm 2: with
b = sum min(q, p/g), where g in [1, K] solves 1 - (1 - b)^K = g b, each of the K candidates at a
node is accepted with probability min(1, p/(g q)). After K rejections the next token comes from
p - min(q, p/g) (1 - (1 - b)^K)/b. The acceptance is 1 - (1 - b)^K, at least 1 - 1/e of the best
possible. After a node is accepted only the sequences that go through it stay alive, so K shrinks
and g is solved again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from specbench.decoding.tree import DrawKind
from specbench.decoding.verifiers.rules import Judgement, NodeRule, Offers, normalised, ratio

_POINTS = 1023
_ROUNDS = 3
"""1024^3 = 2^30: the bracket of g ends at K / 2^30."""


class KSequential(NodeRule):
    """K-sequential selection. The K of a node is the number of draws that are recorded there.

    All draws at a node must come from one law; of several records the first one's law is taken.
    """

    kinds = frozenset({DrawKind.WITH_REPLACEMENT})
    follows = False
    lenience = 1.0

    def judge(self, target: Tensor, offers: Offers, uniforms: Tensor) -> Judgement:
        """Judge the draws of each node in one step; see `NodeRule.judge`."""
        draft = offers.law(0, target.dtype)
        draws = offers.valid.sum(1).double()
        g = division(target, draft, draws, offers.tokens.shape[1])[:, None]
        share = torch.minimum(draft.double(), target.double() / g)
        b = share.sum(-1, keepdim=True).clamp_(max=1)
        p, q = target.gather(1, offers.tokens), draft.gather(1, offers.tokens)
        chance = torch.where(offers.valid, ratio(p.double(), g * q), 0.0)
        hits = offers.choices.happens(chance, uniforms)
        accepted = torch.where(hits.any(1), hits.long().argmax(1), -1)
        emitted = ratio(1 - (1 - b) ** draws[:, None], b) * share
        leftover = (target.double() - emitted).clamp_(min=0)
        return Judgement(accepted, normalised(leftover, target.double()).to(target.dtype))


def division(target: Tensor, draft: Tensor, draws: Tensor, most: int) -> Tensor:
    """Return the g of each node, [M]: the root of 1 - (1 - b)^K = g b in [1, K].

    With tokens sorted by p/q, b at any g is a prefix sum of p over g plus a suffix sum of q, so
    the search does not go over the vocabulary again: each of its rounds tries many points of
    the bracket at once. The upper end of the last bracket is returned. There the residual is
    non-negative, and with a non-negative residual the rule is exact for any g.

    Args:
        target: [M, V].
        draft: [M, V].
        draws: [M] float64, K of each node.
        most: The largest K; where it is 1 there is nothing to solve.
    """
    if most == 1:
        return torch.ones_like(draws)
    order = ratio(target, draft).double().masked_fill_(draft <= 0, torch.inf).sort(-1)
    zero = torch.zeros_like(order.values[:, :1])
    p = torch.cat([zero, target.double().gather(1, order.indices).cumsum(1)], 1)
    q = torch.cat([zero, draft.double().gather(1, order.indices).cumsum(1)], 1)
    rest = q[:, -1:] - q
    grid = torch.arange(1, _POINTS + 1, dtype=torch.float64, device=target.device) / (_POINTS + 1)
    low, high = torch.ones_like(draws)[:, None], draws[:, None].clamp(min=1)
    exponent = draws[:, None]
    for _ in range(_ROUNDS):
        width = high - low
        points = low + width * grid
        index = torch.searchsorted(order.values, points)
        b = (p.gather(1, index) / points + rest.gather(1, index)).clamp_(max=1)
        above = 1 - (1 - b) ** exponent > points * b
        step = above.sum(1, keepdim=True)
        high = low + width * (step + 1) / (_POINTS + 1)
        low = low + width * step / (_POINTS + 1)
    return high.squeeze(1)
