"""DySpec's tree is the heap's, its values mean what they say, and its draws are lossless."""

from __future__ import annotations

import heapq
from itertools import pairwise

import pytest
import torch

from specbench.choices import Choices
from specbench.clock import CpuClock
from specbench.decoding import growth as growth_module
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.model import ModelDrafter
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.request import Request
from specbench.decoding.topologies import dyspec as dyspec_module
from specbench.decoding.topologies.dyspec import DySpec
from specbench.decoding.verifiers.rrs import RecursiveRejection
from specbench.decoding.verifiers.sample_match import SampleMatch
from specbench.decoding.verifiers.tree_walk import TreeWalk
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import markov_table
from specbench.rng import Streams
from tests.unit.decoding.enumeration import GuessedScript, distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, generate, table_pair
from tests.unit.decoding.topologies.test_eagle2 import PROMPT, first_tree, paths_of


def decoder(verifier=None, **options):
    topology = DySpec(**options)
    verifier = verifier or TreeWalk(RecursiveRejection(replacement=False))
    return DraftVerify(ModelDrafter(), topology, Constant(options["depth"]), verifier)


SMALL = {"nodes": 3, "depth": 2, "children": 2}


@pytest.mark.parametrize("law", [Law(), Law(temperature=0.5), Law(top_k=2)])
@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_the_law_is_the_targets(law, threshold):
    models = table_pair()
    got = output_law(decoder(threshold=threshold, **SMALL), models, law, PROMPT, 3)
    assert distance(got, true_law(models, law, PROMPT, 3)) < 1e-12


@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_the_law_of_deeper_trees_is_the_targets(threshold):
    models = table_pair(vocab=2)
    composed = decoder(nodes=4, depth=3, children=2, threshold=threshold)
    got = output_law(composed, models, Law(), (0, 1, 0, 1), 5)
    assert distance(got, true_law(models, Law(), (0, 1, 0, 1), 5)) < 1e-12


@pytest.mark.slow
def test_the_law_of_deeper_and_wider_trees_is_the_targets():
    models = table_pair(order=1)
    got = output_law(decoder(**SMALL), models, Law(), PROMPT, 4)
    assert distance(got, true_law(models, Law(), PROMPT, 4)) < 1e-12


def test_choosing_tokens_for_what_they_are_is_caught(monkeypatch):
    """Improbable tokens must not be left out once they are drawn."""
    original = dyspec_module._Slots.open

    def choosy(self, values, chances):
        return [slot for slot in original(self, values, chances) if slot.below > 0.3 * slot.value]

    monkeypatch.setattr(dyspec_module._Slots, "open", choosy)
    monkeypatch.setattr(dyspec_module._Slots, "best", lambda self: [])
    monkeypatch.setattr(
        growth_module.Growth,
        "finish",
        lambda self, kind, keep=None, finish=growth_module.Growth.finish: finish(self, kind),
    )
    models = table_pair()
    got = output_law(decoder(**SMALL), models, Law(), PROMPT, 3)
    assert distance(got, true_law(models, Law(), PROMPT, 3)) > 1e-3


def test_offering_siblings_out_of_draw_order_is_caught(monkeypatch):
    original = dyspec_module._Slots.open

    def by_probability(self, values, chances):
        return sorted(original(self, values, chances), key=lambda slot: (slot.row, -slot.below))

    monkeypatch.setattr(dyspec_module._Slots, "open", by_probability)
    models = table_pair()
    got = output_law(decoder(nodes=2, depth=1, children=2), models, Law(), PROMPT, 3)
    assert distance(got, true_law(models, Law(), PROMPT, 3)) > 1e-3


@pytest.mark.parametrize("seed", range(4))
def test_greedy_tokens_are_plain_decodings(seed):
    for law in (Law(temperature=0), Law(temperature=0, repetition_penalty=1.4)):
        models = table_pair(vocab=5, sharpness=2.0, seed=seed)
        expected = generate(Autoregressive(), models, law, count=40).tokens
        composed = decoder(nodes=9, depth=4, children=3)
        assert generate(composed, models, law, count=40).tokens == expected


class InTurn(Choices):
    """Draws tokens in an order that depends on the law alone, not the likeliest first."""

    def draw_distinct(self, probabilities, uniforms):
        return probabilities.argsort(descending=True).roll(1, -1)[..., : uniforms.shape[-1]]


def heap_tree(table, prefix, nodes, depth):
    """Return the paths of the paper's heap, popped one by one, and the popped values."""
    heap = [(-1.0, 0, (), ())]  # value, order, node, siblings drawn before
    popped, paths, order = [], set(), 0
    while heap and len(paths) < nodes:
        value, _, node, tried = heapq.heappop(heap)
        law = table((*prefix, *node)).softmax(-1)
        token = InTurn().draw_distinct(law[None], torch.zeros(1, len(law)))[0, len(tried)].item()
        chance = float(law[token] / (1 - law[list(tried)].sum()))
        popped.append(-value)
        paths.add((*node, token))
        order += 2
        if len(node) + 1 < depth:
            heapq.heappush(heap, (value * chance, order, (*node, token), ()))
        if len(tried) + 1 < len(law):
            heapq.heappush(heap, (value * (1 - chance), order + 1, node, (*tried, token)))
    return paths, popped


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("nodes", [1, 5, 20, 64])
def test_the_tree_is_the_heaps(nodes, seed):
    models = table_pair(vocab=5, sharpness=1.5, seed=seed)
    composed = decoder(nodes=nodes, depth=5, children=5)
    tree, prefix = first_tree(composed, models, count=20, choices=InTurn())
    expected, popped = heap_tree(markov_table(2, 5, seed + 1, 1.5), prefix, nodes, depth=5)
    assert all(above >= below - 1e-12 for above, below in pairwise(popped))
    assert paths_of(tree) == expected


@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.4])
def test_a_threshold_keeps_the_slots_above_it(threshold):
    models = table_pair(vocab=5, sharpness=1.5)
    composed = decoder(nodes=100, depth=5, children=5, threshold=threshold)
    tree, prefix = first_tree(composed, models, count=20, choices=InTurn())
    _, popped = heap_tree(markov_table(2, 5, 1, 1.5), prefix, 400, depth=5)
    assert tree.size == sum(value > threshold for value in popped) < 100


class Enough(Exception):
    """The first round is over."""


def first_rounds(composed, models, prompt):
    """Yield (weight, tree, accepted) of the first round for every random choice in it."""
    pending = [[]]
    while pending:
        script = GuessedScript(pending.pop())
        seen = []

        def keep(scored, verdict, seen=seen):
            seen.append((scored.tree, len(verdict.path)))
            raise Enough

        composed.probe = keep
        request = Request(prompt, 4, Law(), Streams(0, "values"), choices=script)
        with pytest.raises(Enough):
            composed.generate(models, request, CpuClock())
        yield script.weight, *seen[0]
        pending += script.branches


def test_with_equal_models_the_values_are_acceptance_probabilities(monkeypatch):
    """Under sample matching, a node is accepted with the value of its own first slot."""
    target = table_pair(vocab=2).target
    models = ModelPair("equal", target, target)
    values = []
    original = dyspec_module._Slots.best

    def remember(self):
        best = original(self)
        values.append([self.below[node] for node in best])
        return best

    opened = dyspec_module._Slots.open

    def noting(self, laws, chances):
        chosen = opened(self, laws, chances)
        self.below = [*getattr(self, "below", []), *(slot.below for slot in chosen)]
        return chosen

    monkeypatch.setattr(dyspec_module._Slots, "best", remember)
    monkeypatch.setattr(dyspec_module._Slots, "open", noting)
    expected = accepted = 0.0
    composed = decoder(SampleMatch(), nodes=4, depth=2, children=2)
    for weight, tree, count in first_rounds(composed, models, (0, 1, 0, 1)):
        first = values[0]
        values.clear()
        assert len(first) == tree.size
        expected += weight * sum(first)
        accepted += weight * count
    assert accepted == pytest.approx(expected, abs=1e-12)
    assert accepted > 1


def test_with_equal_models_recursive_rejection_takes_every_first_child():
    target = table_pair().target
    models = ModelPair("equal", target, target)
    composed = decoder(nodes=6, depth=3, children=3)
    paths = []

    def first_children(scored, verdict):
        leftmost, node = [], -1
        while scored.tree.children[node + 1]:
            node = scored.tree.offers[node + 1][0].node
            leftmost.append(node)
        paths.append(verdict.path == tuple(leftmost))

    composed.probe = first_children
    generate(composed, models, Law(), count=60)
    assert all(paths)


def test_a_sharper_draft_grows_a_deeper_tree():
    depths = []
    for sharpness in (0.5, 2.0, 6.0):
        models = table_pair(vocab=5, sharpness=sharpness)
        tree, _ = first_tree(decoder(nodes=16, depth=16, children=5), models, count=40)
        depths.append(tree.depth)
    assert depths[0] < depths[-1]


@pytest.mark.parametrize(
    "options",
    [
        {"nodes": 0},
        {"nodes": 2000},
        {"depth": 0},
        {"nodes": 1024, "depth": 100},
        {"children": 0},
        {"threshold": 1.0},
        {"threshold": -0.1},
    ],
)
def test_impossible_budgets_are_refused_with_the_range(options):
    with pytest.raises(ConfigError, match="is not possible") as caught:
        DySpec(**options)
    assert "Choose" in caught.value.fix
