"""Several draft models: the union of their trees, and what becomes of each model's cache."""

from __future__ import annotations

import pytest
import torch

from specbench.decoding.drafters import several as several_module
from specbench.decoding.drafters.several import Several
from specbench.decoding.growth import Growth
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.topologies.specinfer import merge
from specbench.decoding.topologies.static_tree import StaticTree
from specbench.decoding.tree import DraftTree, DrawKind, Draws
from specbench.decoding.verifiers.rrs import RecursiveRejection
from specbench.errors import ConfigError
from specbench.law import Law
from tests.unit.decoding.parts import Autoregressive, generate, table_pair
from tests.unit.decoding.topologies.composed import error, several, tree_decoder, trees_of

TOLERANCE = 1e-12
WITH = RecursiveRejection(replacement=True)


def merged_trees():
    law = torch.arange(12.0, dtype=torch.float64).reshape(1, 3, 4)
    left = DraftTree(
        torch.tensor([[1, 2, 3]]),
        (-1, -1, 0),
        Draws(DrawKind.WITH_REPLACEMENT, (-1, 0), law[:, :2], ((0, 1, 0), (2,))),
    )
    right = DraftTree(
        torch.tensor([[2, 0]]),
        (-1, 0),
        Draws(DrawKind.WITH_REPLACEMENT, (-1, 0), law[:, 1:], ((0,), (1,))),
    )
    return merge([left, right], [[1, 2, 3], [2, 0]]), law


def test_equal_prefixes_become_one_node_and_every_model_keeps_its_record():
    (tree, origins), law = merged_trees()
    assert tree.tokens.tolist() == [[1, 2, 3, 0]]
    assert tree.parents == (-1, -1, 0, 1)
    assert origins == ((0, 1, 2, -1), (-1, 0, -1, 1))
    assert tree.draws.parents == (-1, 0, -1, 1)
    assert tree.draws.offers == ((0, 1, 0), (2,), (1,), (3,))
    assert torch.equal(tree.draws.law, torch.cat([law[:, :2], law[:, 1:]], 1))
    assert [offer.record for offer in tree.offers[0]] == [0, 0, 0, 2]


@pytest.mark.parametrize("drafts", [1, 2, 3])
def test_the_law_is_the_targets(drafts):
    models = several(vocab=3, drafts=drafts)
    decoder = tree_decoder(StaticTree(widths=[1], replacement=True), WITH, Several())
    assert error(decoder, models, Law(), 3, (1,)) < TOLERANCE


def test_the_law_of_deeper_trees_is_the_targets():
    models = several(vocab=2)
    decoder = tree_decoder(StaticTree(widths=[1, 1], replacement=True), WITH, Several())
    assert error(decoder, models, Law(), 4, (1,)) < TOLERANCE


def test_the_law_without_replacement_is_the_targets():
    models = several(vocab=3)
    decoder = tree_decoder(StaticTree(widths=[2]), None, Several())
    assert error(decoder, models, Law(), 3, (1, 2)) < TOLERANCE


def test_a_child_judged_by_another_models_law_is_caught(monkeypatch):
    """Mutation: all records carry the first model's law."""
    original = several_module.merge

    def mixed_up(trees, tokens):
        merged = original(trees, tokens)
        law = merged.tree.draws.law
        law[:, 1:] = law[:, :1]
        return merged

    monkeypatch.setattr(several_module, "merge", mixed_up)
    models = several(vocab=5)
    decoder = tree_decoder(StaticTree(widths=[1], replacement=True), WITH, Several())
    assert error(decoder, models, Law(), 3, (1, 2)) > 1e-3


@pytest.mark.parametrize("topology", [StaticTree(widths=[2, 1], replacement=True), Chain()])
@pytest.mark.parametrize("shared", [False, True])
def test_models_draw_with_numbers_of_their_own(monkeypatch, shared, topology):
    """Two equal models draw differently; the mutation shares numbers, and they draw alike."""
    if shared:
        original = Growth.__init__

        def same(self, source, state, length, depth, nodes, taken=0):
            original(self, source, state, length, depth, nodes)

        monkeypatch.setattr(Growth, "__init__", same)
    models = table_pair(vocab=5)
    models.more_drafts = (models.draft,)
    drawn = []
    original_grow = type(topology).grow

    def grow(self, growth):
        tree = original_grow(self, growth)
        drawn.append(tree.tokens[0].tolist())
        return tree

    monkeypatch.setattr(type(topology), "grow", grow)
    generate(tree_decoder(topology, WITH, Several()), models, Law(), count=30)
    pairs = list(zip(drawn[::2], drawn[1::2], strict=True))
    assert len(pairs) > 5
    assert all(left == right for left, right in pairs) == shared


@pytest.mark.parametrize("law", [Law(temperature=0), Law(temperature=0, repetition_penalty=1.6)])
@pytest.mark.parametrize("drafts", [1, 3])
def test_greedy_tokens_are_those_of_plain_decoding(law, drafts):
    models = several(vocab=5, order=2, drafts=drafts)
    decoder = tree_decoder(StaticTree(widths=[2, 2, 1], replacement=True), WITH, Several())
    expected = generate(Autoregressive(), models, law, count=40)
    got = generate(decoder, models, law, count=40)
    assert got.tokens == expected.tokens
    assert len(got.rounds) < len(expected.rounds)


def test_one_model_drafts_as_the_plain_drafter():
    models = several(vocab=5, drafts=1)
    topology = StaticTree(widths=[2, 1, 1], replacement=True)
    alone = generate(tree_decoder(topology, WITH, Several()), models, Law(), count=60)
    plain = generate(tree_decoder(topology, WITH), models, Law(), count=60)
    assert alone.tokens == plain.tokens
    assert [r.count for r in alone.rounds] == [r.count for r in plain.rounds]


def test_a_second_model_raises_acceptance_and_its_work_is_counted():
    counts = []
    for drafts in (1, 2):
        models = several(vocab=5, order=2, drafts=drafts)
        decoder = tree_decoder(StaticTree(widths=[1, 1], replacement=True), WITH, Several())
        rounds = generate(decoder, models, Law(), count=600).rounds
        accepted = sum(r.count.accepted for r in rounds) / len(rounds)
        counts.append((accepted, rounds[0].count.draft.forwards, rounds[1].count.draft.forwards))
    assert counts[1][0] > counts[0][0]
    assert [c[1:] for c in counts] == [(1, 2), (2, 4)]


def test_each_models_cache_holds_what_was_committed():
    models = several(vocab=4, order=2)
    decoder = tree_decoder(StaticTree(widths=[2, 2], replacement=True), WITH, Several())
    generation = []
    trees_of(decoder, models, lambda: generation.append(generate(decoder, models, Law(), count=50)))
    text = [0, 1, *generation[0].tokens]
    for index in range(2):
        cache = models._caches[f"draft {index}"][-1]
        known = cache.lengths[0]
        assert known > 30
        assert cache.tokens[0][:known] == text[:known]


def test_a_tree_too_large_for_several_models_is_refused():
    models = several()
    with pytest.raises(ConfigError, match="too large"):
        generate(tree_decoder(StaticTree(widths=[300]), WITH, Several()), models, Law())
