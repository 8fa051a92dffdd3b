"""Token Recycling: the template, the matrix, what it learns and in which order."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.token_recycling import TokenRecycling
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.topologies.recycling_tree import RecyclingTree
from specbench.decoding.topologies.static_tree import StaticTree
from specbench.decoding.tree import DraftTree
from specbench.decoding.verifiers.sample_match import SampleMatch
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, generate, table_pair

GREEDY = Law(temperature=0)
SMALL = StaticTree(paths=((0,), (1,), (0, 0), (0, 1), (1, 0)))


def decoder(tree=None, **options):
    drafter = TokenRecycling(**options)
    return DraftVerify(drafter, tree or RecyclingTree(), Constant(99), SampleMatch())


def bigram_table(vocab):
    """A deterministic law: token t is followed by 2 t + 1."""

    def table(context):
        logits = torch.arange(vocab, dtype=torch.float64).neg()
        logits[(2 * context[-1] + 1) % vocab] = 100.0
        return logits

    return table


def test_the_published_template_has_80_nodes_on_six_levels():
    shape = RecyclingTree().shape
    paths = {-1: ()}
    for node, (parent, rank) in enumerate(zip(shape.parents, shape.ranks, strict=True)):
        paths[node] = (*paths[parent], rank)
    paths = list(paths.values())[1:]
    assert [shape.depths.count(depth) for depth in range(1, 7)] == [8, 21, 25, 15, 8, 3]
    assert len(set(paths)) == len(paths) == 80
    assert paths[-11:] == [
        (0, 0, 0, 0, 0),
        (0, 0, 0, 0, 1),
        (0, 0, 0, 0, 2),
        (0, 0, 0, 1, 0),
        (0, 0, 0, 2, 0),
        (0, 0, 1, 0, 0),
        (0, 1, 0, 0, 0),
        (1, 0, 0, 0, 0),
        (0, 0, 0, 0, 0, 0),
        (0, 0, 0, 0, 0, 1),
        (0, 0, 0, 1, 0, 0),
    ]
    assert [path for path in paths if len(path) == 2 and path[0] >= 1] == [
        *((1, rank) for rank in range(4)),
        *((2, rank) for rank in range(3)),
        *((3, rank) for rank in range(2)),
        *((first, 0) for first in range(4, 8)),
    ]


def test_a_template_wider_than_the_matrix_is_refused():
    models = table_pair(vocab=9)
    with pytest.raises(ConfigError, match="candidates=7"):
        generate(decoder(candidates=7), models, GREEDY, count=9)
    with pytest.raises(ConfigError, match="candidates=0"):
        TokenRecycling(0)


def test_a_deterministic_bigram_target_gives_seven_tokens_a_round_once_every_token_was_seen():
    target = TableModel(bigram_table(11), 11)
    recycling = decoder()
    models = ModelPair("bigram", target)
    generate(recycling, models, GREEDY, (1,), 40)
    emitted = [r.count.emitted for r in generate(recycling, models, GREEDY, (1,), 43).rounds]
    assert emitted == [1, *[7] * 6]


def test_runs_from_the_same_state_are_identical_and_reset_forgets():
    models = table_pair(vocab=9, sharpness=3.0)
    recycling = decoder()

    def accepted():
        rounds = generate(recycling, models, Law(temperature=0.7), count=40).rounds
        return [r.count.accepted for r in rounds]

    first = accepted()
    warm = accepted()
    assert warm != first
    recycling.reset()
    assert accepted() == first
    assert accepted() == warm


def test_a_template_is_cut_where_the_request_ends():
    models = table_pair(vocab=9)
    for count in (1, 2, 3, 5):
        generation = generate(decoder(), models, GREEDY, count=count)
        assert len(generation.tokens) == count
        assert [r.count.proposed for r in generation.rounds[1:2]] == [min(6, count - 2)][
            : count - 1
        ]


@pytest.mark.parametrize("learn_prompt", [False, True])
@pytest.mark.parametrize("law", [GREEDY, Law(temperature=0, repetition_penalty=1.5)])
def test_greedy_tokens_are_plain_decodings(law, learn_prompt):
    models = table_pair(vocab=12, sharpness=2.0)
    expected = generate(Autoregressive(), models, law, count=60)
    recycling = decoder(learn_prompt=learn_prompt)
    got = generate(recycling, models, law, count=60)
    assert got.tokens == expected.tokens
    assert len(got.rounds) < len(expected.rounds)


@pytest.mark.parametrize("law", [Law(), Law(temperature=0.6, top_p=0.8)])
def test_law_equals_the_targets(law):
    """Zero rows propose the same sibling twice; the law must not notice."""
    models = table_pair(vocab=2, order=1)
    prompt = (0, 1)
    recycling = decoder(SMALL)
    original = recycling.generate

    def from_zero(*arguments):
        recycling.reset()
        return original(*arguments)

    recycling.generate = from_zero
    got = output_law(recycling, models, law, prompt, 3)
    assert distance(got, true_law(models, law, prompt, 3)) < 1e-12


def test_prompt_logits_fill_rows_before_the_first_draft():
    target = TableModel(bigram_table(11), 11)
    models = ModelPair("bigram", target)
    prompt = (1, 3, 7, 4, 9, 8, 6, 2, 5, 0)
    first = [
        generate(decoder(learn_prompt=learn), models, GREEDY, prompt, 8).rounds[1].count.emitted
        for learn in (False, True)
    ]
    assert first[1] == 7 > first[0]


def learned(drafter, tokens, logits):
    """Return the matrix after one observation of a chain below its first token."""
    target = TableModel(markov_table(1, logits.shape[-1], 0), logits.shape[-1])
    request = SimpleNamespace(prompt=tuple(tokens[:1]))
    state = SimpleNamespace(models=ModelPair("t", target), request=request, committed=[tokens[0]])
    drafter.begin(state, None)
    state.committed = [tokens[0], 0]
    outcome = SimpleNamespace(
        tree=DraftTree.chain(torch.tensor([tokens[1:]])),
        verdict=SimpleNamespace(tokens=(0,)),
        scored=SimpleNamespace(logits=logits[None]),
    )
    drafter.observe(state, outcome)
    return drafter._matrix


def test_every_scored_node_is_learned_and_the_last_of_equal_tokens_wins():
    torch.manual_seed(0)
    logits = torch.randn(6, 10, dtype=torch.float64)
    matrix = learned(TokenRecycling(candidates=3), [4, 7, 4, 2, 7, 4], logits)
    best = logits.topk(3).indices
    expected = torch.zeros(10, 3, dtype=torch.int64)
    expected[4], expected[2], expected[7] = best[5], best[3], best[4]
    assert torch.equal(matrix, expected)


def test_the_first_of_equal_tokens_would_be_noticed(monkeypatch):
    """Mutation: reversed order of the update."""
    torch.manual_seed(0)
    logits = torch.randn(6, 10, dtype=torch.float64)
    original = TokenRecycling._learn

    def reverse(self, tokens, logits):
        original(self, tokens.flip(0), logits.flip(0))

    right = learned(TokenRecycling(candidates=3), [4, 7, 4, 2, 7, 4], logits)
    monkeypatch.setattr(TokenRecycling, "_learn", reverse)
    wrong = learned(TokenRecycling(candidates=3), [4, 7, 4, 2, 7, 4], logits)
    assert not torch.equal(right, wrong)


def test_a_vocabulary_smaller_than_the_matrix_is_wide():
    models = table_pair(vocab=3)
    expected = generate(Autoregressive(), models, GREEDY, count=30)
    assert generate(decoder(), models, GREEDY, count=30).tokens == expected.tokens
