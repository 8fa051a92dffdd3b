"""A chain with leaves: how wide it is, what it declares, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.self_skip import SelfSkip
from specbench.decoding.lengths.confidence import ConfidenceStop
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.topologies.chain_leaves import ChainLeaves
from specbench.decoding.tree import DrawKind
from specbench.decoding.verifiers.rrs import RecursiveRejection
from specbench.decoding.verifiers.tree_walk import TreeWalk
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import generate


def skipping_pair(vocab):
    plain, skipped = markov_table(2, vocab, 0), markov_table(2, vocab, 1)
    return ModelPair("table", TableModel(plain, vocab, skipped=skipped))


def leaves_decoder(leaves, length):
    walk = TreeWalk(RecursiveRejection(replacement=False))
    return DraftVerify(SelfSkip([1], [2]), leaves, length, walk)


def test_levels_are_as_wide_as_the_draft_is_unsure():
    logits = torch.tensor([[9.0, 0, 0, 0, 0, 0], [2.0, 0.5, 0, 0, 0, 0], [0.2, 0.1, 0, 0, 0, 0]])
    table = {n % 3: logits[n % 3].double() for n in range(3)}
    target = TableModel(lambda context: table[len(context) % 3], 6)
    trees = []
    for law, widths in ((Law(0.0), (2, 4, 5)), (Law(), (1, 3, 6))):
        leaves = ChainLeaves((0.9, 0.5), (2, 4, 5), (1, 3, 6), max_depth=3)
        decoder = leaves_decoder(leaves, Constant(3))
        trees.clear()
        decoder.probe = lambda scored, verdict: trees.append(scored.tree)
        generate(decoder, ModelPair("t", target), law, (0, 1), 16)
        tree = trees[0]
        assert tree.depth == 3 and tree.size == sum(widths)
        for level, expanded in enumerate(tree.draws.parents):
            position = 3 + level
            children = tree.children[expanded + 1]
            assert len(children) == widths[position % 3]
            assert len({int(tree.tokens[0, child]) for child in children}) == len(children)
        assert (tree.draws.kind is DrawKind.POINT) == law.greedy
        assert list(tree.draws.parents[1:]) == [
            tree.children[p + 1][0] for p in tree.draws.parents[:-1]
        ], "the first child goes on"


@pytest.mark.parametrize("law", [Law(), Law(0.6)], ids=Law.describe)
def test_widths_that_follow_the_drawn_token_keep_the_law(law):
    models = skipping_pair(3)
    leaves = ChainLeaves((0.5, 0.3, 0.2), sampled_widths=(1, 3, 2, 1), max_depth=2)
    got = output_law(
        leaves_decoder(leaves, ConfidenceStop(0.25, 2, raw=True)), models, law, (0, 1), 3
    )
    assert distance(got, true_law(models, law, (0, 1), 3)) < 1e-12


def test_a_law_with_few_tokens_offers_no_others():
    models, law = skipping_pair(5), Law(top_k=2)
    trees = []
    leaves = ChainLeaves(sampled_widths=(4, 4, 4, 4), max_depth=2)
    decoder = leaves_decoder(leaves, Constant(2))
    decoder.probe = lambda scored, verdict: trees.append(scored.tree)
    generate(decoder, models, law, count=20)
    assert {len(tree.children[0]) for tree in trees if tree.size} == {2}


def test_one_child_at_every_level_is_a_chain():
    models = skipping_pair(5)
    ones = ChainLeaves(greedy_widths=(1,) * 4, sampled_widths=(1,) * 4, max_depth=4)
    left, right = (leaves_decoder(topology, ConfidenceStop(0.4, 4)) for topology in (ones, Chain()))
    left, right = (generate(decoder, models, Law(0.0), count=40) for decoder in (left, right))
    assert left.tokens == right.tokens
    assert [r.count for r in left.rounds] == [r.count for r in right.rounds]


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"bounds": (0.5, 0.8, 0.95)}, "confidences"),
        ({"bounds": (1.5, 0.8, 0.5)}, "confidences"),
        ({"greedy_widths": (3, 5)}, "greedy_widths"),
        ({"sampled_widths": (0, 1, 2, 3)}, "sampled_widths"),
        ({"max_depth": 0}, "depth"),
    ],
)
def test_trees_that_cannot_be_are_refused(values, word):
    with pytest.raises(ConfigError, match=word):
        ChainLeaves(**values)
