"""Momentum decoding: hand-made repetitions, the rule, and its neutral value."""

from __future__ import annotations

import math

import pytest
import torch

from specbench.decoding.loops.momentum import Momentum, Repeats
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel
from tests.unit.decoding.loops.references import counts, logits_after
from tests.unit.decoding.parts import Autoregressive, cyclic_table, generate, table_pair

GREEDY = [Law(temperature=0), Law(temperature=0, repetition_penalty=1.5)]


@pytest.mark.parametrize(
    ("text", "candidate", "length"),
    [
        ([1, 2, 3], 9, 0),  # new
        ([1, 2, 3], 1, 1),  # seen, but never after 3
        ([1, 2, 3, 1], 2, 2),  # "1 2"
        ([1, 2, 3, 1, 2], 3, 3),  # "1 2 3"
        ([1, 2, 3, 1, 2], 1, 1),
        ([7, 7, 7], 7, 3),  # "7 7 7" overlaps itself
        ([1, 2, 9, 2, 3, 1, 2], 3, 2),  # "2 3"; before it stood 9, now 1
        ([1, 2, 9, 2, 1, 2], 9, 3),
        (list(range(8)) * 2, 0, 6),  # measured to one beyond the longest
        (list(range(5)) * 2, 0, 6),
        ([1, 2, 3, 4, 5, 0, 1, 2, 3, 4], 5, 5),  # "1 2 3 4 5" and no more
    ],
)
def test_repetitions_made_by_hand(text, candidate, length):
    assert Repeats(text, 5).length(candidate) == length


def brute_force(text, candidate, limit):
    """Return the longest end of text + candidate, up to limit, that stands in the text."""
    whole = [*text, candidate]
    length = 0
    for size in range(1, limit + 1):
        end = whole[-size:]
        if size <= len(whole) and any(
            text[i : i + size] == end for i in range(len(text) - size + 1)
        ):
            length = size
    return length


def test_repetitions_against_brute_force():
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(300):
        text = torch.randint(0, 3, (int(torch.randint(1, 30, (1,), generator=generator)),))
        text = text.tolist()
        repeats = Repeats(text, 5)
        for candidate in range(4):
            seen.add(repeats.length(candidate))
            assert repeats.length(candidate) == brute_force(text, candidate, 6)
    assert seen == set(range(7))


def reference(models, law, prompt, count, alpha, candidates, longest):
    """Return the tokens by the definition."""
    text = list(prompt)
    for _ in range(count):
        probabilities = logits_after(models.target, law, text).softmax(-1)
        best, best_score = None, -math.inf
        order = sorted(range(len(probabilities)), key=lambda v: -probabilities[v].item())
        for token in order[:candidates]:
            length = brute_force(text, token, longest + 1)
            penalty = alpha * length if length <= longest else math.inf
            score = probabilities[token].item() - penalty
            if best is None or score > best_score:
                best, best_score = token, score
        text.append(best)
    return text[len(prompt) :]


@pytest.mark.parametrize("law", GREEDY)
@pytest.mark.parametrize("candidates", [2, 5])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_rule_on_tables(law, candidates, alpha):
    changed = 0
    for seed in range(4):
        models = table_pair(vocab=7, seed=seed, sharpness=2.0)
        expected = reference(models, law, (0, 1), 40, alpha, candidates, 5)
        got = generate(Momentum(alpha, candidates), models, law, count=40)
        assert list(got.tokens) == expected
        changed += got.tokens != generate(Autoregressive(), models, law, count=40).tokens
    assert changed > 0


@pytest.mark.parametrize("law", GREEDY)
@pytest.mark.parametrize("seed", range(4))
def test_without_resistance_it_is_greedy_decoding(law, seed):
    models = table_pair(vocab=5, seed=seed)
    plain = generate(Autoregressive(), models, law, count=60)
    got = generate(Momentum(0.0), models, law, count=60)
    assert got.tokens == plain.tokens
    assert counts(got) == counts(plain)


def tied_pair():
    def table(context):
        return torch.tensor([0.0, 1.0, 1.0, 1.0, 0.5], dtype=torch.float64)

    return ModelPair("tied", TableModel(table, 5))


def test_ties_go_to_the_lowest_id():
    law = Law(temperature=0)
    for candidates in (1, 2, 5):
        got = generate(Momentum(0.0, candidates), tied_pair(), law, count=5)
        assert got.tokens == (1,) * 5
    assert generate(Momentum(0.3), tied_pair(), law, (0, 1), 1).tokens == (2,), "2 is new"


def test_a_long_repetition_is_never_completed_while_another_token_is_left():
    """The cycle 0 1 2 3 has probability 1, every other token almost none."""

    def table(context):
        logits = torch.full((8,), -40.0, dtype=torch.float64)
        logits[len(context) % 4] = 0.0
        return logits

    models = ModelPair("cycle", TableModel(table, 8))
    prompt = (0, 1, 2, 3) * 3
    greedy = generate(Autoregressive(), models, Law(temperature=0), prompt, 1)
    assert greedy.tokens == (0,)
    assert Repeats(prompt, 5).length(0) == 6
    got = generate(Momentum(1e-9), models, Law(temperature=0), prompt, 1)
    assert got.tokens != (0,), "an infinite resistance outweighs any probability"
    alone = generate(Momentum(1e-9, candidates=1), models, Law(temperature=0), prompt, 1)
    assert alone.tokens == (0,), "no other candidate is left"


def test_a_resistance_against_new_tokens_is_noticed(monkeypatch):
    """Mutation: every candidate pays at least for a repetition of one."""
    models = table_pair(vocab=7, seed=0, sharpness=2.0)
    law = Law(temperature=0)
    right = Repeats.length
    monkeypatch.setattr(Repeats, "length", lambda self, token: max(1, right(self, token)))
    wrong = [
        generate(Momentum(0.2), table_pair(vocab=7, seed=s, sharpness=2.0), law, count=40).tokens
        for s in range(6)
    ]
    monkeypatch.undo()
    assert wrong != [
        generate(Momentum(0.2), table_pair(vocab=7, seed=s, sharpness=2.0), law, count=40).tokens
        for s in range(6)
    ]
    assert models


def test_it_leaves_a_loop_that_greedy_decoding_stays_in():
    target = TableModel(cyclic_table(3, 6), 6)

    def table(context):
        return target._table(context).clamp(min=-3.0)

    models = ModelPair("loop", TableModel(table, 6))
    law = Law(temperature=0)
    plain = generate(Autoregressive(), models, law, (0, 1, 2), 30).tokens
    got = generate(Momentum(0.2), models, law, (0, 1, 2), 30).tokens
    assert len(set(plain)) == 3 and len(set(got)) > 3


def test_bad_input_is_refused():
    for options in ({"alpha": -1}, {"alpha": 0, "candidates": 0}, {"alpha": 0, "longest": 0}):
        with pytest.raises(ConfigError):
            Momentum(**options)
    with pytest.raises(ConfigError, match="temperature"):
        Momentum(0.2).check(Law(temperature=1.0))
    Momentum(0.2).check(Law(temperature=0))
