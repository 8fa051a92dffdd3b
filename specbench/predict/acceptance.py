"""How many tokens a round yields, by position and by the formulas of independent acceptance.

The formulas are those of Leviathan, Kalman and Matias, "Fast Inference from Transformers via
Speculative Decoding" (2023): every draft token is accepted with one probability, whatever came
before. Measured acceptance rises or falls with the position, so predictions use the conditional
rates; the formulas stand beside them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

EVIDENCE = 30
"""Tested draft tokens that a position needs before later ones are extrapolated from it."""

TAIL = 3
"""Last well-tested positions from which acceptance beyond them is extrapolated."""


class Acceptance(NamedTuple):
    """Acceptance by draft position; element 0 is the first draft token.

    Attributes:
        accepted: Chance that a token is accepted, given that it was proposed and all before it
            were accepted.
        reached: Chance that a position is proposed at all, given that all before it were
            accepted: below 1 where the draft may stop by itself or finds nothing to copy.
        proposed: Chance that a round's draft has this position, whatever was accepted.
        tested: How many draft tokens stand behind each `accepted`.
    """

    accepted: tuple[float, ...]
    reached: tuple[float, ...]
    proposed: tuple[float, ...]
    tested: tuple[int, ...]

    @property
    def measured_length(self) -> int:
        """The longest draft that was proposed."""
        return len(self.proposed)

    @property
    def reliable_length(self) -> int:
        """The last position whose acceptance rests on `EVIDENCE` tests, at least 1."""
        enough = [place for place, count in enumerate(self.tested, start=1) if count >= EVIDENCE]
        return max(enough, default=1)


def expected_accepted(acceptance: Acceptance, length: int) -> float:
    """Return the accepted draft tokens of a round whose draft is cut at `length` tokens.

    The sum over positions i of the chance that i tokens or more are accepted, which is the
    product of `reached` and `accepted` up to i. Up to the measured length this is the mean of
    min(accepted, length) over the measured rounds, exactly. Positions that were never tested take
    their rates from `extended`.
    """
    extended_ = extended(acceptance, length)
    total, alive = 0.0, 1.0
    for accepted, reached in zip(extended_.accepted, extended_.reached, strict=True):
        alive *= accepted * reached
        total += alive
    return total


def expected_proposed(acceptance: Acceptance, length: int) -> float:
    """Return the draft tokens on the longest path of a round, the draft cut at `length`."""
    return sum(extended(acceptance, length).proposed)


def extended(acceptance: Acceptance, length: int) -> Acceptance:
    """Return the rates of exactly `length` positions, extrapolated past what was measured.

    Rule: a position beyond the measured ones is accepted like the last `TAIL` positions that rest
    on `EVIDENCE` tests or more, pooled by their tests. Whether a draft gets there follows the
    rate at which drafts went on before, the first position apart: a fixed draft length went on
    always, and a draft that finds its own end keeps its habit.
    """
    have = min(length, acceptance.measured_length)
    accepted = list(acceptance.accepted[:have])
    reached = list(acceptance.reached[:have])
    proposed = list(acceptance.proposed[:have])
    accepted += [tail_rate(acceptance)] * (length - len(accepted))
    going_on = continuation(acceptance)
    reached += [going_on] * (length - len(reached))
    while len(proposed) < length:
        proposed.append((proposed[-1] if proposed else 1.0) * going_on)
    tested = (*acceptance.tested[:have], *([0] * (length - have)))
    return Acceptance(tuple(accepted), tuple(reached), tuple(proposed), tested[:length])


def tail_rate(acceptance: Acceptance) -> float:
    """Return the pooled acceptance of the last well-tested positions."""
    last = acceptance.reliable_length
    first = max(0, last - TAIL)
    tested = acceptance.tested[first:last]
    hits = [rate * n for rate, n in zip(acceptance.accepted[first:last], tested, strict=True)]
    return sum(hits) / sum(tested) if sum(tested) else 0.0


def continuation(acceptance: Acceptance) -> float:
    """Return the rate at which a draft goes on from one position to the next, the first apart."""
    proposed = acceptance.proposed
    before = sum(proposed[:-1])
    return min(1.0, sum(proposed[1:]) / before) if before else 1.0


def expected_tokens(rate: float, length: int) -> float:
    """Return (1 - a^(g+1)) / (1 - a): tokens of a round under independent acceptance.

    Args:
        rate: Chance a that a draft token is accepted.
        length: Draft tokens g of a round.

    Leviathan et al. 2023, equation 1.
    """
    if rate >= 1.0:
        return length + 1.0
    return float((1.0 - rate ** (length + 1)) / (1.0 - rate))


def walltime_factor(rate: float, length: int, cost_ratio: float) -> float:
    """Return the speedup under independent acceptance, if verifying cost one plain forward.

    Args:
        rate: Chance that a draft token is accepted.
        length: Draft tokens of a round.
        cost_ratio: Time of a draft forward over that of a target forward.

    Leviathan et al. 2023, Theorem 3.8.
    """
    return expected_tokens(rate, length) / (length * cost_ratio + 1.0)


def operations_factor(rate: float, length: int, operations_ratio: float) -> float:
    """Return by how much the arithmetic of a token grows under independent acceptance.

    Args:
        rate: Chance that a draft token is accepted.
        length: Draft tokens of a round.
        operations_ratio: Operations of a draft token over those of a target token.

    Leviathan et al. 2023, Theorem 3.11. It bounds what a device that computes all the time, and
    does not wait for memory, can gain: less than nothing.
    """
    return (length * operations_ratio + length + 1.0) / expected_tokens(rate, length)


def rates_of(
    proposed: npt.NDArray[np.int64],
    accepted: npt.NDArray[np.int64],
    rounds: npt.NDArray[np.int64] | None = None,
) -> Acceptance:
    """Return the acceptance by position of some verification rounds.

    Args:
        proposed: Length of the longest proposed path of each round.
        accepted: Accepted draft tokens of each round, at most as many.
        rounds: How many such rounds there were; None means one of each.
    """
    if rounds is None:
        rounds = np.ones(len(proposed), dtype=np.int64)
    whole = int(rounds.sum())
    longest = int(proposed.max(initial=0))
    passed: list[float] = []
    reached: list[float] = []
    present: list[float] = []
    tested: list[int] = []
    for position in range(1, longest + 1):
        alive = accepted >= position - 1
        tries = int(rounds[alive & (proposed >= position)].sum())
        hits = int(rounds[accepted >= position].sum())
        tested.append(tries)
        passed.append(hits / tries if tries else 0.0)
        reached.append(tries / int(rounds[alive].sum()) if alive.any() else 0.0)
        present.append(int(rounds[proposed >= position].sum()) / whole)
    return Acceptance(tuple(passed), tuple(reached), tuple(present), tuple(tested))
