"""Draft by a tree search over tri-grams that the target itself keeps up to date."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from specbench.clock import Segment
from specbench.decoding.drafters.base import Drafter, Plan
from specbench.decoding.ranges import check_number
from specbench.decoding.state import Outcome, State
from specbench.decoding.tree import DraftTree
from specbench.transfer import read, to_device

Context = tuple[int, int]
Candidates = tuple[list[int], list[float]]


class Node:
    """A node of the search tree.

    Attributes:
        context: The two last tokens of the text up to here.
        parent: Its place in the order of creation, -1 for the root.
        depth: Tokens below the root.
        prior: Tri-gram probability of its token.
        visits: Simulations that came through.
        value: Sum of their returns.
        children: Visited children, the most probable first.
        index: Its place in the order of creation, -1 for the root.
    """

    __slots__ = ("context", "parent", "depth", "prior", "visits", "value", "children", "index")

    def __init__(
        self,
        context: Context,
        parent: int = -1,
        depth: int = 0,
        prior: float = 1.0,
        index: int = -1,
    ) -> None:
        self.context = context
        self.parent = parent
        self.depth = depth
        self.prior = prior
        self.visits = 0
        self.value = 0.0
        self.children: list[Node] = []
        self.index = index


class Trigrams:
    """The most probable tokens after every pair of tokens.

    Args:
        candidates: How many are kept for each pair.
        backoff: Whether a pair that was never seen is answered by the newest pair that ended
            with the same token.
    """

    def __init__(self, candidates: int, backoff: bool) -> None:
        self._candidates = candidates
        self._after: dict[Context, Candidates] = {}
        self._after_token: dict[int, Candidates] | None = {} if backoff else None

    def after(self, context: Context) -> Candidates | None:
        """Return the tokens after a pair and their probabilities, the most probable first."""
        known = self._after.get(context)
        if known is None and self._after_token is not None:
            return self._after_token.get(context[1])
        return known

    def learn(self, contexts: list[Context | None], logits: Tensor) -> None:
        """Replace what is known of some pairs; of equal pairs the last one counts.

        Args:
            contexts: The pair before each row, None for rows to be left out.
            logits: [n, V] the target's logits after each pair.
        """
        best = logits.topk(min(self._candidates, logits.shape[-1]), dim=-1)
        scale = logits.logsumexp(-1, keepdim=True).double()
        probabilities = (best.values.double() - scale).exp()
        rows = read(torch.stack([best.indices.double(), probabilities]))
        for context, tokens, chances in zip(contexts, *rows, strict=True):
            if context is not None:
                known = ([int(token) for token in tokens], chances)
                self._after[context] = known
                if self._after_token is not None:
                    self._after_token[context[1]] = known


class Aded(Drafter):
    """ADED: adaptive draft-verification.

    Liu et al. 2024, "Adaptive Draft-Verification for Efficient Large Language Model Decoding"
    (arXiv 2407.12021). A table of tri-grams P(c | a, b) stands in for the target and is updated
    with the target's own distributions as it decodes. A Monte Carlo tree search over the table
    makes the draft: every simulation descends from the newest token to the child with the
    largest Q + c P sqrt(N_parent) / (1 + N_child), adds one node where it leaves the tree, and
    returns the number of tokens that the table expects to be accepted along its path. The most
    visited nodes are the draft tree.

    The paper's abstract and the README of github.com/liuxukun2000/ADED were read (12 candidates
    for each pair; trees verified as in REST). The authors' search is in no public file that
    could be found: its returns, the first value of an unvisited child (its prior) and the
    budgets are this project's choice. So is the table's start: the authors count the tri-grams
    of a corpus; here the table starts empty, learns from the target's logits, those of the
    prompt included, and new evidence replaces old. Children are chosen by no law: a verifier
    that draws from the target keeps the method exact.

    Args:
        nodes: Most nodes of a draft tree.
        depth: Deepest level of the search.
        simulations: Descents of one search.
        exploration: c; 0 follows the most probable tri-grams alone.
        candidates: Continuations that are kept for every pair of tokens.
        learn_prompt: Whether the table learns from the logits of the prompt's tokens.
        backoff: Whether an unseen pair is answered by the newest pair that ended alike; it
            stands in for the corpus, whose tri-grams leave few pairs unseen.

    Raises:
        ConfigError: If a number is too small.
    """

    needs = frozenset({"tree_mask"})
    carries_state = True

    def __init__(
        self,
        nodes: int = 16,
        depth: int = 6,
        simulations: int = 32,
        exploration: float = 1.0,
        candidates: int = 12,
        learn_prompt: bool = True,
        backoff: bool = True,
    ) -> None:
        check_number("nodes", nodes, 1)
        check_number("depth", depth, 1)
        check_number("simulations", simulations, 1)
        check_number("exploration", exploration, 0)
        check_number("candidates", candidates, 1)
        self._depth = depth
        self._simulations = simulations
        self._exploration = exploration
        self._candidates = candidates
        self._backoff = backoff
        self.nodes = nodes
        self.prompt_logits = learn_prompt
        self.reset()

    def reset(self) -> None:
        """Empty the table."""
        self._table = Trigrams(self._candidates, self._backoff)
        self._drafted: list[Context] = []

    def begin(self, state: State) -> None:
        """Learn what the target thinks of the prompt."""
        if self.prompt_logits and len(state.request.prompt) > 1:
            prompt = state.request.prompt
            pairs: list[Context | None] = list(zip(prompt, prompt[1:], strict=False))
            self._table.learn(pairs, state.prefill.logits[0, 1:])
        state.clock.lap(Segment.DRAFT)

    def propose(self, state: State, plan: Plan) -> DraftTree | None:
        """Search, and return the most visited nodes."""
        self._drafted = []
        depth = min(self._depth, plan.depth, plan.length.limit())
        if depth < 1 or len(state.committed) < 2:
            return None
        created = self.search((state.committed[-2], state.committed[-1]), depth)
        if not created:
            return None
        # A node is visited once by the simulation that made it, so a parent always more often
        # than its children; the order of creation breaks ties, parents first.
        ranked = sorted(created, key=lambda node: -node.visits)[: self.nodes]
        kept = sorted(ranked, key=lambda node: (node.depth, node.index))
        place = {node.index: index for index, node in enumerate(kept)} | {-1: -1}
        self._drafted = [node.context for node in kept]
        tokens = to_device([[node.context[1] for node in kept]], state.models.target.device)
        return DraftTree(tokens, tuple(place[node.parent] for node in kept))

    def observe(self, state: State, outcome: Outcome) -> None:
        """Put the target's distributions of this round into the table.

        Pairs of the accepted path count more than the same pairs elsewhere in the tree.
        """
        emitted = len(outcome.verdict.tokens)
        text, place = state.committed, len(state.committed) - emitted - 1
        root = (text[place - 1], text[place]) if place else None
        pairs: list[Context | None] = [root, *self._drafted]
        accepted = {pairs[0], *(self._drafted[node] for node in outcome.verdict.path)}
        path = {0, *(node + 1 for node in outcome.verdict.path)}
        contexts = [
            pair if index in path or pair not in accepted else None
            for index, pair in enumerate(pairs)
        ]
        self._table.learn(contexts, outcome.scored.logits[0])

    def search(self, context: Context, depth: int) -> list[Node]:
        """Return the nodes of a search below a pair of tokens, in order of creation."""
        root = Node(context)
        created: list[Node] = []
        for _ in range(self._simulations):
            path = [root]
            while path[-1].depth < depth:
                child = self._descend(path[-1], len(created))
                if child is None:
                    break
                path.append(child)
                if child.index == len(created):
                    created.append(child)
                    break
            returned = 0.0
            for node in reversed(path[1:]):
                returned = node.prior * (1.0 + returned)
                node.value += returned
                node.visits += 1
            root.visits += 1
        return created

    def _descend(self, node: Node, index: int) -> Node | None:
        """Return the child to go on with, a new one under `index`; None where there is none.

        Unvisited children differ by their prior alone: only the most probable one is looked at.
        """
        candidates = self._table.after(node.context)
        if candidates is None:
            return None
        tokens, priors = candidates
        scale = self._exploration * math.sqrt(node.visits)
        best, best_score = None, 0.0
        for child in node.children:
            score = child.value / child.visits + child.prior * scale / (1 + child.visits)
            if score > best_score:
                best, best_score = child, score
        known = len(node.children)
        if known < len(tokens) and priors[known] * (1.0 + scale) > best_score:
            pair = (node.context[1], tokens[known])
            best = Node(pair, node.index, node.depth + 1, priors[known], index)
            node.children.append(best)
        return best
