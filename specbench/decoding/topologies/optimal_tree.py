"""The fixed tree that accepts most tokens, for accuracies measured beforehand.

Cai et al. 2024, "Medusa", section 2.3, on the search for the tree, and the authors' code,
github.com/FasterDecoding/Medusa (medusa/eval/heads_accuracy.py counts how often a token of each
rank is right, gen_results.py picks the tree from the counts): a path is worth the product of the
accuracies of its ranks, and the tree repeatedly takes the path that is worth most
(`static_tree.optimal_paths`). Chen et al. 2024, "Hardware-Aware Parallel Prompt Decoding", does
the same for prompt tokens. Here a draft model fills the places.

The accuracy [d][r] is how often the draft's token of rank r at depth d + 1 is the target's, given
that the path above is the target's. It is measured along text of the target: the draft ranks or
draws the candidates of one position, the method's own verifier decides which token the target
emits there, and its rank is counted; then both go on from that token, so that one token is
decided in each step, as in plain decoding. Under sampling the verifier couples the draws with the
target's token: the first draw is accepted with the sum of min(p, q), and would meet an
independent token of the target with the sum of p q alone. The path above is the target's where
the d tokens before were found among the candidates, one after another.

Two details differ from the release. A Medusa head sees only the last accepted token, and the
authors count every head at every position; a draft model reads the path above, so a depth is
counted where that path was drafted at all. And what follows the first token is counted in whole
answers, not in 20 steps.

The optimum counts accepted tokens only, not what a level or a node costs; see `sequoia`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from specbench.decoding.calibrated import Calibrating
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.topologies.sequoia import PUBLISHED_ACCEPTANCE
from specbench.decoding.topologies.static_tree import (
    MOST_NODES,
    StaticTree,
    TreeShape,
    optimal_paths,
)
from specbench.decoding.verifiers.base import Scored, Verdict, Verifier
from specbench.errors import ConfigError

CALIBRATED_LEVELS = 16
"""Least number of levels that a calibration looks at: further ones cost it nothing."""

_SLACK = 1e-3


class OptimalTree(StaticTree):
    """The tree of most expected tokens within a number of nodes, levels and children.

    Without a calibration and without accuracies given by hand, every level has the acceptance
    vector that the authors of Sequoia publish as an example. The runner asks for a calibration
    first.

    Args:
        nodes: Draft nodes, the root not counted.
        max_depth: Most levels.
        width: Most children of a node.
        accuracies: [depth][rank] for one's own accuracies; None to use a calibration. Levels and
            ranks beyond the two limits are not looked at.
        calibration: A calibration file; None to look one up.

    Raises:
        ConfigError: If a number is out of its range, or the accuracies make no such tree.
    """

    calibration_name = "rank_accuracies"

    def __init__(
        self,
        nodes: int = 16,
        max_depth: int = 5,
        width: int = 10,
        accuracies: Sequence[Sequence[float]] | None = None,
        calibration: str | None = None,
    ) -> None:
        _check_limits(nodes, max_depth, width)
        self._budget = nodes
        self._max_depth = max_depth
        self._width = width
        self.calibration_path = calibration
        self.needs_calibration = accuracies is None
        super().__init__(widths=[1])
        if accuracies is None:
            self._plan([PUBLISHED_ACCEPTANCE] * max_depth)
            return
        self._plan(_checked(accuracies))
        if self.nodes < nodes:
            raise ConfigError(
                f"The accuracies name {self.nodes} places, and the tree has {nodes} nodes",
                f"{max_depth} levels of {width} children were looked at",
                f"Give accuracies of more levels or ranks, or at most {self.nodes} nodes.",
            )

    def use(self, values: Mapping[str, Any]) -> None:
        """Plan the tree from a calibration.

        Raises:
            ConfigError: If the values hold no accuracies, or those of fewer levels or children
                than the tree may have.
        """
        try:
            accuracies = values["accuracies"]
            width, depth = int(values["width"]), int(values["max_depth"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                "The calibration holds no accuracies of ranks",
                f"{type(error).__name__}: {error}",
                "Make it again with specbench calibrate.",
            ) from error
        if width < self._width or depth < self._max_depth:
            raise ConfigError(
                f"The calibration looked at {width} children and {depth} levels",
                f"the tree may have {self._width} children and {self._max_depth} levels",
                f"Choose at most {width} and {depth}, or make it again with specbench calibrate "
                f"method.width={self._width} method.max_depth={self._max_depth}.",
            )
        self._plan(_checked(accuracies))

    def work(self, limits: Sequence[int]) -> int:
        """Return how many tokens `calibrate` decodes at most: every request once."""
        return sum(limits)

    def calibrate(self, context: Calibrating) -> dict[str, Any]:
        """Measure how often the token of each rank is the target's, at each depth.

        Returns:
            "accuracies" [depth][rank], as far down as any path was drafted; "positions", at how
            many positions each depth was counted; "width" and "max_depth", what was looked at.
        """
        decoder = context.decoder
        assert isinstance(decoder, DraftVerify)
        levels = max(self._max_depth, CALIBRATED_LEVELS)
        width = min(self._width, context.models.target.vocab_size)
        counter = RankCounter(decoder.verifier, width, levels)
        star = StaticTree(widths=[width])
        stepwise = DraftVerify(decoder.drafter, star, Constant(1), counter)
        for request in context.requests:
            counter.begin()
            context.generate(stepwise, request)
        return {
            "accuracies": counter.accuracies(),
            "positions": counter.positions(),
            "width": self._width,
            "max_depth": levels,
        }

    def _plan(self, accuracies: Sequence[Sequence[float]]) -> None:
        within = [ranks[: self._width] for ranks in accuracies[: self._max_depth]]
        self._set_shape(TreeShape.from_paths(optimal_paths(within, self._budget)))


class RankCounter(Verifier):
    """A verifier that keeps one token of another's verdict, and counts the rank of that token.

    The tree is a star: its root alone has children. What follows an accepted child is dropped,
    so that the next step decides it with candidates of its own.

    Args:
        verifier: Decides which token the target emits.
        width: Most children.
        levels: Levels to tell apart.
    """

    def __init__(self, verifier: Verifier, width: int, levels: int) -> None:
        self._verifier = verifier
        self._counts = np.zeros((levels, width + 1), dtype=np.int64)
        self._run = 0

    def begin(self) -> None:
        """Begin a new request: nothing above its first position was drafted."""
        self._run = 0

    def verify(self, scored: Scored) -> list[Verdict]:
        """Return the first token of the verdict, and count it after the run of hits before it."""
        (verdict,) = self._verifier.verify(scored)
        if scored.tree.size:
            offered = [offer.node for offer in scored.tree.offers[0]]
            rank = offered.index(verdict.path[0]) if verdict.path else -1
            self._counts[min(self._run, len(self._counts) - 1), rank] += 1
            self._run = self._run + 1 if verdict.path else 0
        return [Verdict((), verdict.tokens[0], verdict.tokens[:1])]

    def positions(self) -> list[int]:
        """Return at how many positions each depth was counted, down to the last that was.

        Raises:
            ConfigError: If there was none.
        """
        counted: list[int] = self._at_depth().sum(1).tolist()
        if not counted[0]:
            raise ConfigError(
                "The calibration samples gave no position to count",
                "every answer ended with its first token",
                "Calibrate on more samples or longer answers (max_new_tokens).",
            )
        return [count for count in counted if count]

    def accuracies(self) -> list[list[float]]:
        """Return [depth][rank], how often the token of each rank was the target's.

        Raises:
            ConfigError: If there was nothing to count.
        """
        positions = self.positions()
        hits = self._at_depth()[: len(positions), :-1]
        return [
            [round(hit / count, 6) for hit in ranks]
            for ranks, count in zip(hits.tolist(), positions, strict=True)
        ]

    def _at_depth(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return [levels, width + 1] counts: a run of hits serves every depth up to its length."""
        return np.cumsum(self._counts[::-1], axis=0)[::-1]


def _check_limits(nodes: int, max_depth: int, width: int) -> None:
    """Refuse limits within which there is no tree."""
    for name, value in (("nodes", nodes), ("max_depth", max_depth), ("width", width)):
        if not 1 <= value <= MOST_NODES:
            raise ConfigError(
                f"{name}={value} makes no tree",
                f"{name} is 1 to {MOST_NODES}",
                f"Choose {name} within that range.",
            )
    places = sum(width**depth for depth in range(1, min(max_depth, nodes) + 1))
    if nodes > places:
        raise ConfigError(
            f"No tree with max_depth={max_depth} and width={width} has {nodes} nodes",
            f"it has 1 to {places}",
            "Choose fewer nodes, more levels or more children.",
        )


def _checked(accuracies: Any) -> list[list[float]]:
    """Return accuracies as lists of numbers, or refuse what is none."""
    try:
        levels = [[float(accuracy) for accuracy in ranks] for ranks in accuracies]
        problem = "" if levels and all(levels) else "a list of them is empty"
    except (TypeError, ValueError) as error:
        levels, problem = [], f"{type(error).__name__}: {error}"
    for ranks in levels:
        if not all(0 <= accuracy <= 1 for accuracy in ranks) or sum(ranks) > 1 + _SLACK:
            problem = f"{ranks} are not in 0 to 1 with a sum of at most 1"
    if problem:
        raise ConfigError(
            "The accuracies are not shares of right tokens for each depth and rank",
            problem,
            "Give a list for each depth of numbers from 0 to 1 with a sum of at most 1, such as "
            "[[0.6,0.2],[0.5,0.2]].",
        )
    return levels
