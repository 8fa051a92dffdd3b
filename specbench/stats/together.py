"""Ratios that are judged together: what moves a pass is learned from all of them.

Two or three passes of one row say little of how passes move, and with forty rows some will by
luck show passes that hardly moved at all. No adjustment of p-values repairs that: the luckiest
row is picked. Rows of one comparison were measured by one program, mostly on one machine, so that
what moves a pass is estimated from all rows as well (as variances are pooled over the genes of a
microarray: G. K. Smyth, Statistical Applications in Genetics and Molecular Biology 3, 2004), and
a row is judged by the less favourable of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from specbench.stats.variance import Components


class PooledPasses(NamedTuple):
    """How passes move, over all ratios of a comparison.

    Attributes:
        variance: Of the log ratio by a single pass, the cells' noise included.
        degrees: Its degrees of freedom: passes less one, summed over the ratios.
    """

    variance: float
    degrees: int

    @classmethod
    def of(cls, ratios: Sequence[Components | None]) -> PooledPasses:
        """Pool what the ratios of a comparison say; those of one pass say nothing."""
        known = [each for each in ratios if each is not None and each.pass_count > 1]
        degrees = sum(each.pass_count - 1 for each in known)
        moved = sum((each.pass_count - 1) * each.pass_count * each.passes for each in known)
        return cls(moved / degrees if degrees else 0.0, degrees)

    def p_value(self, effect: float, ratio: Components) -> float:
        """Return the two-sided p-value of a log ratio: the larger of its own and the pooled one.

        Args:
            effect: The log ratio.
            ratio: What moves it.
        """
        own = ratio.p_value(effect)
        if ratio.pass_count < 2:
            return own
        return max(own, self._pooled(ratio).p_value(effect, self.degrees))

    def bound(self, probability: float, ratio: Components) -> float:
        """Return the log ratio whose p-value is 2 (1 - `probability`)."""
        own = ratio.bound(probability)
        if ratio.pass_count < 2:
            return own
        return max(own, self._pooled(ratio).bound(probability, self.degrees))

    def _pooled(self, ratio: Components) -> Components:
        """Return what moves a ratio where its passes move as all do."""
        return ratio._replace(passes=self.variance / ratio.pass_count)
