"""Block verification: judge a chain as a whole.

Sun et al. 2024, "Block Verification Accelerates Speculative Decoding" (arXiv 2403.10444),
Algorithm 2. The target's law relative to the draft's is carried along the chain,
w_i = min(1, w_(i-1) p_i(x_i)/q_i(x_i)), so that a token that was accepted too readily pays for a
later one. Position i passes with probability h_i = S_i / (S_i + 1 - w_i), where
S_i = sum (w_i p_(i+1) - q_(i+1))+, and the last with probability w; the accepted prefix ends at
the last position that passes, not before the first that fails. The next token comes from
norm((w p - q)+) at the end of the prefix, and from p after full acceptance.

Exact, and never accepts less in expectation than speculative sampling.
"""

from __future__ import annotations

import torch
from torch import Tensor

from specbench.decoding.request import among
from specbench.decoding.verifiers.base import Scored, Verdict, Verifier, require_chain
from specbench.decoding.verifiers.sample_match import match
from specbench.decoding.verifiers.token_sd import chain_law


class BlockVerify(Verifier):
    """Block verification of a chain, vectorised over its positions, with one transfer.

    A chain whose tokens have no sampling law is a point mass, as in speculative sampling. One that
    goes on behind a stop token is judged as if it ended there.
    """

    def verify(self, scored: Scored) -> list[Verdict]:
        """Return the accepted prefix and the next token of each row's chain."""
        tree = scored.tree
        require_chain(tree, type(self).__name__)
        if scored.law.greedy or tree.size == 0:
            return match(scored)
        target = scored.law.probabilities(scored.logits, scored.seen)
        draft = chain_law(scored, target)
        weights = joint_ratios(target, draft, tree.tokens)
        leftovers = (weights[:, :-1, None] * target[:, :-1] - draft).clamp_(min=0)
        chances = pass_chances(weights, leftovers.sum(-1))
        if scored.stops:
            ends = among(tree.tokens, scored.stops)
            chances = torch.where(ends, weights[:, 1:], chances)
            chances = chances.masked_fill(ends.cumsum(1) > ends.long(), 0.0)
        passed = scored.choices.happens(chances, scored.chain_numbers.tests)
        accepted = accepted_length(passed)
        rows = torch.arange(len(accepted), device=accepted.device)
        leftover = torch.cat([leftovers, target[:, -1:]], 1)[rows, accepted]
        empty = leftover.sum(-1, keepdim=True) <= 0
        leftover = torch.where(empty, target[rows, accepted], leftover)
        following = scored.choices.draw(leftover, scored.chain_numbers.following[rows, accepted])
        packed = scored.read(torch.cat([accepted[:, None], following[:, None], tree.tokens], 1))
        return [
            Verdict(tuple(range(length)), token, (*tokens[:length], token), tokens)
            for length, token, *tokens in packed
        ]


def joint_ratios(target: Tensor, draft: Tensor, tokens: Tensor) -> Tensor:
    """Return w_0 = 1 and w_i for each token of the chain, [B, N + 1], in float64.

    In logarithms, w is a sum that is held down at zero, which is the sum minus its running
    maximum: no loop over positions.
    """
    index = tokens[..., None]
    p = target[:, :-1].gather(-1, index).squeeze(-1).double()
    q = draft.gather(-1, index).squeeze(-1).double()
    sums = (p / q).log().cumsum(1)
    weights = (sums - sums.cummax(1).values.clamp_(min=0)).exp()
    return torch.nn.functional.pad(weights, (1, 0), value=1.0)


def pass_chances(weights: Tensor, masses: Tensor) -> Tensor:
    """Return h_1 ... h_N, [B, N].

    Args:
        weights: [B, N + 1] joint ratios w_0 ... w_N.
        masses: [B, N] residual masses S_0 ... S_(N-1).
    """
    mass, missing = masses[:, 1:], 1 - weights[:, 1:-1]
    whole = mass + missing
    inner = torch.where(whole > 0, mass / whole, 1.0)
    return torch.cat([inner, weights[:, -1:]], 1)


def accepted_length(passed: Tensor) -> Tensor:
    """Return the last position that passed, counted from 1, and 0 where none did, [B]."""
    positions = torch.arange(1, passed.shape[1] + 1, device=passed.device)
    return (passed * positions).amax(1)
