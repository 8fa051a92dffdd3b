"""Speculative sampling: accept a draft token with probability min(1, p / q).

Leviathan, Kalman, Matias 2023, "Fast Inference from Transformers via Speculative Decoding";
Chen et al. 2023, "Accelerating Large Language Model Decoding with Speculative Sampling". After
the first rejection the next token is drawn from norm((p - q)+); after full acceptance from p.
Exact: the emitted law is the target's for any draft law q that the tokens were drawn from.

The whole chain is judged on the device in a fixed number of kernels with one transfer at the
end. The acceptance test, the residual and the draft use independent random numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from specbench.decoding.tree import DrawKind
from specbench.decoding.verifiers.base import Scored, Verdict, Verifier, require_chain
from specbench.decoding.verifiers.sample_match import match

SAMPLED = (DrawKind.WITH_REPLACEMENT, DrawKind.WITHOUT_REPLACEMENT)


class TokenSD(Verifier):
    """Token-level speculative sampling on a chain.

    A chain whose tokens have no sampling law (retrieved, copied, chosen) is a point mass: its
    tokens are accepted with probability p, and a rejected token leaves the residual.
    """

    def verify(self, scored: Scored) -> list[Verdict]:
        """Return the accepted prefix and the next token of each row's chain."""
        tree = scored.tree
        require_chain(tree, type(self).__name__)
        if scored.law.greedy or tree.size == 0:
            return match(scored)
        target = scored.law.probabilities(scored.logits, scored.seen)
        draft = self.draft_law(scored, target)
        accepted = self.accepted(scored, target, draft)
        leftover = self.leftover(target, draft, accepted)
        uniforms = scored.chain_numbers.following.gather(1, accepted[:, None])
        following = scored.choices.draw(leftover, uniforms.squeeze(1))
        rows = scored.read(torch.cat([accepted[:, None], following[:, None], tree.tokens], 1))
        return [
            Verdict(tuple(range(count)), token, (*tokens[:count], token), tokens)
            for count, token, *tokens in rows
        ]

    def draft_law(self, scored: Scored, target: Tensor) -> Tensor:
        """Return what the target's law is compared with at each token, [B, N, V]."""
        return chain_law(scored, target)

    def accepted(self, scored: Scored, target: Tensor, draft: Tensor) -> Tensor:
        """Return the number of accepted tokens in each row, [B]; see `accepted_prefix`."""
        return accepted_prefix(scored, target, draft)

    def leftover(self, target: Tensor, draft: Tensor, accepted: Tensor) -> Tensor:
        """Return the law of the token after the accepted prefix, [B, V]; see `residual`."""
        return residual(target, draft, accepted)


def chain_law(scored: Scored, target: Tensor) -> Tensor:
    """Return the law that each token of a chain was drawn from, [B, N, V]."""
    draws, tokens = scored.tree.draws, scored.tree.tokens
    if draws.kind in SAMPLED:
        assert draws.law is not None
        return draws.law.to(target.dtype)
    point = torch.zeros_like(target[:, : tokens.shape[1]])
    return point.scatter_(-1, tokens[..., None], 1.0)


def accepted_prefix(
    scored: Scored, target: Tensor, draft: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Test every token of a chain and count the accepted ones before the first rejection.

    Args:
        scored: The chain and its random numbers.
        target: [B, N + 1, V] target law at the root and at each token.
        draft: [B, N, V] law that each token was drawn from.
        weights: [N] factors of p / q; None for speculative sampling.

    Returns:
        Number of accepted tokens in each row, [B].
    """
    tokens = scored.tree.tokens
    count = tokens.shape[1]
    index = tokens[..., None]
    p = target[:, :count].gather(-1, index).squeeze(-1)
    q = draft.gather(-1, index).squeeze(-1)
    chances = p / q if weights is None else p / q * weights
    accept = scored.choices.happens(chances, scored.chain_numbers.tests)
    return accept.long().cumprod(1).sum(1)


def residual(target: Tensor, draft: Tensor, accepted: Tensor) -> Tensor:
    """Return the law of the token after the accepted prefix, up to a factor, [B, V].

    norm((p - q)+) at the first rejected position, p itself after full acceptance. Where p and q
    agree to the last bit the residual has no mass and p stands in: a rejection there has
    probability zero.
    """
    rows = torch.arange(target.shape[0], device=target.device)
    p = target[rows, accepted]
    full = accepted == draft.shape[1]
    q = draft[rows, accepted.clamp(max=draft.shape[1] - 1)].masked_fill(full[:, None], 0.0)
    leftover = (p - q).clamp_(min=0)
    return torch.where(leftover.sum(-1, keepdim=True) > 0, leftover, p)
