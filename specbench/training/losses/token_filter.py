"""AdaSPEC: only the tokens on which a draft can still gain are learned.

A reference of the draft's shape, distilled before on all tokens, says how well such a draft can do
at each place. Where the draft's divergence exceeds the reference's most, there is most to gain; the
rest would spend a small model's capacity on what it cannot learn or has learned.

Source: Hu et al. 2025, "AdaSPEC: Selective knowledge distillation for efficient speculative
decoders"; the quantile as in the authors' released trainer (yuezhouhu/adaspec, README).

Shapes: N places, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from specbench.training.learner import Sum
from specbench.training.losses.divergences import forward_kl


def kept_places(draft: Tensor, reference: Tensor, keep: float) -> Tensor:
    """Return the places with the largest gain, [N] bool.

    Args:
        draft: Divergence of the draft at each place, [N].
        reference: Divergence of the reference, [N].
        keep: Share of the places that are learned, above 0.
    """
    gain = (draft - reference).detach()
    return gain >= torch.quantile(gain, 1 - keep)


def filtered(target: Tensor, draft: Tensor, reference: Tensor, keep: float) -> Sum:
    """Return the forward KL over the kept places, of logits [N, V] each."""
    own = forward_kl(target, draft)
    kept = kept_places(own, forward_kl(target, reference), keep)
    return Sum(own[kept].sum(), int(kept.sum()))
