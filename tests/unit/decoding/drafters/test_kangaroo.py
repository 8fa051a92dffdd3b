"""Kangaroo: exact behind any adapter, and the adapter sees true states alone, each once."""

from __future__ import annotations

import pytest
import torch

from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.kangaroo import Adapted, Kangaroo
from specbench.decoding.lengths.confidence import ConfidenceStop
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.verifiers.token_sd import TokenSD
from specbench.law import Law
from specbench.models.base import Taps, View
from specbench.models.heads.kangaroo import KangarooHead
from specbench.models.heads.load import find_head, load_head
from tests.unit.decoding.drafters.stores import watch
from tests.unit.decoding.drafters.test_early_exit import LAWS, PROMPT, shallow_pair
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, generate
from tests.unit.models import tiny_checkpoints
from tests.unit.models.heads import published
from tests.unit.models.heads.test_eagle import entry
from tests.unit.models.heads.test_kangaroo import CONFIG, adapter_tensors

GREEDY = Law(temperature=0)


def kangaroo(length=None, exit_layer=2):
    length = length or ConfidenceStop(0.6, 6)
    return DraftVerify(Kangaroo(exit_layer), Chain(), length, TokenSD())


def toys(vocab=3):
    models = shallow_pair(vocab)
    models.head = KangarooHead.random(models.target, vocab, 5)
    return models


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kangaroo")
    load = tiny_checkpoints.pairs(folder)

    def pair(name):
        models = load(name, "lean")
        if models.head is not None:
            return models
        path = tiny_checkpoints.write(folder, name)
        head = published.write(folder / f"{name} adapter", CONFIG, adapter_tensors())
        models.head = load_head(find_head(entry(path, head)), models.target)
        return models

    return pair


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("length", [Constant(2), ConfidenceStop(0.4, 2)])
def test_law_equals_the_targets(law, length):
    models = toys()
    got = output_law(kangaroo(length), models, law, PROMPT, 3)
    assert distance(got, true_law(models, law, PROMPT, 3)) < 1e-12


@pytest.mark.parametrize("name", ["llama", "mistral_window"])
def test_greedy_tokens_are_plain_decodings_on_real_architectures(real, name):
    models = real(name)
    for length in (1, 40):
        prompt = tuple((7 * i + i * i) % tiny_checkpoints.VOCAB for i in range(length))
        expected = generate(Autoregressive(), models, GREEDY, prompt, 30)
        for policy in (Constant(4), ConfidenceStop(0.3, 4, keep_last=False)):
            assert generate(kangaroo(policy), models, GREEDY, prompt, 30).tokens == expected.tokens


def laws_apart(models):
    """Return how far each draft's laws lie from what blocks and adapter say of the whole text."""
    decoder, prompt = kangaroo(Constant(2)), (2, 0, 1, 2)
    seen = watch(decoder)
    generation = generate(decoder, models, Law(), prompt, 40)
    text, apart = [*prompt, *generation.tokens], []
    for scored, _ in seen[:-1]:
        start = scored.positions[0]
        fed, taps = [*text[:start], *scored.tree.tokens[0].tolist()], Taps((1,))
        models.target.forward(torch.tensor([fed]), models.target.new_cache(1, 64), View(taps=taps))
        logits = models.head.forward(taps.states[0], models.head.new_cache(1, 64))[0]
        law = logits[start - 1 : -1].softmax(-1)
        apart.append(float((law - scored.tree.draws.law[0]).abs().max()))
    return apart, any(r.count.accepted == 2 for r in generation.rounds)


def test_the_adapter_saw_every_true_state_once(real):
    """After full acceptance it has not seen the last drafted token's: that must be met here."""
    apart, in_full = laws_apart(toys(6))
    assert max(apart) < 1e-9 and in_full
    assert max(laws_apart(real("llama"))[0]) < 1e-4


@pytest.mark.parametrize("mutation", ["rejected states stay", "the last drafted one is missing"])
def test_an_adapter_that_saw_other_states_is_noticed(monkeypatch, mutation):
    settle = Adapted.settle

    def staying(self, states, cached):
        length = self._head.cache.lengths[0]
        settle(self, states, cached)
        self._head.cache.lengths = [max(length, cached)]
        self._unseen = states[:, :0]

    def missing(self, states, cached):
        settle(self, states, cached)
        self._unseen = states[:, :0]

    monkeypatch.setattr(Adapted, "settle", staying if mutation.startswith("rej") else missing)
    assert max(laws_apart(toys(6))[0]) > 1e-3
