"""What a drafter gains whose tokens are accepted at a set rate, by what its forwards cost.

A synthetic drafter is a dial: nothing is learned of a model from it, and everything of what a
round costs. Every token is accepted with one probability whatever came before, so the formulas of
Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative Decoding" (2023)
hold exactly; unlike in their Theorem 3.8, verifying is as dear as it is and the host's work counts.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from specbench.errors import UsageError
from specbench.predict.acceptance import expected_tokens
from specbench.predict.roofline import Roofline
from specbench.schema.shape import Shape


class RoundSeconds(NamedTuple):
    """Seconds of the parts of a round, measured or from a roofline.

    Attributes:
        draft_forward: A draft forward of one token for each request.
        plain_forward: A target forward of one token for each request.
        verification: A target forward of the draft and the token before it.
        host: Host work of a round.
        plain_host: Host work of a step of plain decoding.
    """

    draft_forward: float
    plain_forward: float
    verification: float
    host: float = 0.0
    plain_host: float = 0.0


def synthetic_speedup(acceptance: float, draft_length: int, costs: RoundSeconds) -> float:
    """Return the decode speedup over plain decoding of a drafter of set acceptance.

    (1 - a^(K+1)) / (1 - a) tokens of a round (Leviathan et al. 2023, equation 1), times the
    seconds of a plain step, over those of K draft forwards, a verification and the host's work.
    Prefill and what the limit on length cuts from the last round are left out.

    Args:
        acceptance: Chance a that a draft token is accepted, given that all before it were.
        draft_length: Draft tokens K of a round.
        costs: What the parts of a round take; `verification` of K + 1 tokens.

    Raises:
        UsageError: If the acceptance is no probability, the length is below 1, or the costs are
            no times.
    """
    if not 0.0 <= acceptance <= 1.0:
        raise UsageError(
            f"acceptance cannot be {acceptance}", "it is a probability", "Give 0 to 1."
        )
    if draft_length < 1:
        raise UsageError(
            f"draft_length cannot be {draft_length}", "it counts tokens", "Give 1 or more."
        )
    for part, seconds in costs._asdict().items():
        if not 0.0 <= seconds < math.inf:
            raise UsageError(f"{part} cannot take {seconds} seconds", "", "Measure it again.")
    plain = costs.plain_forward + costs.plain_host
    spent = draft_length * costs.draft_forward + costs.verification + costs.host
    if not plain or not spent:
        raise UsageError(
            "A speedup needs times", "plain decoding or a round took none", "Measure them again."
        )
    return expected_tokens(acceptance, draft_length) * plain / spent


def roofline_seconds(
    roofline: Roofline, target: Shape, draft: Shape, draft_length: int, batch: int = 1
) -> RoundSeconds:
    """Return what a device is expected to take for the parts of a round."""
    return RoundSeconds(
        draft_forward=roofline.forward(draft, batch, 1.0).seconds,
        plain_forward=roofline.forward(target, batch, 1.0).seconds,
        verification=roofline.forward(target, batch, draft_length + 1.0).seconds,
        host=roofline.hardware.assumed.round_overhead_us * 1e-6,
    )
