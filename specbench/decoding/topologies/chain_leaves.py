"""A chain whose nodes have siblings: many where the draft is unsure, few where it is not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from specbench.decoding.growth import Growth
from specbench.decoding.topologies.base import Topology
from specbench.decoding.tree import DraftTree, DrawKind, Draws
from specbench.errors import ConfigError


class ChainLeaves(Topology):
    """Draw several children at every level, and go on from the first of them.

    Xia et al. 2024, "SWIFT: On-the-Fly Self-Speculative Decoding for LLM Inference
    Acceleration", section 4.2, with the numbers of the release (github.com/hemingkx/SWIFT,
    model/swift/utils.py, `get_choices_list` and `swift_draft`). Children are drawn without
    replacement, or are the most probable ones where the draft is greedy; the first goes on, the
    others are leaves. Only the chain is fed to the draft, so that leaves cost nothing there.

    As in the release the confidence is the draft's softmax, at temperature 1 and with nothing cut
    off, of the first child, and how many children stay is decided after they are drawn. The law
    is kept: given a first child that was rejected, the others were drawn from what is left of
    the draft's law, however many there are. Nothing is drafted behind a stop token, which the
    release does not look for.

    Args:
        bounds: Falling confidences; above bound i a level has `widths[i]` children.
        greedy_widths: Children for each bound, and below all of them, of a greedy draft.
        sampled_widths: The same where the draft samples.
        max_depth: Most levels.

    Raises:
        ConfigError: If the numbers do not fit together.
    """

    def __init__(
        self,
        bounds: Sequence[float] = (0.95, 0.8, 0.5),
        greedy_widths: Sequence[int] = (3, 5, 8, 10),
        sampled_widths: Sequence[int] = (1, 3, 5, 10),
        max_depth: int = 25,
    ) -> None:
        if list(bounds) != sorted(bounds, reverse=True) or not all(0 <= b <= 1 for b in bounds):
            raise ConfigError(
                f"The confidences {list(bounds)} are not possible",
                "they divide the range from 1 down to 0",
                "Give falling numbers from 1 to 0, such as [0.95, 0.8, 0.5].",
            )
        for name, widths in (("greedy_widths", greedy_widths), ("sampled_widths", sampled_widths)):
            if len(widths) != len(bounds) + 1 or min(widths) < 1:
                raise ConfigError(
                    f"The '{name}' {list(widths)} are not possible",
                    f"there are {len(bounds)} bounds, and every level has at least one child",
                    f"Give {len(bounds) + 1} numbers of at least 1.",
                )
        if max_depth < 1:
            raise ConfigError(
                f"A depth of {max_depth} is not possible",
                "a tree has at least one level",
                "Choose 1 or more.",
            )
        self._bounds = tuple(bounds)
        self._widths = {True: tuple(greedy_widths), False: tuple(sampled_widths)}
        self._max_depth = max_depth
        self.nodes = max_depth * max(*greedy_widths, *sampled_widths)

    def grow(self, growth: Growth) -> DraftTree | None:
        """Draw level after level; one small transfer for each tells how wide it is."""
        depth = min(growth.depth, self._max_depth)
        levels: list[Tensor] = []
        laws: list[Tensor] = []
        logits = growth.feed_root()
        while True:
            law = growth.law(logits)
            judged = growth.watched(logits, law)
            if growth.unsure(judged):
                break
            children = growth.pick(law, max(self._widths[growth.greedy]))
            first = children[:, 0]
            confidence = growth.softmax(logits, law)[0].gather(0, first)
            ends, numbers = growth.look(first, judged, confidence[0], (law > 0).sum())
            levels.append(children[:, : self._width(numbers[0], numbers[1], growth.greedy)])
            laws.append(law)
            if ends or len(levels) == depth:
                break
            logits = growth.feed_next(first)
        if not levels:
            return None
        expanded: list[int] = []
        parents: list[int] = []
        last = -1
        for level in levels:
            expanded.append(last)
            first, width = len(parents), level.shape[1]
            parents += [last] * width
            last = first
        kind, law_of = DrawKind.POINT, None
        if not growth.greedy:
            kind, law_of = DrawKind.WITHOUT_REPLACEMENT, torch.stack(laws, dim=1)
        draws = Draws(kind, tuple(expanded), law_of)
        return DraftTree(torch.cat(levels, dim=1), tuple(parents), draws)

    def _width(self, confidence: float, support: float, greedy: bool) -> int:
        """Return the number of children of a level; at most the support of its law."""
        level = sum(confidence <= bound for bound in self._bounds)
        return min(self._widths[greedy][level], int(support))
