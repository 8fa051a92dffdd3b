"""Trees whose shape the host knows are the trees that reading it back would give."""

from __future__ import annotations

import pytest
import torch

from specbench.decoding.assembly import Places, complete
from specbench.decoding.growth import Growth
from specbench.decoding.topologies.k_chains import KChains
from specbench.decoding.topologies.static_tree import StaticTree
from specbench.decoding.topologies.top_plus_one import TopPlusOne
from specbench.law import Law
from tests.unit.decoding.parts import table_pair
from tests.unit.decoding.test_growth import growth_on

GREEDY = Law(temperature=0.0)
PATHS = [[0], [1], [2], [0, 0], [0, 1], [2, 0], [0, 0, 0], [2, 0, 0], [2, 0, 1]]
CASES = {
    "paths": (lambda: StaticTree(paths=PATHS), GREEDY),
    "widths": (lambda: StaticTree(widths=[3, 2, 2]), GREEDY),
    "with replacement": (lambda: StaticTree(widths=[2, 2], replacement=True), GREEDY),
    "copies": (lambda: StaticTree(widths=[3, 2, 2], replacement=True, copies=True), GREEDY),
    "chain": (lambda: KChains(3, 4), GREEDY),
    "top plus one": (lambda: TopPlusOne(3, 3), GREEDY),
    "top plus one, sampled": (lambda: TopPlusOne(3, 3), Law(top_k=4)),
    "top plus one, narrower than wide": (lambda: TopPlusOne(4, 2), Law(top_k=2)),
}


def grown(case, depth, monkeypatch=None):
    topology, law = CASES[case]
    growth = growth_on(table_pair(vocab=7, sharpness=2.0), law, depth)
    if monkeypatch is not None:
        monkeypatch.setattr(Growth, "finish_places", lambda self, kind, places: self.finish(kind))
    return topology().grow(growth), growth


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_nothing_differs_from_a_tree_that_was_read(case, depth, monkeypatch):
    tree, growth = grown(case, depth)
    read, reader = grown(case, depth, monkeypatch)
    assert tree.tokens.tolist() == read.tokens.tolist() and tree.parents == read.parents
    assert (tree.draws.kind, tree.draws.parents) == (read.draws.kind, read.draws.parents)
    assert tree.draws.offers == read.draws.offers
    assert (tree.draws.law is None) == (read.draws.law is None)
    if read.draws.law is not None:
        assert torch.equal(tree.draws.law, read.draws.law)
    assert growth._slots == reader._slots


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_copies_of_the_argmax_are_one_chain(depth):
    """What Multi-Candidate Speculative Decoding draws with replacement at temperature 0."""
    tree, _ = grown("copies", depth)
    best, _ = grown("widths", depth)
    chain = [0]
    while best.children[chain[-1] + 1]:
        chain.append(best.children[chain[-1] + 1][0])
    assert tree.parents == tuple(range(-1, depth - 1))
    assert tree.tokens[0].tolist() == best.tokens[0, chain].tolist()


@pytest.mark.parametrize("case", ["widths", "top plus one, sampled"])
def test_a_known_shape_is_not_read(case, monkeypatch):
    def refused(tensor):
        raise AssertionError("the device was looked at")

    monkeypatch.setattr("specbench.decoding.growth.read", refused)
    assert grown(case, 3)[0].size > 3


def test_a_tree_wider_than_the_vocabulary_is_read():
    growth = growth_on(table_pair(vocab=3), GREEDY, 2)
    tree = StaticTree(widths=[5, 2]).grow(growth)
    siblings = [[tree.tokens[0, node].item() for node in nodes] for nodes in tree.children]
    assert all(len(set(tokens)) == len(tokens) for tokens in siblings)
    assert len(tree.children[0]) == 3


def test_complete_trees():
    assert complete(1, 3) == Places((-1, 0, 1), (1, 2, -1))
    assert complete(2, 2) == Places((-1, -1, 0, 0, 1, 1), (1, 2, -1, -1, -1, -1))
    places = complete(2, 2)
    assert places.records == (-1, 0, 1) and places.rows == (0, 1, 2)
    assert places.offers == ((0, 1), (2, 3), (4, 5))
