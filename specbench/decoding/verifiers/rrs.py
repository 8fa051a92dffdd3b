"""Recursive rejection: several draws of one draft law, tried one after another.

Every draw is accepted with probability min(1, r/Q) for the running target law r, which starts at
the target's, and the running draft law Q. A rejection leaves r = norm((r - Q)+). Draws with
replacement keep Q; after a draw without replacement the rejected token leaves Q, and the residual
uses the Q that the token was drawn from.

Sources: Miao et al. 2024, "SpecInfer", Algorithm 2 (with replacement, several draft models);
Yang et al. 2024, "Multi-Candidate Speculative Decoding" (both); Chen et al. 2024, "Sequoia", and
Jeon et al. 2024, "Recursive Speculative Decoding" (without replacement).
"""

from __future__ import annotations

import torch
from torch import Tensor

from specbench.decoding.tree import DrawKind
from specbench.decoding.verifiers.rules import Judgement, NodeRule, Offers, normalised, ratio
from specbench.errors import ConfigError


class RecursiveRejection(NodeRule):
    """Recursive rejection sampling.

    Where the draft law has no mass left, further offers cannot have been drawn from it: they are
    passed over, and the next token comes from the residual. Offers of several draft models are
    tried model by model, each against its own law.

    Args:
        replacement: Whether the children were drawn with replacement.
        lenience: Multiplies the draft's law in the test and in the residual, in (0, 1]. 1 is
            exact; less accepts more and is lossy (see `lenient_sd`).
    """

    follows = False

    def __init__(self, replacement: bool, lenience: float = 1.0) -> None:
        check_lenience(lenience)
        kind = DrawKind.WITH_REPLACEMENT if replacement else DrawKind.WITHOUT_REPLACEMENT
        self.kinds = frozenset({kind})
        self.lenience = lenience
        self._replacement = replacement

    def judge(self, target: Tensor, offers: Offers, uniforms: Tensor) -> Judgement:
        """Judge the k-th offer of all nodes together, for each k; see `NodeRule.judge`."""
        running, draft = target, offers.law(0, target.dtype)
        accepted = torch.full_like(offers.tokens[:, 0], -1)
        undecided = torch.ones_like(offers.valid[:, 0])
        count = offers.tokens.shape[1]
        for index in range(count):
            if index and offers.mixed:
                changed = offers.records[:, index] != offers.records[:, index - 1]
                draft = torch.where(changed[:, None], offers.law(index, target.dtype), draft)
            token = offers.tokens[:, index : index + 1]
            q = draft.gather(1, token) * self.lenience
            chance = ratio(running.gather(1, token), q).squeeze(1)
            tried = undecided & offers.valid[:, index] & (q.squeeze(1) > 0)
            hit = offers.choices.happens(torch.where(tried, chance, 0.0), uniforms[:, index])
            accepted = torch.where(hit, index, accepted)
            undecided = undecided & ~hit
            if target.device.type == "cpu" and not undecided.any():
                break
            reduced = (running - draft * self.lenience).clamp_(min=0)
            rejected = (tried & ~hit)[:, None]
            running = torch.where(rejected, normalised(reduced, running), running)
            if not self._replacement and index + 1 < count:
                draft = without(draft, token)
        return Judgement(accepted, running)


def without(law: Tensor, tokens: Tensor) -> Tensor:
    """Return laws [M, V] without tokens [M, 1], renormalised; all zero where nothing is left."""
    left = law.scatter(1, tokens, 0.0)
    return normalised(left, torch.zeros_like(left))


def check_lenience(lenience: float) -> None:
    """Refuse a lenience outside (0, 1].

    Raises:
        ConfigError: With the allowed range.
    """
    if not 0 < lenience <= 1:
        raise ConfigError(
            f"lenience is {lenience:g}",
            "It multiplies the draft's probabilities: 1 is exact, less accepts more",
            "Choose a lenience above 0 and at most 1.",
        )
