"""Several small models draft side by side; their trees are merged.

Miao et al. 2024, "SpecInfer: Accelerating Generative Large Language Model Serving with Tree-based
Speculative Inference and Verification", section 3. Each model draws from its own law with random
numbers of its own. The merged tree records which model drew what, and the verifier tries the
models in the order in which the model entry names them, which does not depend on the target.

Trap: models that share random numbers draw alike, and what one of them drew after the other was
rejected then no longer follows its law. Every model goes on where the one before it stopped.
"""

from __future__ import annotations

from itertools import accumulate

import torch

from specbench.clock import Segment
from specbench.decoding.drafters.base import Drafter, Plan
from specbench.decoding.growth import Growth, Source
from specbench.decoding.state import Outcome, State
from specbench.decoding.topologies.specinfer import merge
from specbench.decoding.tree import DraftTree
from specbench.errors import ConfigError
from specbench.law import History
from specbench.models.pair import ModelPair
from specbench.transfer import read, to_device

NODES_OF_A_MODEL = 256
"""Cache slots that are kept free for the tree of each draft model."""


class Several(Drafter):
    """Draft from every draft model of the pair: from `draft`, then from `more_drafts`.

    With one model it drafts exactly as `ModelDrafter` does.
    """

    needs = frozenset({"draft"})

    def __init__(self) -> None:
        self._sources: list[Source] = []
        self._growths: list[Growth] = []
        self._origins: tuple[tuple[int, ...], ...] = ()

    def prepare(self, models: ModelPair) -> None:
        """Ask for room for the trees of all models."""
        self.nodes = NODES_OF_A_MODEL * len(models.drafts)

    def begin(self, state: State) -> None:
        """Feed the prompt to every draft model."""
        law = state.request.draft_law or state.request.law
        self._sources = []
        for index, draft in enumerate(state.models.drafts):
            prompt = to_device([state.request.prompt], draft.device)
            committed = to_device([state.committed], draft.device)
            history = History(law, committed, draft.vocab_size)
            cache = state.models.draft_cache(state.capacity, index)
            self._sources.append(Source(draft, cache, law, history))
            draft.forward(prompt, cache, last=1)
            state.work.forwards += 1
            state.work.tokens += prompt.shape[1]
        state.clock.lap(Segment.DRAFT)

    def propose(self, state: State, plan: Plan) -> DraftTree | None:
        """Return the union of the trees that the topology grew from each model."""
        depth = min(plan.length.limit(), plan.depth)
        self._growths = []
        self._origins = ()
        if depth < 1:
            return None
        count, nodes = len(self._sources), plan.topology.nodes
        if count > 1 and nodes > NODES_OF_A_MODEL:
            raise ConfigError(
                f"A tree of {nodes} nodes from each of {count} draft models is too large",
                f"with several models, each has room for {NODES_OF_A_MODEL} nodes",
                "Choose a smaller tree.",
            )
        taken = 0
        trees = []
        for source in self._sources:
            growth = Growth(source, state, plan.length, depth, nodes, taken)
            self._growths.append(growth)
            trees.append(plan.topology.grow(growth))
            taken = max(growth.taken, 1)
        grown = [tree for tree in trees if tree is not None]
        if len(grown) < 2:
            own = tuple(range(grown[0].size)) if grown else ()
            self._origins = tuple(() if tree is None else own for tree in trees)
            return grown[0] if grown else None
        tokens = read(torch.cat([tree.tokens[0] for tree in grown]))
        ends = accumulate(tree.size for tree in grown)
        rows = [tokens[end - tree.size : end] for tree, end in zip(grown, ends, strict=True)]
        merged = merge(grown, rows)
        following = iter(merged.origins)
        self._origins = tuple(() if tree is None else next(following) for tree in trees)
        return merged.tree

    def observe(self, state: State, outcome: Outcome) -> None:
        """Roll every model's cache back to the committed tokens."""
        emitted = len(outcome.verdict.tokens)
        for source in self._sources:
            if source.law.needs_history:
                new = to_device([state.committed[-emitted:]], source.model.device)
                source.history.commit(new)
        for growth, origins in zip(self._growths, self._origins, strict=False):
            growth.commit(_own_path(outcome.verdict.path, origins))
        for source in self._sources:
            source.cache.truncate([min(source.cache.lengths[0], len(state.committed) - 1)])


def _own_path(path: tuple[int, ...], origins: tuple[int, ...]) -> tuple[int, ...]:
    """Return the accepted path in the nodes of one model's tree, as far as it has them."""
    own: list[int] = []
    for node in path:
        if not origins or origins[node] < 0:
            break
        own.append(origins[node])
    return tuple(own)
