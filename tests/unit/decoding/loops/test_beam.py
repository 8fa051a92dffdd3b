"""Beam search against transformers' own."""

from __future__ import annotations

import pytest
import torch

from specbench.decoding.ledger import StopReason
from specbench.decoding.loops.beam import BeamSearch
from specbench.decoding.loops.branches import Branches
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.causal_lm import CausalLM
from specbench.models.decoder import LeanDecoder
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel
from tests.unit.decoding.loops.references import checkpoint, counts, logits_after
from tests.unit.decoding.parts import Autoregressive, generate, table_pair

GREEDY = Law(temperature=0)
PENALTY = Law(temperature=0, repetition_penalty=1.5)
PROMPT = (3, 5, 9, 11, 40, 7)


@pytest.mark.parametrize("law", [GREEDY, PENALTY])
@pytest.mark.parametrize("seed", range(4))
def test_one_beam_is_greedy_decoding(law, seed):
    models = table_pair(vocab=5, seed=seed)
    for stop in ((), (4,), (2, 3)):
        plain = generate(Autoregressive(), models, law, count=40, stop=stop)
        got = generate(BeamSearch(1), models, law, count=40, stop=stop)
        assert got.tokens == plain.tokens
        assert got.stop_reason is plain.stop_reason
        assert counts(got) == counts(plain)


def test_ties_go_to_the_lowest_id():
    models = ModelPair("tied", TableModel(lambda context: torch.ones(5, dtype=torch.float64), 5))
    assert generate(BeamSearch(1), models, GREEDY, count=4).tokens == (0,) * 4


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beam")
    made = {}

    def load(name):
        if name not in made:
            module, copy = checkpoint(folder, name), checkpoint(folder, name)
            if name == "gpt2":
                model = CausalLM(copy, name)
            else:
                model = LeanDecoder.of(copy, name, torch.device("cpu"), torch.float64)
            made[name] = module, ModelPair(name, model)
        return made[name]

    return load


def oracle(module, width, length_penalty, stop, count):
    output = module.generate(
        torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long),
        num_beams=width,
        do_sample=False,
        early_stopping=True,
        length_penalty=length_penalty,
        max_new_tokens=count,
        eos_token_id=stop,
        pad_token_id=stop if stop is not None else 0,
    )[0, len(PROMPT) :].tolist()
    return output


@pytest.mark.parametrize("name", ["llama3", "mistral_window", "gpt2"])
@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("length_penalty", [pytest.param(1.0, marks=pytest.mark.slow), 0.0])
def test_the_tokens_are_those_of_transformers(loaded, name, width, length_penalty):
    module, models = loaded(name)
    count = 16
    free = oracle(module, width, length_penalty, None, count)
    ended = 0
    for stop in (None, free[3], free[7], free[11], 17, 60):
        expected = oracle(module, width, length_penalty, stop, count)
        stops = () if stop is None else (stop,)
        got = generate(BeamSearch(width, length_penalty), models, GREEDY, PROMPT, count, stop=stops)
        if stop in expected:
            expected = expected[: expected.index(stop) + 1]
            ended += 1
            assert got.stop_reason is StopReason.STOP_TOKEN
        assert list(got.tokens) == expected
    assert ended, "no hypothesis ever finished"


def exhaustive(models, law, prompt, count):
    """Return the most probable continuation of a length."""
    best, best_score = None, -torch.inf
    pending = [((), 0.0)]
    while pending:
        tokens, score = pending.pop()
        if len(tokens) == count:
            if score > best_score:
                best, best_score = tokens, score
            continue
        logs = logits_after(models.target, law, [*prompt, *tokens]).log_softmax(-1)
        pending += [((*tokens, token), score + log) for token, log in enumerate(logs.tolist())]
    return best


@pytest.mark.parametrize("law", [GREEDY, PENALTY])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_wide_enough_finds_the_most_probable_answer(law, seed):
    """The penalty must follow each beam's own tokens, or the law would be another."""
    models = table_pair(vocab=3, seed=seed)
    got = generate(BeamSearch(27), models, law, (0, 1), 4)
    assert got.tokens == exhaustive(models, law, (0, 1), 4)


def test_some_answers_are_not_greedy():
    different = 0
    for seed in range(6):
        models = table_pair(vocab=5, seed=seed)
        plain = generate(Autoregressive(), models, GREEDY, count=12).tokens
        different += generate(BeamSearch(4), models, GREEDY, count=12).tokens != plain
    assert different >= 2


def test_beams_that_keep_their_old_past_are_noticed(loaded, monkeypatch):
    """Mutation: reordered beams go on with the keys and values of their old places."""
    _, models = loaded("llama3")
    right = generate(BeamSearch(4), models, GREEDY, PROMPT, 16).tokens
    fork = Branches.fork

    def lazy(self, origins):
        fork(self, [min(i, len(self._slots) - 1) for i in range(len(origins))])

    monkeypatch.setattr(Branches, "fork", lazy)
    assert generate(BeamSearch(4), models, GREEDY, PROMPT, 16).tokens != right


@pytest.mark.parametrize("seed", range(3))
def test_the_ledger_holds_all_work(seed):
    models = table_pair(vocab=5, seed=seed)
    generation = generate(BeamSearch(3), models, GREEDY, (0, 1), 20)
    got = counts(generation)
    assert got[0].emitted == 1 and all(c.emitted >= 1 for c in got)
    assert sum(c.emitted for c in got) == 20
    assert sum(c.target.forwards for c in got) == 20
    assert sum(c.target.tokens for c in got) == 2 + 3 * 19


def test_bad_input_is_refused():
    for width in (0, -2, 1.5):
        with pytest.raises(ConfigError):
            BeamSearch(width)
    with pytest.raises(ConfigError, match="temperature"):
        BeamSearch(4).check(Law())
