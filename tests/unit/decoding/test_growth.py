"""Trees grown by a draft model: laws, masks, records and the draft's cache."""

from __future__ import annotations

import pytest
import torch

from specbench.clock import CpuClock
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.model import ModelDrafter, read_prompt
from specbench.decoding.ground import DraftModel
from specbench.decoding.growth import Growth
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.request import Request
from specbench.decoding.session import Session
from specbench.decoding.topologies.base import Topology
from specbench.decoding.tree import DrawKind
from specbench.decoding.verifiers.sample_match import SampleMatch
from specbench.law import History, Law
from specbench.rng import Streams
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, generate, table_pair

PROMPT = (0, 1, 0, 2)
LAWS = {
    "plain": Law(),
    "penalty": Law(temperature=0.8, repetition_penalty=1.7),
    "narrow": Law(top_k=2),
}


class Widths(Topology):
    """Every node of a level gets as many children as the level says."""

    def __init__(self, *widths):
        self._widths = widths
        self.nodes = 60

    def grow(self, growth):
        laws, ids = growth.expand_root(), torch.tensor([-1])
        for level, width in enumerate(self._widths[: growth.depth]):
            if level:
                laws = growth.expand(ids)
            tokens = growth.pick(laws, width)
            ids = growth.add(ids.repeat_interleave(tokens.shape[1]), tokens.reshape(-1))
        return growth.finish(DrawKind.WITHOUT_REPLACEMENT)


class Pairs(Widths):
    """Two children of the root, one of each of these."""

    def __init__(self):
        super().__init__(2, 1)


def tree_decoder(*widths):
    return DraftVerify(ModelDrafter(), Widths(*widths), Constant(9), SampleMatch())


def growth_on(models, law, depth=3, nodes=40):
    request = Request(PROMPT, 20, law, Streams(0, "growth"))
    session = Session(models, request, CpuClock(), 100)
    session.commit([1])
    return Growth(DraftModel(read_prompt(session)), session, Constant(depth), depth, nodes)


def law_after(model, law, context):
    tokens = torch.tensor([context])
    logits = model.forward(tokens, model.new_cache(1, len(context)))[:, -1]
    return law.probabilities(logits, History(law, tokens, model.vocab_size).now())


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_laws_of_nodes_are_those_of_their_own_paths(law):
    models = table_pair(vocab=4, order=2)
    growth = growth_on(models, law)
    torch.testing.assert_close(growth.expand_root(), law_after(models.draft, law, [*PROMPT, 1]))
    level = growth.add(torch.tensor([-1, -1]), torch.tensor([2, 3]))
    growth.expand(level)
    ids = growth.add(level[[1, 0, 1]], torch.tensor([0, 1, 3]))
    laws = growth.expand(ids)
    for row, path in enumerate(([3, 0], [2, 1], [3, 3])):
        expected = law_after(models.draft, law, [*PROMPT, 1, *path])
        torch.testing.assert_close(laws[row : row + 1], expected)


def test_equal_prefixes_become_one_node_and_each_draw_is_recorded():
    growth = growth_on(table_pair(vocab=4), Law())
    growth.expand_root()
    level = growth.add(torch.tensor([-1, -1, -1]), torch.tensor([2, 3, 2]))
    laws = growth.expand(level)
    growth.add(level, torch.tensor([1, 1, 0]))
    tree = growth.finish(DrawKind.WITH_REPLACEMENT)
    assert tree.tokens.tolist() == [[2, 3, 1, 1, 0]]
    assert tree.parents == (-1, -1, 0, 1, 0)
    assert tree.draws.parents == (-1, 0, 1)
    assert tree.draws.offers == ((0, 1, 0), (2, 4), (3,))
    torch.testing.assert_close(tree.draws.law[0, 1], laws[0])


def test_what_a_law_cannot_have_drawn_is_dropped():
    growth = growth_on(table_pair(vocab=4), Law(top_k=2))
    law = growth.expand_root()
    tokens = growth.pick(law, 4)
    growth.add(torch.full((4,), -1), tokens[0])
    tree = growth.finish(DrawKind.WITHOUT_REPLACEMENT)
    assert tree.size == 2
    assert set(tree.tokens[0].tolist()) == set(law[0].nonzero().flatten().tolist())


def test_a_pruned_tree_keeps_its_records():
    growth = growth_on(table_pair(vocab=4), Law())
    growth.expand_root()
    level = growth.add(torch.tensor([-1, -1]), torch.tensor([2, 3]))
    growth.expand(level)
    growth.add(level, torch.tensor([1, 0]))
    tree = growth.finish(DrawKind.POINT, keep=torch.tensor([1, 3]))
    assert (tree.tokens.tolist(), tree.parents) == ([[3, 0]], (-1, 0))
    assert tree.draws.kind is DrawKind.POINT and tree.draws.law is None


class Head:
    """A ground that is no model: a node's state is its path, found by its parent's slot."""

    device = torch.device("cpu")

    def __init__(self, table, law, vocab):
        self.law, self._table, self._vocab = law, table, vocab

    def plant(self, committed):
        tokens = torch.tensor([committed])
        self.history = History(self.law, tokens, self._vocab)
        self._paths = [tuple(committed)]
        return self._table(self._paths[0])[None]

    def feed(self, tokens, parents, mask):
        above = [len(self._paths) - 1] if parents is None else parents.tolist()
        paths = [(*self._paths[a], t) for a, t in zip(above, tokens.tolist(), strict=True)]
        self._paths += paths
        return torch.stack([self._table(path) for path in paths])

    def keep(self, slots):
        self._paths = [self._paths[slot] for slot in slots]


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_a_tree_grows_from_whatever_has_a_state_for_each_node(law):
    models = table_pair(vocab=4, order=2)
    session = Session(models, Request(PROMPT, 20, law, Streams(0, "growth")), CpuClock(), 100)
    session.commit([1])
    head = Head(models.draft._table, law, 4)
    for topology in (Widths(3, 2, 2), Widths(1, 1, 1)):
        own, want = (
            topology.grow(Growth(ground, session, Constant(3), 3, 40))
            for ground in (head, DraftModel(read_prompt(session)))
        )
        assert own.tokens.tolist() == want.tokens.tolist() and own.parents == want.parents
        torch.testing.assert_close(own.draws.law, want.draws.law)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_the_law_of_a_grown_tree_equals_the_targets(law):
    models = table_pair()
    got = output_law(tree_decoder(2, 1), models, law, PROMPT, 3)
    assert distance(got, true_law(models, law, PROMPT, 3)) < 1e-12


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("law", [Law(0.0), Law(0.0, repetition_penalty=1.4), Law(0.8)])
def test_grown_trees_repeat_plain_decoding_and_use_the_draft_cache_rightly(law, seed):
    models = table_pair(vocab=5, seed=seed)
    models.draft = models.target
    plain = generate(Autoregressive(), models, law, count=40)
    grown = generate(tree_decoder(3, 2, 2), models, law, count=40)
    assert grown.tokens == plain.tokens
    if law.greedy:
        verified = grown.rounds[1:-1]
        assert all(r.count.accepted == min(3, r.count.proposed) for r in verified)
