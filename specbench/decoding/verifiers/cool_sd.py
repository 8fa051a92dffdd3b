"""Cool-SD: speculative sampling that is relaxed most at the first tokens of a chain.

Li et al. 2026, "Annealed Relaxation of Speculative Decoding for Faster Autoregressive Image
Generation" (AAAI 2026, arXiv 2601.09212): token i = 1, ..., L of a chain is accepted with
probability min(1, w_i p/q), where w_i = delta exp(-nu i - mu), and a rejected one is replaced by a
draw from norm((p - q f)+), f being the acceptance probability as a function of the token. Of all
residuals it leaves the output at that token nearest to the target's law. It is the residual of
speculative sampling wherever w_i >= 1; where w_i <= 1 the token has the target's law exactly.

Its authors have released no code: github.com/xingyaoL/COOL-SD, last changed in January 2026 and
looked at again in November, holds a README alone. The formulas and nu = 0.7 were read in a summary,
github.com/zhaoyang97/Paper-Notes-en, docs/AAAI2026/image_generation; it does not say what mu is,
and of the paper's text no more than the introduction could be read. Another summary calls the
schedule normalised by its average, with late weights that may fall below one; so mu, where it is
not given, lets the weights of a whole draft average delta.

Shapes: B rows, L draft tokens, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from specbench.decoding.ranges import check_number, check_whole
from specbench.decoding.verifiers.base import Scored
from specbench.decoding.verifiers.token_sd import TokenSD, accepted_prefix
from specbench.transfer import moved

_STEEPEST = 20
"""Exponents beyond it leave no weight that is not rounded away."""


def annealed_weights(
    count: int, delta: float, nu: float = 0.0, mu: float | None = None
) -> list[float]:
    """Return w_1, ..., w_L of a draft.

    Args:
        count: L.
        delta: Overall relaxation.
        nu: Decay from one token to the next.
        mu: Shift of the exponent; None lets the weights average delta.
    """
    decay = [math.exp(-nu * index) for index in range(1, count + 1)]
    scale = count / math.fsum(decay) if mu is None else math.exp(-mu)
    return [delta * (value * scale) for value in decay]


class CoolSD(TokenSD):
    """Annealed relaxation of speculative sampling on a chain. Matches the argmax at temperature 0.

    Args:
        draft_length: L, length of a whole draft.
        delta: Overall relaxation, at least 0; with nu = 0, 1 is speculative sampling token for
            token.
        nu: How fast the relaxation decays along the draft; 0 is uniform.
        mu: Shift of the exponent; None lets the weights of a whole draft average delta.

    Raises:
        ConfigError: If a value is out of range.
    """

    def __init__(
        self, draft_length: int, delta: float, nu: float = 0.0, mu: float | None = None
    ) -> None:
        check_whole("draft_length", draft_length, 1)
        check_number("delta", delta, 0)
        check_number("nu", nu, 0, _STEEPEST)
        if mu is not None:
            check_number("mu", mu, -_STEEPEST, _STEEPEST)
        weights = annealed_weights(int(draft_length), delta, nu, mu)
        self._weights = torch.tensor(weights, dtype=torch.float64)

    def weights(self, count: int, like: Tensor) -> Tensor:
        """Return the weights of the first `count` tokens, [count], as `like` is stored."""
        if self._weights.device != like.device:
            self._weights = moved(self._weights, like.device)
        return self._weights[:count].to(like.dtype)

    def accepted(self, scored: Scored, target: Tensor, draft: Tensor) -> Tensor:
        """Return the number of accepted tokens in each row, [B]."""
        return accepted_prefix(scored, target, draft, self.weights(draft.shape[1], target))

    def leftover(self, target: Tensor, draft: Tensor, accepted: Tensor) -> Tensor:
        """Return the law of the token after the accepted prefix, up to a factor, [B, V].

        norm((p - min(q, w p))+) at the first rejected position, p itself after full acceptance
        and where nothing is left.
        """
        rows = torch.arange(target.shape[0], device=target.device)
        p = target[rows, accepted]
        count = draft.shape[1]
        full = (accepted == count)[:, None]
        place = accepted.clamp(max=count - 1)
        weight = self.weights(count, target)[place]
        kept = torch.minimum(draft[rows, place], weight[:, None] * p).masked_fill(full, 0.0)
        left = (p - kept).clamp_(min=0)
        return torch.where(left.sum(-1, keepdim=True) > 0, left, p)
