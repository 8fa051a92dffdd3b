"""Two drafters, one tree: what both propose is verified together.

Quan, Feng, Hao, Jiang, Zhang, Wang 2025, "RASD: Retrieval-Augmented Speculative Decoding"
(arXiv:2503.03434, Findings of ACL 2025): a retrieval tree is pruned by the draft model's
distribution and merged into the draft model's tree by longest common prefix. No code of the
authors was found on GitHub, and summaries of the paper say no more of the pruning than that it
goes by the draft model's probabilities: that a retrieved path stays if its first token is among
the draft's most probable next tokens is this project's rule.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from specbench.decoding.drafters.base import Drafter, Drafting, Outcome, Plan, Prefill
from specbench.decoding.growth import Growth
from specbench.decoding.ranges import check_whole
from specbench.decoding.session import Session
from specbench.decoding.topologies.base import Topology
from specbench.decoding.tree import DraftTree
from specbench.models.pair import ModelPair
from specbench.transfer import read, to_device


class Merged(NamedTuple):
    """Two trees as one.

    Attributes:
        tree: The union of their prefixes; the first tree's nodes keep their numbers. It has no
            law: a verifier that draws from the target alone, or one that takes children as
            chosen, is exact on it.
        second: The node of the merged tree for each node of the second one, -1 where pruned.
    """

    tree: DraftTree
    second: tuple[int, ...]


class Fusion(Drafter):
    """Merge the trees of two drafters on equal prefixes.

    Args:
        first: A drafter, as a rule a model; its tree is kept whole.
        second: A drafter, as a rule a retriever.
        prune_top: Of the second tree, keep the paths whose first token is among so many most
            probable next tokens of the first drafter's model; 0 keeps all. Without effect where
            the first drafter grows no tree by a model.

    Raises:
        ConfigError: If `prune_top` is negative.
    """

    def __init__(self, first: Drafter, second: Drafter, prune_top: int = 10) -> None:
        check_whole("prune_top", prune_top, 0)
        self._first = first
        self._second = second
        self._prune_top = prune_top
        self.needs = first.needs | second.needs | {"tree_mask"}
        self.carries_state = first.carries_state or second.carries_state
        self.prompt_logits = first.prompt_logits or second.prompt_logits
        self.prompt_states = first.prompt_states or second.prompt_states
        self.nodes = first.nodes + second.nodes

    def prepare(self, models: ModelPair) -> None:
        """Show the loaded models to both drafters."""
        self._first.prepare(models)
        self._second.prepare(models)

    def taps(self, models: ModelPair) -> tuple[int, ...]:
        """Return the states that either wants to see."""
        return tuple(dict.fromkeys((*self._first.taps(models), *self._second.taps(models))))

    def inputs(self) -> dict[str, str]:
        """Return the digests of what both read beside the models."""
        return self._first.inputs() | self._second.inputs()

    def reset(self) -> None:
        """Forget what both carry."""
        self._first.reset()
        self._second.reset()

    def begin(self, session: Session, prefill: Prefill) -> Drafting:
        """Take in a new request."""
        parts, every = [], self.taps(session.models)
        for drafter in (self._first, self._second):
            taps = tuple(every.index(layer) for layer in drafter.taps(session.models))
            own = prefill._replace(hidden=tuple(prefill.hidden[tap] for tap in taps))
            parts.append(_Part(drafter.begin(session, own), taps))
        return _FusionDrafting(parts[0], parts[1], self._prune_top)


class _Part(NamedTuple):
    """One of the two drafters at work for a request.

    Attributes:
        drafting: It.
        taps: Which of the handed-out hidden states it asked for.
    """

    drafting: Drafting
    taps: tuple[int, ...]


class _FusionDrafting(Drafting):
    """One request's drafts by two drafters."""

    def __init__(self, first: _Part, second: _Part, prune_top: int) -> None:
        self._first = first
        self._second = second
        self._prune_top = prune_top

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Return the merged tree, or None where neither drafter proposes anything."""
        watch = _Watch(plan.topology)
        one = self._first.drafting.propose(session, replace(plan, topology=watch))
        two = self._second.drafting.propose(session, plan)
        self._trees = (one, two)
        self._places: tuple[int, ...] = ()
        if one is None or two is None:
            tree = one if two is None else two
            self._places = tuple(range(two.size)) if two is not None else ()
            return tree if tree is None else DraftTree(tree.tokens, tree.parents)
        merged = merge(one, two, watch.top(self._prune_top))
        self._places = merged.second
        return merged.tree

    def observe(self, session: Session, outcome: Outcome) -> None:
        """Tell each drafter what became of its own nodes."""
        one, two = self._trees
        places = tuple(range(one.size)) if one is not None else ()
        for part, tree, own in ((self._first, one, places), (self._second, two, self._places)):
            if type(part.drafting).observe is not Drafting.observe:
                part.drafting.observe(session, _restricted(outcome, part.taps, tree, own))


def _restricted(
    outcome: Outcome, taps: tuple[int, ...], tree: DraftTree | None, places: tuple[int, ...]
) -> Outcome:
    """Return the outcome as if only one drafter's tree had been proposed.

    The path is the part of the accepted path that lies in its tree; the emitted tokens are
    all of them. Scores of pruned nodes do not exist, so a pruned tree is shown without them.
    """
    kept = [node for node, place in enumerate(places) if place >= 0]
    new_id = {node: index for index, node in enumerate(kept)}
    device = outcome.tree.tokens.device
    if tree is None:
        tree = DraftTree.chain(outcome.tree.tokens[:, :0])
    elif len(kept) < tree.size:
        parents = tuple(new_id.get(tree.parents[node], -1) for node in kept)
        index = to_device(kept, device, torch.int64)
        tree = DraftTree(tree.tokens[:, index], parents)
    number = {places[node]: index for node, index in new_id.items()}
    path = tuple(number[node] for node in outcome.verdict.path if node in number)
    rows = to_device([0, *(places[node] + 1 for node in kept)], device, torch.int64)
    scored = outcome.scored
    seen = None if scored.seen is None else scored.seen[:, rows]
    return Outcome(
        tree,
        outcome.verdict._replace(path=path, drafted=()),
        replace(scored, tree=tree, logits=scored.logits[:, rows], seen=seen),
        tuple(outcome.kept[tap] for tap in taps),
    )


def merge(one: DraftTree, two: DraftTree, roots: frozenset[int] | None = None) -> Merged:
    """Merge two trees on equal prefixes.

    Args:
        one: The first tree; its nodes come first, with their numbers. Equal siblings in it stay
            apart, and the first of them takes the other tree's branch.
        two: The second tree.
        roots: First tokens that a path of the second tree may have; None for any.
    """
    both = read(torch.cat([one.tokens, two.tokens], 1)[0])
    ours, theirs = both[: one.size], both[one.size :]
    known: dict[tuple[int, int], int] = {}
    for node, (token, parent) in enumerate(zip(ours, one.parents, strict=True)):
        known.setdefault((parent, token), node)
    tokens, parents = list(ours), list(one.parents)
    places: list[int] = []
    for token, parent in zip(theirs, two.parents, strict=True):
        above = places[parent] if parent >= 0 else -1
        pruned = above < 0 <= parent
        if pruned or (parent < 0 and roots is not None and token not in roots):
            places.append(-1)
            continue
        key = (above, token)
        if key not in known:
            known[key] = len(tokens)
            tokens.append(token)
            parents.append(above)
        places.append(known[key])
    tree = DraftTree(to_device([tokens], one.tokens.device), tuple(parents))
    return Merged(tree, tuple(places))


class _Watch(Topology):
    """Another topology, and what the draft said of the first token.

    Args:
        topology: The one that grows the tree.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._growth: Growth | None = None
        self.nodes = topology.nodes
        self.needs = topology.needs

    def grow(self, growth: Growth) -> DraftTree | None:
        """Grow the tree."""
        self._growth = growth
        return self._topology.grow(growth)

    def top(self, count: int) -> frozenset[int] | None:
        """Return the draft's `count` most probable first tokens; None where it is not asked."""
        logits = self._growth.root_logits if self._growth is not None and count > 0 else None
        if logits is None:
            return None
        return frozenset(read(logits.topk(min(count, logits.shape[-1]), dim=-1).indices[0]))
