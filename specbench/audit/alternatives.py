"""The laws of known errors, each the best witness against itself.

Speculative decoding fails in a few ways, and for each of them the law of the emitted token is
known: it follows from the target's law p and the law q that the drafts were drawn from. The
ratio of that law to p, multiplied along a text, is the likelihood ratio of the error against the
correct decoder. No test of p against one law at the same false-alarm rate is stronger than this
ratio (Neyman and Pearson 1933); under p its mean is at most 1, whatever came before, so that it
is a bet like those of `specbench.audit.sampled`. Each law is mixed with p in several shares,
because not every token comes from a draft.

Shapes: T positions, V vocabulary, A laws, W shares.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SHARES = (0.95, 0.5, 0.2, 0.05)
"""Shares of tokens that a wrong law is taken to give."""

_CHANCES = (1.1, 1.3, 2.0, 0.7)

LAWS = (
    "the target's law drawn from in place of the residual",
    "the draft's law drawn from in place of the residual",
    *(f"drafts accepted with {chance:g} times the chance" for chance in _CHANCES),
    "drafts tested against the draft's law one position earlier",
    "drafts accepted without a test",
    "the law one position earlier",
    "a sharper law (power 1.25)",
    "a flatter law (power 0.8)",
)
"""What each law is that of."""

PLANTED = {
    "the target's law in place of the residual": 0,
    "drafts accepted with 1.1 times the chance": 2,
    "drafts accepted with 1.3 times the chance": 3,
    "drafts accepted with twice the chance": 4,
}
"""Errors that the power of a test is stated for, and their places in `LAWS`."""

PLANTED_SHARE = 0.75
"""Share of tokens behind the first that a planted error gives: not every token is drafted."""


class Context(NamedTuple):
    """What is known at every position of a text before its token.

    Attributes:
        target: [T, V] target's law, float64, normalised.
        draft: [T, V] draft's law under the same cuts; None where there is no draft model.
    """

    target: Tensor
    draft: Tensor | None = None

    @property
    def proposal(self) -> Tensor:
        """The law that drafts are taken to come from, [T, V].

        Without a draft model the target's own one position earlier: what parallel decoding
        drafts from is the target's law behind something older.
        """
        return earlier(self.target) if self.draft is None else self.draft


def earlier(laws: Tensor) -> Tensor:
    """Return the laws one position earlier, [T, V]; the first stands twice."""
    return torch.cat([laws[:1], laws[:-1]])


def laws_of(context: Context) -> Tensor:
    """Return the law of the emitted token under every error, [A, T, V].

    The first token of a text is drawn before there is a draft: its law is the target's.
    """
    p, q = context.target, context.proposal
    kept = torch.minimum(p, q)
    missing = 1 - kept.sum(-1, keepdim=True)
    rest = _normed(p - q, p)
    laws = [kept + missing * p, kept + missing * q]
    for chance in _CHANCES:
        accepted = torch.minimum(chance * p, q)
        laws.append(accepted + (1 - accepted.sum(-1, keepdim=True)) * rest)
    stale = earlier(q)
    passed = q * torch.where(stale > 0, p / stale, torch.ones_like(p)).clamp(max=1)
    laws.append(passed + (1 - passed.sum(-1, keepdim=True)) * _normed(p - stale, p))
    laws += [q, earlier(p), _normed(p**1.25, p), _normed(p**0.8, p)]
    result = torch.stack(laws)
    result[:, 0] = p[0]
    return result


def log_ratios(laws: Tensor, target: Tensor, drawn: Tensor) -> Tensor:
    """Return the logarithm of every likelihood ratio at the drawn tokens, [T, A, W].

    Args:
        laws: [A, T, V], from `laws_of`.
        target: [T, V] target's law.
        drawn: [T, 1] tokens. One that the target's law forbids says nothing here; it is judged
            by itself.
    """
    p = target.gather(1, drawn)
    wrong = laws.gather(2, drawn.expand(len(laws), -1, -1))[..., 0].T
    ratio = torch.where(p > 0, wrong / p, torch.ones_like(wrong)).cpu()
    shares = torch.tensor(SHARES, dtype=ratio.dtype)
    return torch.log1p(shares * (ratio - 1)[..., None])


def _normed(weights: Tensor, instead: Tensor) -> Tensor:
    """Return weights cut at zero as a law, [T, V]; another law where nothing is left."""
    weights = weights.clamp(min=0)
    total = weights.sum(-1, keepdim=True)
    return torch.where(total > 0, weights / total, instead)
