"""Recursive speculative decoding with constant branching.

Jeon et al. 2024, "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without
Replacement", section 3.2.1 (RSD-C): every node of level i has b_i children, drawn without
replacement. The paper draws them by perturbing log-probabilities with independent Gumbel numbers
and taking the b_i largest, in decreasing order; one draw after another without replacement has
the same law, and that is what is done here. No code of the authors was
found on GitHub.
"""

from __future__ import annotations

from collections.abc import Sequence

from specbench.decoding.topologies.static_tree import StaticTree


class RsdC(StaticTree):
    """A tree of constant branching factors, siblings drawn without replacement.

    Args:
        branching: Number of children on each level.

    Raises:
        ConfigError: If the factors make no tree, or one that is too large.
    """

    def __init__(self, branching: Sequence[int]) -> None:
        super().__init__(widths=branching)
