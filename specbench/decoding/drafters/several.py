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
from specbench.decoding.drafters.base import Drafter, Drafting, Outcome, Plan, Prefill
from specbench.decoding.drafters.model import read_prompt, roll_back
from specbench.decoding.ground import DraftModel
from specbench.decoding.growth import Growth
from specbench.decoding.session import Role, Session
from specbench.decoding.topologies.specinfer import merge
from specbench.decoding.tree import DraftTree
from specbench.errors import ConfigError
from specbench.models.pair import ModelPair
from specbench.transfer import read

NODES_OF_A_MODEL = 256
"""Cache slots that are kept free for the tree of each draft model."""


class Several(Drafter):
    """Draft from every draft model of the pair: from `draft`, then from `more_drafts`.

    With one model it drafts exactly as `ModelDrafter` does.
    """

    needs = frozenset({"draft"})

    def prepare(self, models: ModelPair) -> None:
        """Ask for room for the trees of all models."""
        self.nodes = NODES_OF_A_MODEL * len(models.drafts)

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Feed the prompt to every draft model."""
        roles = [read_prompt(session, index) for index in range(len(session.models.drafts))]
        session.clock.lap(Segment.DRAFT)
        return _SeveralDrafting(roles)


class _SeveralDrafting(Drafting):
    """One request's drafts by several models."""

    def __init__(self, roles: list[Role]) -> None:
        self._roles = roles
        self._growths: list[Growth] = []
        self._origins: tuple[tuple[int, ...], ...] = ()

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return the union of the trees that the topology grew from each model."""
        depth = plan.levels
        self._growths = []
        self._origins = ()
        if depth < 1:
            return None
        count, nodes = len(self._roles), plan.topology.nodes
        if count > 1 and nodes > NODES_OF_A_MODEL:
            raise ConfigError(
                f"A tree of {nodes} nodes from each of {count} draft models is too large",
                f"with several models, each has room for {NODES_OF_A_MODEL} nodes",
                "Choose a smaller tree.",
            )
        taken = 0
        trees = []
        for role in self._roles:
            growth = Growth(DraftModel(role), session, plan.length, depth, nodes, taken)
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

    def observe(self, session: Session, outcome: Outcome) -> None:
        """Roll every model's cache back to the committed tokens."""
        for growth, origins in zip(self._growths, self._origins, strict=False):
            growth.commit(_own_path(outcome.verdict.path, origins))
        for role in self._roles:
            roll_back(role, session)


def _own_path(path: tuple[int, ...], origins: tuple[int, ...]) -> tuple[int, ...]:
    """Return the accepted path in the nodes of one model's tree, as far as it has them."""
    own: list[int] = []
    for node in path:
        if not origins or origins[node] < 0:
            break
        own.append(origins[node])
    return tuple(own)
