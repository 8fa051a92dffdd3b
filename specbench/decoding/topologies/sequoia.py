"""Sequoia: the tree with most expected tokens, found by dynamic programming.

Chen et al. 2024, "Sequoia: Scalable, Robust, and Hardware-aware Speculative Decoding", section
3.1, and the authors' code, github.com/Infini-AI-Lab/Sequoia (tree_search.py, test_accept.py,
Tree/SpecTree.py). Let a_b be the probability that the b-th child of a node is the accepted one
under rejection without replacement, taken as the same everywhere. The expected number of tokens
of the best tree with n nodes (the root included), at most d levels below the root and b children
at the root is

    T[1][d][0] = 1
    T[n][d][1] = 1 + a_1 max_b' T[n-1][d-1][b']
    T[n][d][b] = max_y T[y][d][b-1] + a_b max_b' T[n-y][d-1][b']

and the (n, d) that is used minimises (d t_draft + t_target(n)) / T. The vector a, t_draft and
t_target are measured beforehand (`specbench calibrate`), on other samples than those of a run.

Two details differ. The authors count the root as a level; here d is the number of levels that
the draft is called for. Where a law has fewer tokens than a node has places, the surplus is left
out; the paper goes on with a uniform law over the rest, and the authors' code never comes to it,
because a softmax in half precision keeps every token possible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from specbench.decoding.calibrated import Calibrating
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.ledger import Round
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.topologies.static_tree import MOST_NODES, StaticTree, TreeShape
from specbench.decoding.verifiers.base import Scored, Verdict
from specbench.errors import ConfigError

PUBLISHED_ACCEPTANCE = (
    *(0.6342, 0.1079, 0.0570, 0.0225, 0.0195, 0.0150, 0.0045, 0.0030),
    *(0.0120, 0.0045, 0.0075, 0.0045, 0.0060, 0.0030, 0.0015, 0.0030),
)
"""First 16 entries of acceptance-rate-vector.pt in the authors' repository, rounded."""

CALIBRATED_CHILDREN = 32
"""Children that a calibration offers at every node, as in the authors' test_accept.py."""

_TIMED_REQUESTS = 4


class Costs(NamedTuple):
    """What a round costs.

    Attributes:
        draft: Seconds for each level of the tree.
        target: Seconds of verification for each measured number of nodes, the root included.
    """

    draft: float
    target: Mapping[int, float]

    def of(self, nodes: int, depth: int) -> float:
        """Return the seconds of a round, interpolated between measured numbers of nodes.

        A smaller tree costs no more than a larger one: where it was measured so, that was noise.
        """
        sizes = sorted(self.target)
        measured = np.array([self.target[size] for size in sizes])
        smooth = np.minimum.accumulate(measured[::-1])[::-1]
        return depth * self.draft + float(np.interp(nodes, sizes, smooth))


class TreeTable:
    """The dynamic programme, for all trees up to a size and a depth.

    Args:
        acceptance: a_1, a_2, ...
        nodes: Most nodes, the root included.
        depth: Most levels below the root.

    Attributes:
        expected: [nodes + 1, depth + 1, children + 1] expected tokens of a round with the next
            token, -inf where there is no such tree.
    """

    def __init__(self, acceptance: Sequence[float], nodes: int, depth: int) -> None:
        children = min(len(acceptance), nodes - 1)
        a = np.array([0.0, *acceptance[:children]])
        self.expected = np.full((nodes + 1, depth + 1, children + 1), -np.inf)
        self.expected[1, :, 0] = 1.0
        self._best = np.full((nodes + 1, depth + 1), -np.inf)
        self._best[1] = 1.0
        self._split = np.zeros(self.expected.shape, dtype=np.int32)
        for n in range(2, nodes + 1):
            below = self._best[n - 1 : 0 : -1, :-1, None]
            # where there is no tree below, 0 * -inf would be no number
            gains = np.where(below > 0, a * np.maximum(below, 0), -np.inf)
            self.expected[n, 1:, 1] = 1 + gains[0, :, 1]
            totals = self.expected[1:n, 1:, 1:-1] + gains[:, :, 2:]
            self._split[n, 1:, 2:] = totals.argmax(0) + 1
            self.expected[n, 1:, 2:] = totals.max(0)
            self._best[n] = self.expected[n].max(-1)

    def best(self, nodes: int, depth: int) -> float:
        """Return the expected tokens of the best tree, -inf where there is none."""
        return float(self._best[nodes, depth])

    def shape(self, nodes: int, depth: int) -> TreeShape:
        """Return the best tree of exactly so many nodes and at most so many levels."""
        counts: list[int] = []
        queue = [(nodes, depth)]
        for size, levels in queue:  # grows while it is read: breadth first
            branches = self._branches(size, levels)
            counts.append(len(branches))
            queue += branches
        return TreeShape.from_counts(counts)

    def _branches(self, nodes: int, depth: int) -> list[tuple[int, int]]:
        """Return the size and depth of the trees under each child of the best root."""
        children = int(self.expected[nodes, depth].argmax())
        branches: list[tuple[int, int]] = []
        for child in range(children, 1, -1):
            rest = int(self._split[nodes, depth, child])
            branches.append((nodes - rest, depth - 1))
            nodes = rest
        if children:
            branches.append((nodes - 1, depth - 1))
        return branches[::-1]


class Sequoia(StaticTree):
    """The best tree for a measured acceptance vector and, where they are known, costs.

    Without a calibration and without a vector given by hand it uses the authors' example vector
    and the whole budget. The runner asks for a calibration first.

    Args:
        acceptance: a_1, a_2, ... for one's own vector; None to use a calibration.
        nodes: Budget of nodes, the root included, as the authors count it.
        max_depth: Most levels below the root.
        calibration: A calibration file; None to look one up.

    Raises:
        ConfigError: If a number is out of its range.
    """

    calibration_name = "sequoia"

    def __init__(
        self,
        acceptance: Sequence[float] | None = None,
        nodes: int = 128,
        max_depth: int = 10,
        calibration: str | None = None,
    ) -> None:
        if not 2 <= nodes <= MOST_NODES or max_depth < 1:
            raise ConfigError(
                f"A tree of {nodes} nodes and {max_depth} levels is not possible",
                f"nodes, the root included, are 2 to {MOST_NODES}, and there is at least 1 level",
                "Choose other numbers.",
            )
        self._budget = nodes
        self._max_depth = max_depth
        self.calibration_path = calibration
        self.needs_calibration = acceptance is None
        super().__init__(widths=[1])
        self._plan(acceptance or PUBLISHED_ACCEPTANCE, None)

    def use(self, values: Mapping[str, Any]) -> None:
        """Plan the tree from a calibration.

        Raises:
            ConfigError: If the values hold no acceptance vector or no costs.
        """
        try:
            costs = Costs(
                float(values["draft_seconds"]),
                {int(size): float(cost) for size, cost in values["target_seconds"].items()},
            )
            acceptance = [float(chance) for chance in values["acceptance"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                "The calibration holds no acceptance vector and costs of a Sequoia tree",
                f"{type(error).__name__}: {error}",
                "Make it again with specbench calibrate.",
            ) from error
        self._plan(acceptance, costs)

    def _plan(self, acceptance: Sequence[float], costs: Costs | None) -> None:
        if not acceptance or min(acceptance) < 0 or sum(acceptance) > 1 + 1e-3:
            raise ConfigError(
                "The acceptance vector is not a list of probabilities",
                "entry b is the chance that the b-th child is the accepted one",
                "Give non-negative numbers with a sum of at most 1.",
            )
        depth = min(self._max_depth, self._budget - 1)
        table = TreeTable(acceptance, self._budget, depth)
        self._set_shape(table.shape(*choose(table, self._budget, depth, costs)))

    def work(self, limits: Sequence[int]) -> int:
        """Return how many tokens `calibrate` decodes at most: all once, a few for every size."""
        return sum(limits) + len(self._sizes()) * sum(limits[:_TIMED_REQUESTS])

    def _sizes(self) -> list[int]:
        """Return the sizes of the trees that are timed: powers of two and the budget."""
        sizes = [2**power for power in range(1, self._budget.bit_length())]
        return sizes if sizes[-1] == self._budget else [*sizes, self._budget]

    def calibrate(self, context: Calibrating) -> dict[str, Any]:
        """Measure the acceptance vector, then the costs of the trees that it leads to.

        The vector counts which of 32 children of the root was accepted, at every emitted
        position; a round then costs one level and its verification, in medians.
        """
        decoder = context.decoder
        assert isinstance(decoder, DraftVerify)
        width = min(CALIBRATED_CHILDREN, context.models.target.vocab_size, MOST_NODES)
        counter = _RankCounter(width)
        star = DraftVerify(
            decoder.drafter, StaticTree(widths=[width]), Constant(1), decoder.verifier
        )
        star.probe = counter
        for request in context.requests:
            context.generate(star, request)
        acceptance = counter.acceptance()
        table = TreeTable(acceptance, self._budget, min(self._max_depth, self._budget - 1))
        target, draft = {}, []
        for size in self._sizes():
            depth = choose_depth(table, size)
            rounds = self._timed(context, decoder, table.shape(size, depth))
            target[str(size)] = median(
                (r.target_ns + r.host_ns + (r.sampling_ns or 0)) / 1e9 for r in rounds
            )
            draft.append(median(r.draft_ns / depth / 1e9 for r in rounds))
        return {
            "acceptance": [round(chance, 6) for chance in acceptance],
            "rounds": counter.rounds,
            "draft_seconds": median(draft),
            "target_seconds": target,
        }

    def _timed(self, context: Calibrating, decoder: DraftVerify, shape: TreeShape) -> list[Round]:
        """Return the verification rounds of a few requests with a tree of one shape."""
        tree = StaticTree(widths=[1])
        tree._set_shape(shape)
        timed = DraftVerify(decoder.drafter, tree, Constant(shape.depth), decoder.verifier)
        rounds: list[Round] = []
        for request in context.requests[:_TIMED_REQUESTS]:
            context.models.settle()
            generation = context.generate(timed, request)
            rounds += [r for r in generation.rounds if r.count.proposed == shape.depth]
        if not rounds:
            raise ConfigError(
                f"No round of the calibration held a tree of {shape.depth} levels",
                "the answers are too short",
                "Calibrate on longer answers (max_new_tokens), or with fewer levels.",
            )
        return rounds


def choose(table: TreeTable, nodes: int, depth: int, costs: Costs | None) -> tuple[int, int]:
    """Return the size and depth of the tree to use, the root counted.

    The cheapest per expected token; without costs, the whole budget at the depth that expects
    most, and the smaller one where both expect the same.
    """
    if costs is None:
        return nodes, choose_depth(table, nodes, depth)
    options = [
        (costs.of(size, levels) / table.best(size, levels), size, levels)
        for size in range(2, nodes + 1)
        for levels in range(1, min(depth, size - 1) + 1)
        if table.best(size, levels) > 0
    ]
    _, size, levels = min(options)
    return size, levels


def choose_depth(table: TreeTable, nodes: int, depth: int | None = None) -> int:
    """Return the least depth at which a tree of so many nodes expects most tokens.

    Raises:
        ConfigError: If no tree of so many nodes exists.
    """
    most = table.expected.shape[1] - 1 if depth is None else depth
    expected = [table.best(nodes, levels) for levels in range(most + 1)]
    if max(expected) <= 0:
        raise ConfigError(
            f"No tree has {nodes} nodes in {most} levels",
            f"a node has at most {table.expected.shape[2] - 1} children",
            "Choose fewer nodes or more levels.",
        )
    return expected.index(max(expected))


class _RankCounter:
    """Counts which child of the root was accepted."""

    def __init__(self, width: int) -> None:
        self._counts = [0] * width
        self.rounds = 0

    def __call__(self, scored: Scored, verdict: Verdict) -> None:
        if scored.tree.size == 0:
            return
        self.rounds += 1
        if verdict.path:
            offered = [offer.node for offer in scored.tree.offers[0]]
            self._counts[offered.index(verdict.path[0])] += 1

    def acceptance(self) -> list[float]:
        """Return the share of rounds in which each child was accepted.

        Raises:
            ConfigError: If there was no round.
        """
        if not self.rounds:
            raise ConfigError(
                "The calibration samples gave no round to count",
                "every answer ended with its first token",
                "Calibrate on more samples or longer answers.",
            )
        return [count / self.rounds for count in self._counts]
