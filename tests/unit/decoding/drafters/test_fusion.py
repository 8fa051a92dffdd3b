"""Merged trees are unions of prefixes; each drafter learns of its own nodes alone."""

from __future__ import annotations

import pytest
import torch

from specbench.clock import CpuClock
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters import fusion
from specbench.decoding.drafters.base import Drafter
from specbench.decoding.drafters.dense_retrieval import DenseRetrieval
from specbench.decoding.drafters.fusion import Fusion, merge
from specbench.decoding.drafters.model import ModelDrafter
from specbench.decoding.drafters.rest import SuffixRetrieval
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.request import Request
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.topologies.static_tree import StaticTree
from specbench.decoding.tree import DraftTree
from specbench.decoding.verifiers.point_tree import PointTree
from specbench.decoding.verifiers.sample_match import SampleMatch
from specbench.decoding.verifiers.tree_walk import TreeWalk
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.base import View
from specbench.rng import Streams
from tests.unit.decoding.drafters.stores import (
    dense_store,
    paths_of,
    random_texts,
    suffix_store,
    typical_texts,
    watch,
)
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, RandomTrees, generate, table_pair

LAWS = [Law(temperature=0), Law(temperature=0, repetition_penalty=1.5), Law(), Law(top_p=0.8)]


def random_tree(seed, nodes=15, vocab=3):
    generator = torch.Generator().manual_seed(seed)

    def pick(high):
        return int(torch.randint(0, high, (1,), generator=generator))

    tokens, parents = [], []
    for _ in range(nodes):
        parent, token = pick(len(tokens) + 1) - 1, pick(vocab)
        if (parent, token) not in zip(parents, tokens, strict=True):
            tokens.append(token)
            parents.append(parent)
    return DraftTree(torch.tensor([tokens]), tuple(parents))


@pytest.mark.parametrize("seed", range(30))
def test_the_merged_tree_is_the_union_of_prefixes(seed):
    one, two = random_tree(seed), random_tree(seed + 1000)
    merged = merge(one, two)
    ours, theirs, both = paths_of(one), paths_of(two), paths_of(merged.tree)
    assert len(both) == len(set(both)) == len(set(ours) | set(theirs))
    assert both[: one.size] == ours, "the first tree keeps its numbers"
    assert [both[place] for place in merged.second] == theirs


@pytest.mark.parametrize("seed", range(30))
def test_pruning_keeps_the_paths_that_begin_with_a_wanted_token(seed):
    one, two = random_tree(seed), random_tree(seed + 1000)
    merged = merge(one, two, frozenset({1}))
    kept = {path for path in paths_of(two) if path[0] == 1}
    assert set(paths_of(merged.tree)) == set(paths_of(one)) | kept
    for path, place in zip(paths_of(two), merged.second, strict=True):
        assert (place >= 0) == (path in kept)


def fused(store, models, prune_top=0, topology=None, verifier=None, second=None):
    parts = Fusion(ModelDrafter(), second or SuffixRetrieval(store, shortest=1), prune_top)
    decoder = DraftVerify(parts, topology or Chain(), Constant(3), verifier or SampleMatch())
    decoder.prepare(models)
    return decoder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return suffix_store(tmp_path_factory.mktemp("fusion") / "store", typical_texts(5, seed=0))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("prune_top", [0, 2])
@pytest.mark.parametrize("shape", ["chain", "tree"])
def test_fusion_changes_no_token(store, law, prune_top, shape):
    models = table_pair(vocab=5)
    topology = Chain() if shape == "chain" else StaticTree(widths=[2, 2])
    expected = generate(Autoregressive(), models, law, count=50)
    got = generate(fused(store, models, prune_top, topology), models, law, count=50)
    assert got.tokens == expected.tokens
    assert len(got.rounds) < len(expected.rounds)


@pytest.mark.parametrize("verifier", [SampleMatch(), TreeWalk(PointTree())])
@pytest.mark.parametrize("prune_top", [0, 1])
def test_the_emitted_law_is_the_targets(tmp_path, verifier, prune_top):
    models = table_pair(vocab=3)
    store = suffix_store(tmp_path / "s", random_texts(0, 3, count=1, length=6))
    decoder = fused(store, models, prune_top, Chain(), verifier)
    decoder.length = Constant(1)
    emitted = output_law(decoder, models, Law(), (0, 1), 3)
    assert distance(emitted, true_law(models, Law(), (0, 1), 3)) < 1e-12


def chains_are_the_drafts_own(decoder, models, count=40):
    """Say of every round whether the first three nodes are the draft's greedy chain."""
    seen = watch(decoder)
    request = Request((0, 1), count, Law(), Streams(0), draft_law=Law(temperature=0))
    tokens = [0, 1, *decoder.generate(models, request, CpuClock()).tokens]
    right = []
    for scored, _ in seen:
        text = tokens[: scored.positions[0]]
        depth = min(3, 2 + count - len(text) - 1)
        chain = []
        for _ in range(depth):
            cache = models.draft.new_cache(1, 99)
            fed = torch.tensor([[*text, *chain]])
            chain.append(int(models.draft.forward(fed, cache, View(last=1)).argmax()))
        right.append(paths_of(scored.tree)[:depth] == [tuple(chain[: n + 1]) for n in range(depth)])
    in_retrieval = any(max(verdict.path, default=0) >= 3 for _, verdict in seen)
    assert in_retrieval, "some accepted path lies in the retrieved part"
    return right


def test_the_model_drafts_as_if_it_were_alone(store):
    """An accepted path through retrieved nodes leaves the draft's cache at the committed text."""
    models = table_pair(vocab=5)
    assert all(chains_are_the_drafts_own(fused(store, models), models))


def test_a_path_that_is_not_translated_would_be_noticed(store, monkeypatch):
    """Mutation: the model is told of the merged tree's path as if it were its own."""

    def careless(outcome, taps, tree, places):
        shifted = tuple(max(node - 3, 0) for node in outcome.verdict.path)
        return outcome._replace(verdict=outcome.verdict._replace(path=shifted))

    monkeypatch.setattr(fusion, "_restricted", careless)
    models = table_pair(vocab=5)
    with pytest.raises(AssertionError):
        assert all(chains_are_the_drafts_own(fused(store, models), models))


class Recorder(RandomTrees, Drafter):
    """Proposes random trees and checks every outcome against what it proposed."""

    def taps(self, models):
        return (-1,)

    def __init__(self, seed, vocab):
        RandomTrees.__init__(self, seed, nodes=8, vocab=vocab)
        self.outcomes = []

    def begin(self, session, prefill):
        assert len(prefill.hidden) == 1
        return self

    def propose(self, state, plan):
        self._tree = RandomTrees.propose(self, state, plan)
        return self._tree

    def observe(self, state, outcome):
        self.outcomes.append((self._tree, outcome, list(state.committed)))


@pytest.mark.parametrize("prune_top", [0, 1])
def test_each_drafter_sees_its_own_tree_with_its_own_scores(store, prune_top):
    models = table_pair(vocab=5)
    recorder = Recorder(0, 5)
    decoder = fused(store, models, prune_top, second=recorder)
    seen = watch(decoder)
    generate(decoder, models, Law(), count=60)
    pruned = 0
    for (scored, verdict), (tree, outcome, committed) in zip(seen, recorder.outcomes, strict=True):
        if tree is None:
            assert outcome.tree.size == 0
            continue
        proposed, shown, whole = paths_of(tree), paths_of(outcome.tree), paths_of(scored.tree)
        assert set(shown) <= set(proposed)
        assert prune_top or shown == proposed
        pruned += len(proposed) - len(shown)
        places = [-1, *(whole.index(path) for path in shown)]
        rows = torch.tensor(places) + 1
        assert torch.equal(outcome.scored.logits, scored.logits[:, rows])
        codes = committed[-len(verdict.tokens) - 1 : -1]  # of all that was kept, whoever drafted it
        assert outcome.kept[0][0].argmax(-1).tolist() == codes
        accepted = [whole[node] for node in verdict.path]
        assert [shown[node] for node in outcome.verdict.path] == [
            path for path in accepted if path in shown
        ]
    assert (pruned > 0) == (prune_top > 0)


def test_two_retrievers_need_no_model(tmp_path, store):
    models = table_pair(vocab=5)
    dense = dense_store(tmp_path / "d", typical_texts(5, seed=0), models)
    parts = Fusion(SuffixRetrieval(store), DenseRetrieval(dense), 3)
    assert parts.needs == {"tree_mask", "hidden_states"} and parts.taps(models) == (-1,)
    decoder = DraftVerify(parts, Chain(), Constant(9), SampleMatch())
    decoder.prepare(models)
    expected = generate(Autoregressive(), models, Law(), count=50)
    got = generate(decoder, models, Law(), count=50)
    assert got.tokens == expected.tokens and len(got.rounds) < 50


def test_a_negative_pruning_is_refused():
    with pytest.raises(ConfigError, match="prune_top"):
        Fusion(ModelDrafter(), ModelDrafter(), -1)
