"""Speculative sampling with lenience: accept with probability min(1, p / (l q)).

Leviathan, Kalman, Matias 2023, "Fast Inference from Transformers via Speculative Decoding",
appendix A.5 (lenience). The draft's law is multiplied by l in the test and in the residual
norm((p - l q)+), so that no token is emitted with probability above p / l.
"""

from __future__ import annotations

from torch import Tensor

from specbench.decoding.verifiers.base import Scored, Verdict
from specbench.decoding.verifiers.relaxed_match import NearArgmax
from specbench.decoding.verifiers.rrs import check_lenience
from specbench.decoding.verifiers.token_sd import TokenSD, chain_law


class LenientSD(TokenSD):
    """Lossy speculative sampling on a chain.

    At temperature 0 a draft token x is kept where p(x) >= l max p, p being the target's softmax at
    temperature 1; the first other token is replaced by the argmax. The appendix prints that test
    with the sign turned around, which would keep the least likely tokens; the acceptance that its
    table 5 reports needs this one.

    Args:
        lenience: l in (0, 1]. 1 is speculative sampling, token for token; the smaller, the more
            is accepted and the further the output may stray from the target's law.
    """

    def __init__(self, lenience: float) -> None:
        check_lenience(lenience)
        self._lenience = lenience
        self._at_zero = NearArgmax(lenience)

    def verify(self, scored: Scored) -> list[Verdict]:
        """Return the accepted prefix and the next token of each row's chain."""
        if scored.law.greedy and scored.tree.size and self._lenience < 1:
            return self._at_zero.verify(scored)
        return super().verify(scored)

    def draft_law(self, scored: Scored, target: Tensor) -> Tensor:
        """Return the draft's law times the lenience, [B, N, V]."""
        return chain_law(scored, target) * self._lenience
