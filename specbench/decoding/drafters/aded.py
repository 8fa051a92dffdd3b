"""Draft by a tree search over the tri-grams of a text: ADED.

Liu, Lei, Zhang, Xu 2024, "Adaptive Draft-Verification for Efficient Large Language Model
Decoding" (arXiv:2407.12021). A table holds how likely a token is after a pair of tokens. Before
every round the tri-grams of the newest 16 tokens are raised in it, a Monte Carlo tree search walks
the table, and the most visited paths are the draft. The target's probabilities are never read.

Read in the authors' code (github.com/liuxukun2000/Adaptix: `DraftRetriever/src/mcts_sub.rs` and
`lib.rs`, `aded/model/utils.py`). What differs here, and why:

- Where the release takes the order of a hash map (which child is visited first, which of equally
  long paths are cut first), the likelier or more visited one is preferred.
- Its table is counted over samples joined by nothing, from a file of its own; here it is counted
  from a suffix datastore, when the run begins and outside of its clock.
- Without a path it proposes token 100; here the round is a plain step.
- It draws a nucleus sample path by path, which is biased; `SampleMatch` draws once per node.
"""

from __future__ import annotations

import random

from specbench.datastore.location import Location, check_model, folder_of
from specbench.datastore.suffix import SuffixDatastore
from specbench.datastore.trigrams import Trigrams, count_trigrams
from specbench.decoding.drafters.base import Drafter, Plan
from specbench.decoding.ranges import check_number, check_whole
from specbench.decoding.search.puct import Row, Search
from specbench.decoding.session import Session
from specbench.decoding.tree import DraftTree
from specbench.models.pair import ModelPair
from specbench.rng import Purpose
from specbench.transfer import to_device

MOST_NODES = 64
"""The release keeps the shortest 64 prefixes of its paths."""


class AdaptiveTable:
    """The tri-grams of a text, and what was raised since.

    Args:
        corpus: The text's tri-grams, or None for an empty table.
    """

    def __init__(self, corpus: Trigrams | None = None) -> None:
        self._corpus = corpus
        self._known: dict[tuple[int, int], Row | None] = {}
        self._raised: dict[tuple[int, int], Row] = {}

    def forget(self) -> None:
        """Return to the text's tri-grams."""
        self._raised.clear()

    def row(self, first: int, second: int) -> Row | None:
        """Return the successors of a pair, or None where there is none."""
        pair = (first, second)
        raised = self._raised.get(pair)
        if raised is not None:
            return raised
        if pair not in self._known:
            counted = self._corpus.after(first, second) if self._corpus is not None else None
            self._known[pair] = Row(*counted) if counted is not None else None
        return self._known[pair]

    def learn(self, text: list[int], step: float, most: float) -> None:
        """Raise the tri-grams of a text.

        Args:
            text: Tokens.
            step: How much each occurrence adds.
            most: Where a weight stops.
        """
        for first, second, token in zip(text, text[1:], text[2:], strict=False):
            row = self.row(first, second)
            weights = dict(zip(row.tokens, row.weights, strict=True)) if row is not None else {}
            weights[token] = min(weights.get(token, 0.0) + step, most)
            tokens = sorted(weights, key=weights.__getitem__, reverse=True)
            self._raised[first, second] = Row(tokens, [weights[token] for token in tokens])


class Aded(Drafter):
    """ADED: adaptive draft-verification.

    Args:
        datastore: Where the text lies: a suffix datastore's folder, or what chooses one.
        draft_length: Tokens of the longest path; the search goes one level less deep, and every
            path is made longer by its likeliest successor.
        simulations: Simulations of one search.
        sentences: Nodes whose paths are kept, the most visited first, the root among them.
        choices: Most distinct tokens of all paths, each path counted by itself; the paths with
            most of them are dropped.
        candidates: Successors that are kept of every pair of the text.
        window: Newest tokens whose tri-grams are raised before a round.
        step: How much each of them is raised; 0 leaves the text's table as it is.
        most: Weight at which a tri-gram stops to be raised.

    Raises:
        ConfigError: If a number is out of its range.
    """

    needs = frozenset({"tree_mask"})
    carries_state = True
    nodes = MOST_NODES

    def __init__(
        self,
        datastore: Location | str,
        draft_length: int = 4,
        simulations: int = 150,
        sentences: int = 24,
        choices: int = 24,
        candidates: int = 12,
        window: int = 16,
        step: float = 0.04,
        most: float = 3.0,
    ) -> None:
        check_whole("draft_length", draft_length, 2, 64)
        check_whole("simulations", simulations, 1)
        check_whole("sentences", sentences, 2)
        check_whole("choices", choices, 1)
        check_whole("candidates", candidates, 1)
        check_whole("window", window, 0)
        check_number("step", step, 0)
        check_number("most", most, 0)
        self._datastore = datastore
        self._depth = draft_length - 1
        self._simulations = simulations
        self._sentences = sentences
        self._choices = choices
        self._candidates = candidates
        self._window = window
        self._step = step
        self._most = most
        self._store: SuffixDatastore | None = None
        self._table = AdaptiveTable()

    def prepare(self, models: ModelPair) -> None:
        """Count the tri-grams of the datastore.

        Raises:
            ConfigError: If there is none, or it belongs to another tokenizer.
        """
        folder = folder_of(self._datastore, models)
        self._store, counted = None, None
        if folder is not None:
            self._store = SuffixDatastore(folder)
            check_model(self._store.metadata, folder, models)
            counted = count_trigrams(self._store, self._candidates)
        self._table = AdaptiveTable(counted)

    def inputs(self) -> dict[str, str]:
        """Return the digest of the datastore."""
        return {"suffix datastore": self._store.metadata.digest()} if self._store else {}

    def reset(self) -> None:
        """Forget what was raised."""
        self._table.forget()

    def propose(self, session: Session, plan: Plan) -> DraftTree | None:
        """Raise the newest tri-grams, search, and return the paths as one tree."""
        text = session.committed
        length = min(self._depth + 1, plan.length.limit(), plan.depth)
        if self._step and self._window:
            self._table.learn(text[-self._window :], self._step, self._most)
        if length < 1 or len(text) < 2:
            return None
        seed = session.request.streams.noise_seed(len(text), Purpose.DRAFT)
        search = Search(self._table.row, text[-2], text[-1], self._depth)
        search.run(self._simulations, random.Random(seed).random)
        paths = cut_to_choices(search.sentences(self._sentences), self._choices)
        tokens, parents = merged(paths, length, self.nodes)
        if not tokens:
            return None
        return DraftTree(to_device([tokens], session.models.target.device), parents)


def cut_to_choices(paths: list[list[int]], choices: int) -> list[list[int]]:
    """Drop the paths of most distinct tokens until those of all sum to `choices` or less.

    The sum counts every path by itself, although paths share their beginnings. Of paths of equally
    many tokens the last goes first.

    Args:
        paths: The paths; equal ones count once.
        choices: The largest sum.
    """
    kept = list(dict.fromkeys(map(tuple, paths)))
    sizes = {path: len(set(path)) for path in kept}
    total = sum(sizes.values())
    for path in sorted(reversed(kept), key=sizes.__getitem__, reverse=True):
        if total <= choices:
            break
        total -= sizes.pop(path)
    return [list(path) for path in kept if path in sizes]


def merged(paths: list[list[int]], length: int, nodes: int) -> tuple[list[int], tuple[int, ...]]:
    """Return the tokens and parents of the tree of all prefixes, in order of depth.

    Args:
        paths: The paths.
        length: Longest prefix that is taken.
        nodes: Most nodes; deeper ones are left out.
    """
    tokens: list[int] = []
    parents: list[int] = []
    ends = [(-1, path) for path in paths]
    for depth in range(length):
        ids: dict[tuple[int, int], int] = {}
        following = []
        for parent, path in ends:
            if depth >= len(path):
                continue
            key = (parent, path[depth])
            if key not in ids:
                if len(tokens) == nodes:
                    return tokens, tuple(parents)
                ids[key] = len(tokens)
                tokens.append(path[depth])
                parents.append(parent)
            following.append((ids[key], path))
        ends = following
    return tokens, tuple(parents)
