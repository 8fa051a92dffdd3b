"""Typical acceptance: keep what the target finds probable enough for its own uncertainty.

Cai et al. 2024, "Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding
Heads", section 3.3.1; FasterDecoding/Medusa, medusa/model/utils.py. A child passes where
p > min(epsilon, delta exp(-H(p))). Every passing child is followed and the longest path is kept;
of equally long ones the most probable.
"""

from __future__ import annotations

import torch

from specbench.decoding.verifiers.base import Scored, Verdict, Verifier
from specbench.decoding.verifiers.longest_path import longest_path
from specbench.decoding.verifiers.sample_match import match
from specbench.errors import ConfigError
from specbench.transfer import to_device


class TypicalAccept(Verifier):
    """Lossy and deterministic: given the draft, no random number is used.

    The token after the path is the target's argmax, which roots the next draft, so that every
    round keeps at least one token of the target's own; so is the first token of a request, as in
    the release (`generate_candidates`, which is called with `fast`). At temperature 0 the release
    matches the argmax, and so does this. The entropy is exact; the release adds 1e-5 inside its
    logarithm.

    Args:
        epsilon: The highest threshold, in (0, 1]. At 1 nothing but the argmax is ever emitted.
        delta: Weight of exp(-H) in the threshold, above 0. The authors recommend the square root
            of epsilon.
    """

    greedy_start = True

    def __init__(self, epsilon: float, delta: float) -> None:
        if not (0 < epsilon <= 1 and delta > 0):
            raise ConfigError(
                f"epsilon is {epsilon:g} and delta is {delta:g}",
                "A token is accepted where p > min(epsilon, delta exp(-H))",
                "Choose epsilon above 0 and at most 1, and delta above 0.",
            )
        self._epsilon = epsilon
        self._delta = delta

    def verify(self, scored: Scored) -> list[Verdict]:
        """Return the longest typical path and the argmax after it, for each row."""
        tree = scored.tree
        if scored.law.greedy:
            return match(scored)
        target = scored.law.probabilities(scored.logits, scored.seen).double()
        following = scored.law.argmax(scored.logits, scored.seen)
        entropy = torch.special.entr(target).sum(-1)
        thresholds = (self._delta * torch.exp(-entropy)).clamp_(max=self._epsilon)
        parents = to_device([parent + 1 for parent in tree.parents], target.device, torch.int64)
        p = target[:, parents].gather(-1, tree.tokens[..., None]).squeeze(-1)
        passed = p > thresholds[:, parents]
        table = torch.cat([following.double(), passed.double(), p.log(), tree.tokens.double()], 1)
        size = tree.size
        return [
            longest_path(
                tree,
                passing=row[size + 1 : 2 * size + 1],
                scores=row[2 * size + 1 : 3 * size + 1],
                following=[int(token) for token in row[: size + 1]],
                tokens=[int(token) for token in row[3 * size + 1 :]],
            )
            for row in scored.read(table)
        ]
