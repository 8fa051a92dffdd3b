"""Jacobi decoding: its fixed point is plain decoding, reached in as many forwards at most."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from specbench.cache import LengthCache
from specbench.decoding.loops.jacobi import Jacobi
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, cyclic_table, generate, table_pair

GREEDY = Law(temperature=0)
LAWS = [
    GREEDY,
    Law(temperature=0, repetition_penalty=1.6),
    Law(),
    Law(temperature=0.7, top_k=3, repetition_penalty=1.4),
]


@pytest.mark.parametrize("initial", ["text", "last", "pad"])
@pytest.mark.parametrize("slide", [False, True])
@pytest.mark.parametrize("law", LAWS)
def test_the_fixed_point_is_plain_decoding(law, slide, initial):
    models = table_pair(vocab=5, sharpness=2.0)
    expected = generate(Autoregressive(), models, law, count=50)
    got = generate(Jacobi(8, slide, initial), models, law, count=50)
    assert got.tokens == expected.tokens
    assert len(got.rounds) < len(expected.rounds), "no guess was ever right"


@pytest.mark.parametrize("slide", [False, True])
def test_no_more_forwards_than_tokens(slide):
    """The worst case: a target that no guess foresees."""

    def table(context):
        logits = torch.zeros(9, dtype=torch.float64)
        logits[hash(tuple(context)) % 8] = 50.0
        return logits

    models = ModelPair("hash", TableModel(table, 9))
    models.stop_ids = frozenset({8})
    rounds = generate(Jacobi(6, slide, "pad"), models, GREEDY, count=40).rounds
    assert len(rounds) <= 40
    assert all(r.count.target.forwards == 1 and r.count.emitted >= 1 for r in rounds)


def test_a_target_that_ignores_the_guesses_converges_in_two_iterations():
    """The first iteration finds the whole block, the second confirms it."""
    models = ModelPair("cycle", TableModel(cyclic_table(7, 8), 8))
    models.stop_ids = frozenset({7})
    rounds = generate(Jacobi(6, False, "pad"), models, GREEDY, (0, 1), 43).rounds
    assert [r.count.emitted for r in rounds] == [1, *[1, 5] * 7]
    assert [r.count.proposed for r in rounds[1:5]] == [5, 4, 5, 4]
    sliding = generate(Jacobi(6, True, "pad"), models, GREEDY, (0, 1), 43).rounds
    assert [r.count.emitted for r in sliding[:5]] == [1, 1, 6, 1, 6]


def test_a_window_of_one_is_plain_decoding():
    models = table_pair(vocab=5)
    expected = generate(Autoregressive(), models, Law(), count=20)
    got = generate(Jacobi(1), models, Law(), count=20)
    assert got.tokens == expected.tokens
    assert [r.count for r in got.rounds] == [r.count for r in expected.rounds]


@pytest.mark.parametrize("slide", [False, True])
@pytest.mark.parametrize("law", [Law(), Law(temperature=0.6, top_p=0.8, repetition_penalty=1.3)])
def test_law_equals_the_targets(law, slide):
    models = table_pair(vocab=2, order=2)
    for count in (2, 3):
        got = output_law(Jacobi(3, slide), models, law, (0, 1, 0), count)
        assert distance(got, true_law(models, law, (0, 1, 0), count)) < 1e-12


def test_a_stop_token_inside_the_window_keeps_the_law():
    models = table_pair(vocab=3, order=1)
    got = output_law(Jacobi(3), models, Law(), (0, 1), 3, stop={1})
    assert distance(got, true_law(models, Law(), (0, 1), 3, stop={1})) < 1e-12


def test_stale_cache_entries_would_be_noticed(monkeypatch):
    """Mutation: unconverged positions stay in the cache under the right length."""
    models = table_pair(vocab=5, sharpness=2.0)
    expected = generate(Jacobi(6), models, GREEDY, count=30).tokens

    def keep_the_last(self, lengths):
        for row, length in enumerate(lengths):
            dropped = self.lengths[row] - length
            if dropped:
                self.tokens[row][length - 1] = self.tokens[row][self.lengths[row] - 1]
        self.lengths = list(lengths)

    monkeypatch.setattr(LengthCache, "truncate", keep_the_last)
    assert generate(Jacobi(6), models, GREEDY, count=30).tokens != expected


def test_unverified_answers_would_be_noticed(monkeypatch):
    """Mutation: committing one answer beyond the first wrong guess."""
    from specbench.decoding.loops import jacobi

    models = table_pair(vocab=3, order=1)
    original = jacobi._answers

    class Lenient(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    def lenient(*arguments):
        first, *rest = original(*arguments)
        return [Lenient(first), *rest]

    monkeypatch.setattr(jacobi, "_answers", lenient)
    got = output_law(Jacobi(2), models, Law(), (0, 1), 3)
    assert distance(got, true_law(models, Law(), (0, 1), 3)) > 1e-3


def test_initial_guesses():
    models = ModelPair("t", TableModel(cyclic_table(3, 4), 4))
    request = SimpleNamespace(
        streams=SimpleNamespace(numbers=lambda start, count, purpose: [0.0, 0.5, 0.99][:count])
    )
    session = SimpleNamespace(models=models, request=request, committed=[7, 8, 9, 6])
    assert Jacobi(4)._guess(session, 3, []) == [7, 9, 6]
    assert Jacobi(4, initial="last")._guess(session, 3, []) == [6, 6, 6]
    models.stop_ids = frozenset({3, 2})
    assert Jacobi(4, initial="pad")._guess(session, 3, []) == [2, 2, 2]
    models.tokenizer = SimpleNamespace(pad_token_id=1)
    assert Jacobi(4, initial="pad")._guess(session, 1, []) == [1]


def test_impossible_parameters_are_refused():
    with pytest.raises(ConfigError, match="window"):
        Jacobi(0)
    with pytest.raises(ConfigError, match="text, last, pad"):
        Jacobi(4, initial="random")
