"""ADED: what its search visits, how its table grows, and that it changes no token."""

from __future__ import annotations

import math
import random

import pytest

from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.aded import AdaptiveTable, Aded, cut_to_choices, merged
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.search.puct import Row, Search
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.verifiers.sample_match import SampleMatch
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel
from tests.unit.decoding.drafters.stores import paths_of, suffix_store, typical_texts, watch
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, generate, table_pair

GREEDY = Law(temperature=0)


class Nowhere:
    """A model without text of its own."""

    def folder(self, models):
        return None


def decoder(store=None, models=None, **options):
    made = DraftVerify(Aded(store or Nowhere(), **options), Chain(), Constant(99), SampleMatch())
    if models is not None:
        made.prepare(models)
    return made


def random_table(seed, vocab=5, missing=0.2):
    """Rows as the release's hold them: shares, some raised, some pairs unknown."""
    generator = random.Random(seed)
    table = {}
    for pair in [(a, b) for a in range(vocab) for b in range(vocab)]:
        if generator.random() < missing:
            continue
        tokens = generator.sample(range(vocab), generator.randint(1, vocab))
        weights = sorted((generator.random() for _ in tokens), reverse=True)
        table[pair] = Row(tokens, weights)
    return lambda first, second: table.get((first, second))


def plainly(table, first, second, depth, simulations, uniform):
    """The published search, written as it reads: visits of every path that was made."""
    visits, returns, prior, children = {(): 0}, {(): 0.0}, {}, {}

    def pair(path):
        text = (first, second, *path)
        return text[-2:]

    def score(parent, child):
        total, n = visits[parent], visits[child]
        if n == 0:
            return math.inf
        weight = 32 + math.log((total + 8 + 1) / 8)
        return returns[child] / n + weight * prior[child] * math.sqrt(total) / (1 + n)

    for _ in range(simulations):
        path = ()
        while path in children and len(path) < depth:
            path = max(children[path], key=lambda child: score(path, child))
        row = table(*pair(path))
        if row is not None and len(path) < depth:
            children[path] = [(*path, token) for token in row.tokens]
            for child, weight in zip(children[path], row.weights, strict=True):
                visits[child], returns[child], prior[child] = 0, 0.0, weight
            path = children[path][0]
        returned = 1 + sum(prior[path[: n + 1]] for n in range(len(path)))
        text = path
        while len(text) < depth and (row := table(*pair(text))) is not None:
            place = row.place(uniform())
            returned += row.weights[place]
            text = (*text, row.tokens[place])
        for length in range(len(path) + 1):
            visits[path[:length]] += 1
            returns[path[:length]] += returned
    return visits


def paths_in(search):
    paths = {0: ()}
    for node in range(1, len(search._pairs)):
        paths[node] = (*paths[search._parents[node]], search._pairs[node][1])
    return {path: search._visits[node] for node, path in paths.items()}


@pytest.mark.parametrize("seed", range(8))
def test_visits_are_those_of_the_published_search(seed):
    table = random_table(seed)
    search = Search(table, 0, 1, 3)
    search.run(150, random.Random(seed).random)
    assert paths_in(search) == plainly(table, 0, 1, 3, 150, random.Random(seed).random)


def test_three_visits_by_hand():
    """Two successors of 0.9 and 0.1: each is visited once, then the larger score decides.

    After two visits the scores are 1.9 + (32 + ln(11 / 8)) 0.9 sqrt(2) / 2 and, for the other,
    1.1 + (32 + ln(11 / 8)) 0.1 sqrt(2) / 2: the first is visited again.
    """
    search = Search(lambda a, b: Row([7, 8], [0.9, 0.1]), 0, 1, 1)
    search.run(3, random.Random(0).random)
    assert paths_in(search) == {(): 3, (7,): 2, (8,): 1}
    assert search._mean[1] == pytest.approx(1.9) and search._mean[2] == pytest.approx(1.1)


def test_sentences_are_the_most_visited_paths_with_one_more_token():
    rows = {
        (0, 1): Row([2, 3], [0.8, 0.2]),
        (1, 2): Row([4], [1.0]),
        (2, 4): Row([5, 6], [0.6, 0.4]),
    }
    search = Search(lambda a, b: rows.get((a, b)), 0, 1, 2)
    search.run(40, random.Random(0).random)
    # The root has no path; 2 and 4 below it are visited most; 3 has no successor.
    assert search.sentences(4) == [[2, 4], [2, 4, 5], [3]]
    assert search.sentences(2) == [[2, 4]]


def test_the_cut_counts_every_path_by_itself():
    paths = [[1], [1, 2], [1, 2, 2], [1, 2, 3], [1, 2]]
    assert cut_to_choices(paths, 99) == paths[:4]  # 1 + 2 + 2 + 3 distinct tokens
    assert cut_to_choices(paths, 7) == [[1], [1, 2], [1, 2, 2]]
    assert cut_to_choices(paths, 4) == [[1], [1, 2]]
    assert cut_to_choices(paths, 0) == []


def test_paths_share_their_beginnings():
    assert merged([[1, 2], [3], [1, 4, 2]], 9, 64) == ([1, 3, 2, 4, 2], (-1, -1, 0, 0, 3))
    assert merged([[1, 2], [3], [1, 4, 2]], 2, 64) == ([1, 3, 2, 4], (-1, -1, 0, 0))
    assert merged([[1, 2], [3], [1, 4, 2]], 9, 3) == ([1, 3, 2], (-1, -1, 0))


def test_every_occurrence_raises_a_trigram_up_to_the_top():
    table = AdaptiveTable()
    table.learn([1, 1, 1, 1, 2], 0.04, 3.0)
    row = table.row(1, 1)
    assert row.tokens == [1, 2] and row.weights == pytest.approx([0.08, 0.04])
    for _ in range(100):
        table.learn([1, 1, 2], 0.04, 3.0)
    assert table.row(1, 1).tokens == [2, 1]
    assert table.row(1, 1).weights == pytest.approx([3.0, 0.08])
    table.forget()
    assert table.row(1, 1) is None


def test_the_text_is_raised_and_forgotten(tmp_path):
    models = ModelPair("pairs", TableModel(lambda context: None, 9))
    drafter = Aded(suffix_store(tmp_path / "store", ["123", "123", "124"]))
    drafter.prepare(models)
    table = drafter._table
    assert table.row(1, 2).weights == pytest.approx([2 / 3, 1 / 3])
    table.learn([1, 2, 5], 0.04, 3.0)
    assert table.row(1, 2).tokens == [3, 4, 5]
    drafter.reset()
    assert table.row(1, 2).tokens == [3, 4]


def test_only_the_newest_tokens_are_raised(monkeypatch):
    seen = []
    monkeypatch.setattr(AdaptiveTable, "learn", lambda self, text, *rest: seen.append(list(text)))
    models = table_pair(vocab=6)
    generate(decoder(models=models), models, GREEDY, prompt=tuple([1] * 30), count=4)
    assert [len(text) for text in seen] == [16] * len(seen) and seen[0][:-1] == [1] * 15


@pytest.mark.parametrize("law", [GREEDY, Law(temperature=0, repetition_penalty=1.5), Law()])
@pytest.mark.parametrize("prompt", [(0,), (0, 1, 2, 0, 3)])
def test_tokens_are_plain_decodings(tmp_path, law, prompt):
    models = table_pair(vocab=5, sharpness=3.0)
    store = suffix_store(tmp_path / "store", typical_texts(5, seed=0))
    expected = generate(Autoregressive(), models, law, prompt, 60)
    got = generate(decoder(store, models), models, law, prompt, 60)
    assert got.tokens == expected.tokens
    assert len(got.rounds) < len(expected.rounds)


@pytest.mark.parametrize("law", [Law(), Law(temperature=0.7, top_p=0.8)])
def test_law_equals_the_targets(tmp_path, law):
    models = table_pair(vocab=2, order=1)
    store = suffix_store(tmp_path / "store", ["01001110"])
    aded = decoder(store, models, draft_length=3, simulations=8)
    original = aded.generate

    def from_the_text(*arguments):
        aded.reset()
        return original(*arguments)

    aded.generate = from_the_text
    got = output_law(aded, models, law, (0, 1), 3)
    assert distance(got, true_law(models, law, (0, 1), 3)) < 1e-12


def test_carried_state_helps_and_reset_forgets_it():
    models = table_pair(vocab=9, sharpness=3.0)
    aded = decoder(models=models)

    def rounds():
        return len(generate(aded, models, GREEDY, count=40, prompt=(3, 4)).rounds)

    cold = rounds()
    assert rounds() < cold
    aded.reset()
    assert rounds() == cold


def test_the_targets_probabilities_are_not_read(tmp_path):
    """Two targets of the same argmax, one nearly flat: the drafts are the same."""
    store = suffix_store(tmp_path / "store", typical_texts(5, seed=0))
    drafts = []
    for sharpness in (0.1, 9.0):
        models = table_pair(vocab=5, sharpness=sharpness)
        aded = decoder(store, models)
        seen = watch(aded)
        generate(aded, models, GREEDY, count=30)
        drafts.append([paths_of(scored.tree) for scored, _ in seen])
    assert drafts[0] == drafts[1] and any(drafts[0])


@pytest.mark.parametrize(
    "option", ["draft_length", "simulations", "sentences", "choices", "candidates"]
)
def test_impossible_budgets_are_refused(option):
    with pytest.raises(ConfigError, match=option):
        Aded(Nowhere(), **{option: 0})
    with pytest.raises(ConfigError, match="step"):
        Aded(Nowhere(), step=-1)
