"""Independent chains that share equal prefixes."""

from __future__ import annotations

import pytest

from specbench.decoding.topologies.k_chains import KChains
from specbench.decoding.topologies.static_tree import StaticTree
from specbench.decoding.tree import DrawKind
from specbench.decoding.verifiers.kseq import KSequential
from specbench.decoding.verifiers.rrs import RecursiveRejection
from specbench.errors import ConfigError
from specbench.law import Law
from tests.unit.decoding.parts import Autoregressive, generate, table_pair
from tests.unit.decoding.topologies.composed import error, tree_decoder, trees_of

TOLERANCE = 1e-12


@pytest.mark.parametrize("rule", [KSequential(), RecursiveRejection(replacement=True)])
def test_the_law_is_the_targets(rule):
    models = table_pair(vocab=2, order=1)
    assert error(tree_decoder(KChains(2, 2), rule), models, Law(), 4, (1,)) < TOLERANCE


@pytest.mark.parametrize("rule", [KSequential(), RecursiveRejection(replacement=True)])
def test_the_law_of_three_candidates_is_the_targets(rule):
    models = table_pair(vocab=3, order=1)
    assert error(tree_decoder(KChains(3, 1), rule), models, Law(), 3, (1,)) < TOLERANCE


def test_a_repeated_draw_that_is_offered_once_is_caught(monkeypatch):
    """Mutation: equal draws become one offer, so that K is smaller than what was drawn."""
    from specbench.decoding import growth

    original = growth.Assembly.__init__

    def forgetful(self, raw, repeats):
        original(self, raw, False)

    monkeypatch.setattr(growth.Assembly, "__init__", forgetful)
    models = table_pair(vocab=5, order=1)
    rule = RecursiveRejection(replacement=True)
    assert error(tree_decoder(KChains(2, 1), rule), models, Law(), 3, (1, 2)) > 1e-3


def test_every_draw_is_recorded_and_equal_prefixes_are_one_node():
    models = table_pair(vocab=3)
    decoder = tree_decoder(KChains(4, 2), KSequential())
    trees = trees_of(decoder, models, lambda: generate(decoder, models, Law(), count=60))
    merged = 0
    for tree in trees:
        assert tree.draws.kind is DrawKind.WITH_REPLACEMENT
        draws = [len(drawn) for drawn in tree.draws.offers]
        assert draws[0] == 4
        assert sum(draws) == 4 * tree.depth
        tokens = tree.tokens[0].tolist()
        keys = list(zip(tree.parents, tokens, strict=True))
        assert len(set(keys)) == tree.size
        merged += tree.size < 4 * tree.depth
    assert merged


@pytest.mark.parametrize("law", [Law(temperature=0), Law(temperature=0, repetition_penalty=1.6)])
def test_greedy_chains_are_one_chain_and_change_no_token(law):
    models = table_pair(vocab=5)
    decoder = tree_decoder(KChains(4, 3), KSequential())
    trees = []
    decoder.probe = lambda scored, verdict: trees.append(scored.tree)
    expected = generate(Autoregressive(), models, law, count=40)
    assert generate(decoder, models, law, count=40).tokens == expected.tokens
    assert all(tree.is_chain for tree in trees)


def test_one_chain_accepts_as_a_tree_of_width_one():
    models = table_pair(vocab=4)
    law = Law()
    chain = generate(tree_decoder(KChains(1, 3), KSequential()), models, law, count=80)
    rule = RecursiveRejection(replacement=True)
    tree = generate(
        tree_decoder(StaticTree(widths=[1, 1, 1], replacement=True), rule), models, law, count=80
    )
    assert chain.tokens == tree.tokens


@pytest.mark.parametrize(("count", "length"), [(0, 1), (1, 0), (600, 2)])
def test_impossible_numbers_are_refused(count, length):
    with pytest.raises(ConfigError, match="chains"):
        KChains(count, length)
