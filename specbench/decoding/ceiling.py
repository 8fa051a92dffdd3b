"""The best acceptance that any verifier could reach for drafts drawn as they were.

Verification at a node couples the target's law p with the law of the drafts so that the emitted
token is among the drafts as often as possible: an optimal transport problem. Its dual (Hu et al.
2025, "Towards Optimal Multi-draft Speculative Decoding", arXiv 2502.18779) is a minimum over sets
of tokens,

    best acceptance = 1 + min over S of [ p(S) - Pr(all drafts are in S) ],

and the minimiser is a prefix of the tokens sorted by q/p in descending order. Reported beside
every multi-draft run as the ceiling that its verifier could have reached.

Shapes: V vocabulary, T points in time. Everything is computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from specbench.decoding.tree import DrawKind
from specbench.decoding.verifiers.base import Scored, Verdict

_STEP = 0.4
_EARLIEST = -8.0
_SLOWEST = 1e-9
_SURE = 40.0


class Drafts(NamedTuple):
    """What one draft model drew at a node.

    Attributes:
        kind: How.
        law: [V] the law of the draws, or of the one sampled child for kind HYBRID; None for
            kinds POINT and NONE.
        tokens: The drawn tokens in draw order. Only their number matters where all are sampled.
    """

    kind: DrawKind
    law: Tensor | None
    tokens: Sequence[int]


def optimal_acceptance(target: Tensor, drafts: Sequence[Drafts]) -> float:
    """Return the highest probability with which an exact verifier can emit a drafted token.

    For drafts of several models the minimum is taken over prefixes sorted by their mean law: a
    ceiling still, which may lie above the optimum.

    Args:
        target: [V] the target's law at the node.
        drafts: What each draft model drew there.
    """
    p = target.double()
    kind = drafts[0].kind
    if kind in (DrawKind.POINT, DrawKind.NONE):
        return float(p[sorted({token for draft in drafts for token in draft.tokens})].sum())
    laws = [draft.law.double() for draft in drafts if draft.law is not None]
    assert len(laws) == len(drafts)
    if kind is DrawKind.HYBRID:
        assert len(drafts) == 1
        top = torch.tensor(list(drafts[0].tokens[:-1]), dtype=torch.int64, device=p.device)
        shared = torch.minimum(p, laws[0]).index_fill(0, top, 0.0)
        return float(p[top].sum() + shared.sum())
    mean = torch.stack(laws).mean(0)
    order = (mean / p.clamp_min(torch.finfo(p.dtype).tiny)).sort(descending=True, stable=True)
    kept = order.indices[: int((mean > 0).sum())]
    within = torch.ones_like(kept, dtype=p.dtype)
    for draft, law in zip(drafts, laws, strict=True):
        count = len(draft.tokens)
        if kind is DrawKind.WITH_REPLACEMENT:
            within = within * (law[kept].cumsum(0) / law.sum()).clamp(max=1) ** count
        else:
            within = within * all_within(law[kept] / law.sum(), count)
    return 1 + min(0.0, float((p[kept].cumsum(0) - within).min()))


def all_within(law: Tensor, count: int) -> Tensor:
    """Return the probability that draws without replacement all fall into each prefix.

    Drawing without replacement is a race: token i arrives after an exponential time of rate
    q_i, and the first `count` arrivals are the draws. All fall into a prefix exactly when the
    first arrival from outside, of rate 1 - q(prefix), comes after `count` arrivals from inside.
    The number of arrivals by time t is a sum of independent events, whose law follows from
    cumulative sums over the prefix; the integral over t is taken by the trapezoid rule in
    log t, which converges exponentially here. One and two draws have closed forms.

    Args:
        law: [V] the draft's law, in the order whose prefixes are wanted.
        count: Number of draws; more than the law's support counts as the support.

    Returns:
        [V] probabilities, one for the prefix that ends at each token.
    """
    count = min(count, int((law > 0).sum()))
    inside = law.cumsum(0)
    if count <= 1:
        return inside.clamp(max=1) ** count
    others = (1 - law).clamp_min(1e-300)
    if count == 2:
        first, again = (law / others).cumsum(0), (law * law / others).cumsum(0)
        return (inside * first - again).clamp(0, 1)
    rate = (1 - inside).clamp_min(_SLOWEST)
    latest = math.log(_SURE / float(rate.min()))
    steps = torch.arange(_EARLIEST, latest, _STEP, dtype=law.dtype, device=law.device)
    total = torch.zeros_like(law)
    for block in steps.exp().split(16):
        time = block[:, None]
        arrived = -torch.expm1(_fewer_arrivals(time * law, count))
        total += (time * rate * torch.exp(-rate * time) * arrived).sum(0)
    done = (1 - inside) <= _SLOWEST
    return torch.where(done & (inside.new_ones(len(law)).cumsum(0) >= count), 1.0, total * _STEP)


def _fewer_arrivals(exponents: Tensor, count: int) -> Tensor:
    """Return the log-probability of fewer than `count` arrivals in each prefix, [T, V].

    Args:
        exponents: [T, V] rate times time of every token. Beyond 40 an arrival is sure, and the
            exponent is held there to keep the logarithms exact.
        count: At least 1.
    """
    exponents = exponents.clamp(1e-300, _SURE)
    odds = torch.expm1(exponents).log()
    none = exponents.cumsum(1)
    term = torch.zeros_like(odds)
    terms = [term]
    for _ in range(count - 1):
        before = torch.nn.functional.pad(term[:, :-1], (1, 0), value=-torch.inf)
        if len(terms) == 1:
            before = torch.zeros_like(odds)
        term = (odds + before).logcumsumexp(1)
        terms.append(term)
    return (torch.stack(terms).logsumexp(0) - none).clamp(max=0)


class CeilingProbe:
    """Adds up, over the visited nodes of a run, what was accepted and what could have been.

    To be set as the probe of a decoder in an untimed replay.

    Attributes:
        visits: Visited nodes at which at least one child was offered.
        accepted: At how many of them a child was accepted.
        optimal: Sum of the best possible acceptance probabilities there.
    """

    def __init__(self) -> None:
        self.visits = 0
        self.accepted = 0
        self.optimal = 0.0

    def __call__(self, scored: Scored, verdict: Verdict) -> None:
        """Add the nodes that one round visited; for rounds of one row."""
        tree, draws = scored.tree, scored.tree.draws
        tokens: list[int] | None = None
        for step, entry in enumerate((0, *(node + 1 for node in verdict.path))):
            if step and verdict.tokens[step - 1] in scored.stops:
                break
            offers = tree.offers[entry]
            if not offers:
                continue
            tokens = tree.tokens[0].tolist() if tokens is None else tokens
            drawn: dict[int, list[int]] = {}
            for offer in offers:
                drawn.setdefault(offer.record, []).append(tokens[offer.node])
            drafts = [
                Drafts(draws.kind, None if draws.law is None else draws.law[0, record], drawn_here)
                for record, drawn_here in drawn.items()
            ]
            seen = None if scored.seen is None else scored.seen[0, entry]
            target = scored.law.probabilities(scored.logits[0, entry], seen)
            self.visits += 1
            self.accepted += step < len(verdict.path)
            self.optimal += optimal_acceptance(target, drafts)
