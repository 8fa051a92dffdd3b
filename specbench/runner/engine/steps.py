"""What single steps cost: a forward over so many tokens, a forward over a tree, a draft step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from specbench.decoding.tree import TreeMask
from specbench.models.base import AncestorMask, View
from specbench.models.pair import ModelPair
from specbench.runner.engine.figures import Verifying
from specbench.runner.engine.timing import Work, in_turns, spread, stopwatch

COUNTS = (1, 2, 4, 8, 16, 32, 64)
"""Tokens of the verified chains."""

TREE = (3, 2, 1)
"""Children of every node at each depth: 15 nodes, which with the root are 16 tokens, so that the
tree stands beside the chain of 16."""

_WARM_UPS = 3
_IN_A_ROW = {"cuda": 16, "cpu": 1}
"""Forwards of one timing: on a GPU the host enqueues the next while one runs, as in decoding."""


def tree_parents(branching: tuple[int, ...] = TREE) -> tuple[int, ...]:
    """Return the parents of a tree whose nodes of one depth have equally many children."""
    parents: list[int] = []
    level = [-1]
    for children in branching:
        first = len(parents)
        parents += [node for node in level for _ in range(children)]
        level = list(range(first, len(parents)))
    return tuple(parents)


def tree_tokens() -> int:
    """Return the tokens of a forward over the tree, its root included."""
    return len(tree_parents()) + 1


class Steps:
    """Forwards of one model behind a context, each undone after it.

    They use the pair's own cache: what is captured here serves decoding too, and decoding ends
    the use of these steps.
    """

    def __init__(
        self, models: ModelPair, context: int, longest: int, draft: bool = False, seed: int = 0
    ) -> None:
        self._models = models
        self._model = models.drafts[0] if draft else models.target
        self._context = context
        capacity = context + longest + 1
        self._cache = models.draft_cache(capacity) if draft else models.target_cache(capacity)
        generator = torch.Generator().manual_seed(seed)
        size = (1, max(context, longest))
        tokens = torch.randint(0, self._model.vocab_size, size, generator=generator)
        self._tokens = tokens.to(self._model.device)
        self._model.forward(self._tokens[:, :context], self._cache, View(last=1))

    def verify(self, count: int, mask: AncestorMask | None = None) -> Work:
        """Return a forward over `count` tokens with the logits of all."""
        fed = self._tokens[:, :count].contiguous()

        def work() -> Tensor:
            logits = self._model.forward(fed, self._cache, View(mask=mask))
            self._cache.truncate([self._context])
            return logits

        return work

    def draft(self) -> Work:
        """Return a draft step: a forward over one token, and the choice of the next."""
        fed = self._tokens[:, :1].contiguous()

        def work() -> Tensor:
            logits = self._model.forward(fed, self._cache, View(last=1))
            self._cache.truncate([self._context])
            return logits[:, -1].argmax(-1)

        return work

    def seconds(self, work: Work, in_a_row: int = 1) -> Callable[[], float]:
        """Return a measure of a step's seconds, warm and with its graph captured.

        Args:
            work: The step.
            in_a_row: How often decoding takes it without another model's between: all but the
                first find the weights in the caches, where they fit.
        """
        watch = stopwatch(self._model.device)
        times = max(in_a_row, _IN_A_ROW[self._model.device.type])
        for _ in range(_WARM_UPS):
            work()
        self._models.settle()
        work()
        return lambda: watch.seconds(work, times)


def measure_verifying(
    steps: Mapping[str, Steps], rounds: int, counts: tuple[int, ...] = COUNTS
) -> list[Verifying]:
    """Measure what verifying costs in some engines, all counts and engines in turns.

    Args:
        steps: The steps of each engine.
        rounds: How often each is measured.
        counts: Tokens of the chains, 1 among them.
    """
    parents = tree_parents()
    mask = TreeMask.from_parents(parents)
    nodes = len(parents) + 1
    measures = {}
    for engine, own in steps.items():
        for count in counts:
            measures[engine, count] = own.seconds(own.verify(count))
        measures[engine, 0] = own.seconds(own.verify(nodes, mask))
    values = {key: spread(found) for key, found in in_turns(measures, rounds).items()}
    return [
        Verifying(
            engine=engine,
            seconds={count: values[engine, count] for count in counts},
            tree_tokens=nodes,
            tree_seconds=values[engine, 0],
        )
        for engine in steps
    ]
