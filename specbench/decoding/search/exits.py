"""Which exit drafts best: DEL's running statistics of every exit of a model.

Entezari Zarch, Gao, Jiang, Annavaram 2025, "DEL: Context-Aware Dynamic Exit Layer for Efficient
Self-Speculative Decoding" (arXiv:2504.05598). Read in a copy of the authors' tree
(github.com/359171110/DEL: self_speculation/DEL.py, DEL_speculation_generator.py).

Shapes: L blocks, E = L - 1 exits, exit l behind l + 1 blocks; T positions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Flags = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


class Exits:
    """How often each exit would have said what the whole model says, and how sure it was.

    Args:
        layers: L.
        memory: Weight of each earlier round against the one after it (omega).
        longest: Most tokens of a draft that a choice considers.

    Attributes:
        blocks: Blocks of the exit that drafts next.
    """

    def __init__(self, layers: int, memory: float = 0.95, longest: int = 18) -> None:
        self._layers = layers
        self._memory = memory
        self._longest = longest
        self._counts = np.zeros((layers - 1, 2))
        self._confidence = np.zeros((layers - 1, 2))
        self.blocks = 1

    def update(self, agree: Flags, sure: Values, context: int = 0) -> None:
        """Count a round and choose the next exit.

        Positions behind the first one where the present exit disagreed are left out: the draft
        would have ended there.

        Args:
            agree: [E, T] whether an exit's likeliest token is the whole model's.
            sure: [E, T] its probability.
            context: How many of the first positions belong to the prompt, and count in any case.
        """
        misses = np.flatnonzero(~agree[self.blocks - 1, context:])
        if len(misses):
            end = context + misses[0] + 1
            agree, sure = agree[:, :end], sure[:, :end]
        for column, chosen in enumerate((agree, ~agree)):
            for total, each in ((self._counts, 1.0), (self._confidence, sure)):
                total[:, column] = self._memory * total[:, column] + (chosen * each).sum(1)
        self.blocks = best_exit(self.acceptance, self._layers, self._longest)

    @property
    def acceptance(self) -> Values:
        """The running share of positions at which each exit agrees, [E]."""
        share: Values = self._counts[:, 0] / np.maximum(self._counts.sum(1), 1e-12)
        return share

    @property
    def threshold(self) -> float:
        """The confidence below which a draft of the present exit ends; 0 where it never does.

        It lies half way between how sure the exit is where it agrees and where it does not.
        """
        counts, sums = self._counts[self.blocks - 1], self._confidence[self.blocks - 1]
        return float((sums / counts).mean()) if counts.all() else 0.0


def best_exit(acceptance: Values, layers: int, longest: int) -> int:
    """Return the number of blocks of the exit with the most expected tokens per block computed.

    With d draft tokens, exit l emits 1 + a + ... + a^d tokens and computes (d + 1) l + L - l
    blocks; d runs from 0 to `longest` - 1.

    Args:
        acceptance: [E] probability that a draft token of each exit is accepted.
        layers: L.
        longest: The number of lengths that are tried.
    """
    drafted = np.arange(longest)
    emitted = np.cumsum(acceptance[:, None] ** drafted, axis=1)
    blocks = np.arange(1, layers)[:, None]
    gain = emitted / (layers - blocks + (drafted + 1) * blocks)
    return int(gain.argmax()) // longest + 1
