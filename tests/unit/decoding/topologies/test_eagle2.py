"""The dynamic tree: which nodes are kept, and that the law stays the target's."""

from __future__ import annotations

import pytest
import torch

from specbench.choices import BY_NUMBER
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.model import ModelDrafter
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.topologies.candidates import Candidates
from specbench.decoding.topologies.eagle2_dynamic import Eagle2Dynamic
from specbench.decoding.verifiers.point_tree import PointTree
from specbench.decoding.verifiers.sample_match import SampleMatch
from specbench.decoding.verifiers.tree_walk import TreeWalk
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, cyclic_table, generate, table_pair

PROMPT = (0, 1, 0, 2, 0, 1)


def decoder(verifier=None, **options):
    topology = Eagle2Dynamic(**options)
    return DraftVerify(
        ModelDrafter(), topology, Constant(options["depth"]), verifier or TreeWalk(PointTree())
    )


def first_tree(composed, models, law=None, count=12, choices=BY_NUMBER):
    """Return the tree of the first round, and the prefix that it follows."""
    trees = []
    composed.probe = lambda scored, verdict: trees.append((scored.tree, scored.positions[0]))
    tokens = generate(composed, models, law or Law(), PROMPT, count, choices=choices).tokens
    tree, position = trees[0]
    return tree, (*PROMPT, *tokens)[:position]


def paths_of(tree):
    tokens = tree.tokens[0].tolist()
    return {tuple(tokens[node] for node in tree.paths(leaf)) for leaf in range(tree.size)}


@pytest.mark.parametrize("verifier", [TreeWalk(PointTree()), SampleMatch()])
@pytest.mark.parametrize("law", [Law(), Law(temperature=0.5), Law(repetition_penalty=1.7)])
def test_the_law_is_the_targets(law, verifier):
    models = table_pair(vocab=2)
    prompt = (0, 1, 0, 0)
    got = output_law(decoder(verifier, top_k=2, nodes=3, depth=2), models, law, prompt, 4)
    assert distance(got, true_law(models, law, prompt, 4)) < 1e-12


def test_the_law_of_wider_trees_is_the_targets():
    models = table_pair()
    got = output_law(decoder(top_k=2, nodes=4, depth=2), models, Law(), PROMPT, 4)
    assert distance(got, true_law(models, Law(), PROMPT, 4)) < 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_greedy_tokens_are_plain_decodings(seed):
    for law in (Law(temperature=0), Law(temperature=0, repetition_penalty=1.4)):
        models = table_pair(vocab=5, sharpness=2.0, seed=seed)
        composed = decoder(top_k=3, nodes=9, depth=4)
        expected = generate(Autoregressive(), models, law, count=40).tokens
        assert generate(composed, models, law, count=40).tokens == expected


def reference(table, prefix, top_k, nodes, depth):
    """Rank all candidates with Python lists."""
    beam, candidates = [((), 1.0)], []
    for _ in range(depth):
        level = []
        for path, value in beam:
            law = table((*prefix, *path)).softmax(-1)
            best = law.argsort(descending=True)[:top_k].tolist()
            level += [((*path, token), value * float(law[token])) for token in best]
        candidates += level
        beam = sorted(level, key=lambda item: -item[1])[:top_k]
    return {path for path, _ in sorted(candidates, key=lambda item: -item[1])[:nodes]}


LAWS = [Law(), Law(0.0), Law(0.5), Law(1.7, top_k=4), Law(0.8, top_p=0.9)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("law", LAWS, ids=Law.describe)
@pytest.mark.parametrize("shape", [(2, 5, 3), (3, 12, 4), (5, 9, 2), (4, 17, 5)])
def test_the_kept_nodes_are_the_best_of_all_candidates_at_every_temperature(shape, law, seed):
    top_k, nodes, depth = shape
    models = table_pair(vocab=5, sharpness=1.5, seed=seed)
    composed = decoder(top_k=top_k, nodes=nodes, depth=depth)
    tree, prefix = first_tree(composed, models, law)
    table = markov_table(2, 5, seed + 1, 1.5)
    assert paths_of(tree) == reference(table, prefix, top_k, nodes, depth)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_warped_ranking_is_that_of_the_drawing_law(temperature):
    changed = 0
    for seed in range(5):
        models = table_pair(vocab=5, sharpness=1.5, seed=seed)
        composed = decoder(top_k=4, nodes=17, depth=4, warped=True)
        tree, prefix = first_tree(composed, models, Law(temperature))
        table = markov_table(2, 5, seed + 1, 1.5)
        warped = reference(lambda text, table=table: table(text) / temperature, prefix, 4, 17, 4)
        assert paths_of(tree) == warped
        changed += warped != reference(table, prefix, 4, 17, 4)
    assert changed


def test_ties_keep_the_tree_closed_under_parents():
    """A draft that is certain gives parent and child the same value: the parent goes first."""
    draft = TableModel(cyclic_table(3, 3), 3)
    models = ModelPair("ties", table_pair().target, draft)
    tree, _ = first_tree(decoder(top_k=2, nodes=3, depth=6), models)
    assert tree.parents == (-1, 0, 1)


def test_losing_the_order_of_ties_is_caught(monkeypatch):
    def unstable(self, count, first=0):
        reverse = torch.arange(self.count - 1, first - 1, -1)
        return reverse[self.scores[reverse].sort(descending=True, stable=True).indices][:count]

    monkeypatch.setattr(Candidates, "best", unstable)
    draft = TableModel(cyclic_table(3, 3), 3)
    models = ModelPair("ties", table_pair().target, draft)
    tree, _ = first_tree(decoder(top_k=2, nodes=3, depth=6), models)
    assert tree is None or tree.parents != (-1, 0, 1)


def test_equal_probabilities_fill_the_tree():
    uniform = TableModel(lambda context: torch.zeros(4, dtype=torch.float64), 4)
    models = ModelPair("uniform", uniform, uniform)
    tree, _ = first_tree(decoder(top_k=3, nodes=11, depth=4), models)
    assert tree.size == 11


def test_tokens_that_the_draft_cannot_draw_are_no_nodes():
    models = table_pair(vocab=5)
    warped = decoder(top_k=4, nodes=20, depth=3, warped=True)
    tree, _ = first_tree(warped, models, Law(top_k=2))
    assert tree.size == 2 + 4 + 8


def test_one_draft_forward_for_each_level():
    generation = generate(decoder(top_k=3, nodes=9, depth=4), table_pair(vocab=5), Law(), count=30)
    count = generation.rounds[1].count
    assert (count.draft.forwards, count.nodes, count.target.forwards) == (4, 9, 1)


@pytest.mark.parametrize("values", [(0, 5, 2), (6, 5, 2), (2, 0, 2), (2, 5, 0), (2, 2000, 3)])
def test_impossible_budgets_are_refused_with_the_range(values):
    top_k, nodes, depth = values
    with pytest.raises(ConfigError, match="is not possible"):
        Eagle2Dynamic(top_k, nodes, depth)
