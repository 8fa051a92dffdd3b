"""SpecExec's tree is the best of all, and its tokens are plain decoding's."""

from __future__ import annotations

import itertools
import math

import pytest

from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.model import ModelDrafter
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.topologies.specexec import SpecExec
from specbench.decoding.verifiers.sample_match import SampleMatch
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.table import markov_table
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, generate, table_pair
from tests.unit.decoding.topologies.test_eagle2 import PROMPT, first_tree, paths_of


def decoder(depth, **options):
    return DraftVerify(ModelDrafter(), SpecExec(**options), Constant(depth), SampleMatch())


@pytest.mark.parametrize("law", [Law(), Law(temperature=0.5), Law(repetition_penalty=1.7)])
def test_the_law_is_the_targets(law):
    models = table_pair(vocab=2)
    composed = decoder(2, nodes=3, beam=2, children=2)
    got = output_law(composed, models, law, (0, 1, 0, 0), 4)
    assert distance(got, true_law(models, law, (0, 1, 0, 0), 4)) < 1e-12


def test_the_law_over_three_tokens_is_the_targets():
    models = table_pair()
    composed = decoder(1, nodes=2, beam=2, children=3)
    got = output_law(composed, models, Law(top_k=2), PROMPT, 3)
    assert distance(got, true_law(models, Law(top_k=2), PROMPT, 3)) < 1e-12


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("law", [Law(temperature=0), Law(), Law(0.7, repetition_penalty=1.4)])
def test_tokens_are_plain_decodings_at_every_temperature(law, seed):
    models = table_pair(vocab=5, sharpness=2.0, seed=seed)
    composed = decoder(4, nodes=9, beam=3, children=4)
    expected = generate(Autoregressive(), models, law, count=40).tokens
    assert generate(composed, models, law, count=40).tokens == expected


@pytest.mark.parametrize("law", [Law(), Law(temperature=0)])
def test_a_tree_of_everything_accepts_its_whole_depth(law):
    """V = 3 and depth 3: every round emits three draft tokens and the bonus."""
    composed = decoder(3, nodes=3 + 9 + 27, beam=64, children=3)
    generation = generate(composed, table_pair(sharpness=2.0), law, count=1 + 4 * 6)
    assert [entry.count.emitted for entry in generation.rounds[1:]] == [4] * 6


@pytest.mark.parametrize("beam", [2, 128])
@pytest.mark.parametrize(
    ("decay", "temperature"), [(1.0, 1.0), (0.95, 0.5), (0.6, 1.0), (0.9, 0.0)]
)
@pytest.mark.parametrize("seed", range(4))
def test_the_kept_nodes_are_the_best_of_all_paths(seed, decay, temperature, beam):
    """Stopping early loses nothing: the same nodes as ranking every path of the vocabulary."""
    nodes, depth, vocab = 12, 4, 4
    models = table_pair(vocab=vocab, sharpness=3.0, seed=seed)
    # A small beam needs more turns than levels to find them, so its tree is checked in part.
    composed = decoder(depth, nodes=nodes, beam=beam, children=vocab, decay=decay)
    tree, prefix = first_tree(composed, models, Law(temperature))
    table = markov_table(2, vocab, seed + 1, 3.0)
    scores = {}
    for length in range(1, depth + 1):
        for path in itertools.product(range(vocab), repeat=length):
            laws = (table((*prefix, *path[:i])).log_softmax(-1)[path[i]] for i in range(length))
            scores[path] = float(sum(laws)) + length * math.log(decay)
    best = set(sorted(scores, key=scores.__getitem__, reverse=True)[:nodes])
    if beam >= nodes:
        assert paths_of(tree) == best
    else:
        assert tree.size == nodes and len(paths_of(tree) & best) >= nodes // 2


def test_growth_ends_when_no_candidate_can_be_kept():
    composed = decoder(32, nodes=8, beam=128, children=5)
    generation = generate(composed, table_pair(vocab=5), Law(), count=40)
    rounds = [entry.count for entry in generation.rounds[1:-6]]
    assert max(count.draft.forwards for count in rounds) < 10
    assert all(count.draft.tokens <= 8 * 8 + 2 for count in rounds)


def test_the_value_of_depth_is_discounted():
    models = table_pair(vocab=5, sharpness=3.0)
    depths = []
    for decay in (1.0, 0.5, 0.05):
        tree, _ = first_tree(decoder(8, nodes=10, beam=64, children=5, decay=decay), models)
        depths.append(tree.depth)
    assert depths[0] > depths[-1]
    assert depths == sorted(depths, reverse=True)


@pytest.mark.parametrize(
    "options",
    [{"nodes": 0}, {"nodes": 5000}, {"beam": 0}, {"children": 0}, {"decay": 0.0}, {"decay": 1.1}],
)
def test_impossible_budgets_are_refused_with_the_range(options):
    with pytest.raises(ConfigError, match="is not possible") as caught:
        SpecExec(**options)
    assert "Choose" in caught.value.fix
