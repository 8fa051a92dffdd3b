"""Drafting with the first blocks: exact, and a verification that is the whole model's forward."""

from __future__ import annotations

import pytest
import torch

from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.early_exit import EarlyDrafting, EarlyExit
from specbench.decoding.lengths.confidence import ConfidenceStop
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.session import Role
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.topologies.static_tree import StaticTree
from specbench.decoding.verifiers.token_sd import TokenSD
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.base import View
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table
from tests.unit.decoding.drafters.stores import watch
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, count_of, generate
from tests.unit.models import tiny_checkpoints

GREEDY = Law(temperature=0)
PROMPT = (0, 1, 0, 2)
LAWS = {
    "plain": Law(),
    "cold": Law(temperature=0.5, top_p=0.9),
    "penalty": Law(temperature=0.8, top_k=2, repetition_penalty=1.7),
}
LENGTHS = {
    "constant": Constant(2),
    "kept": ConfidenceStop(0.4, 2),
    "dropped": ConfidenceStop(0.4, 2, keep_last=False),
}


def shallow_pair(vocab=3, seed=0):
    whole, early = markov_table(2, vocab, seed), markov_table(2, vocab, seed + 1)
    return ModelPair("table", TableModel(whole, vocab, skipped=early))


def layerskip(exit_layer=1, length=None, verifier=None):
    return DraftVerify(EarlyExit(exit_layer), Chain(), length or Constant(2), verifier or TokenSD())


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return tiny_checkpoints.pairs(tmp_path_factory.mktemp("early_exit"))


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_law_equals_the_targets(law, length):
    models = shallow_pair()
    got = output_law(layerskip(length=length), models, law, PROMPT, 3)
    assert distance(got, true_law(models, law, PROMPT, 3)) < 1e-12


def test_drafts_are_sometimes_rejected_and_leaving_late_never():
    """Otherwise the law above would only have tested a draft that is the target."""
    for exit_layer, least, most in ((1, 0.2, 0.95), (4, 1.0, 1.0)):
        rounds = generate(layerskip(exit_layer), shallow_pair(), Law(), count=64).rounds
        accepted = sum(r.count.accepted for r in rounds) / sum(r.count.proposed for r in rounds)
        assert least <= accepted <= most


def wrong_law(monkeypatch, name, wrong):
    monkeypatch.setattr(EarlyDrafting, name, wrong)
    models = shallow_pair()
    got = output_law(layerskip(), models, Law(), PROMPT, 3)
    return distance(got, true_law(models, Law(), PROMPT, 3))


def test_states_of_rejected_tokens_that_are_kept_are_caught(monkeypatch):
    """Mutation: the newest token is verified from the state of a token drafted a round before."""
    original, stale = EarlyDrafting.score, []

    def keeping(self, session, fed, mask, taps):
        states = self._ground.states
        if states:
            newest, states[0] = states[-1], stale.pop() if stale else states[0]
            stale.append(newest)
        return original(self, session, fed, mask, taps)

    assert wrong_law(monkeypatch, "score", keeping) > 1e-3


def test_a_bonus_of_the_early_law_is_caught(monkeypatch):
    """Mutation: behind a draft that is accepted in full the first blocks say what follows."""
    original = EarlyDrafting.score

    def early(self, session, fed, mask, taps):
        logits = original(self, session, fed, mask, taps).clone()
        logits[:, -1] = session.target.model._skipped(
            tuple([*session.committed, *fed[0, 1:].tolist()])
        )
        return logits

    assert wrong_law(monkeypatch, "score", early) > 1e-3


def test_a_verification_by_the_first_blocks_is_caught(monkeypatch):
    """Mutation: the tokens are scored where they leave early."""

    def early(self, session, fed, mask, taps):
        start = session.target.cache.lengths[0] - len(self._ground.states)
        session.target.cache.truncate([start])
        return session.target.look(fed, View(last_layer=self.exit_layer - 1))

    assert wrong_law(monkeypatch, "score", early) > 1e-3


@pytest.mark.parametrize("exit_layer", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "law"),
    [("llama3", GREEDY), ("qwen3", Law(0, repetition_penalty=1.3)), ("mistral_window", GREEDY)],
)
def test_greedy_tokens_are_plain_decodings_on_real_architectures(real, name, law, exit_layer):
    models = real(name, "lean")
    for length in (1, 40):
        prompt = tuple((7 * i + i * i) % tiny_checkpoints.VOCAB for i in range(length))
        expected = generate(Autoregressive(), models, law, prompt, 30)
        for policy in (Constant(4), ConfidenceStop(0.3, 4, keep_last=False)):
            got = generate(layerskip(exit_layer, policy), models, law, prompt, 30)
            assert got.tokens == expected.tokens
    if exit_layer == models.target.layers:
        assert all(r.count.accepted == r.count.proposed for r in got.rounds)


def scores(models, decoder):
    """Return what every round scored, beside the whole model's logits of the same tokens."""
    seen, pairs = watch(decoder), []
    prompt = (3, 5, 9, 4)
    generation = generate(decoder, models, GREEDY, prompt, 24)
    text = [*prompt, *generation.tokens]
    for scored, _ in seen:
        fed = [*text[: scored.positions[0]], *scored.tree.tokens[0].tolist()]
        cache = models.target.new_cache(1, 64)
        count = scored.tree.size + 1
        logits = models.target.forward(torch.tensor([fed]), cache, View(last=count))
        pairs.append((scored.logits, logits))
    return pairs


def test_verification_is_the_forward_of_the_whole_model(real):
    for exit_layer in (1, 2):
        pairs = scores(real("llama3", "lean"), layerskip(exit_layer, Constant(3)))
        assert len(pairs) > 5
        for got, expected in pairs:
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_states_that_enter_a_wrong_block_would_be_noticed(real, monkeypatch):
    """Mutation: the verification leaves out the exit block."""
    look = Role.look

    def skipping(self, inputs, view):
        entered = view.first_layer + 1 if view.first_layer else 0
        return look(self, inputs, view._replace(first_layer=entered))

    monkeypatch.setattr(Role, "look", skipping)
    pairs = scores(real("llama3", "lean"), layerskip(1, Constant(3)))
    assert any((got - expected).abs().max() > 1e-3 for got, expected in pairs)


def test_each_role_is_counted_by_what_it_was_fed():
    """A draft token passes the first blocks once; both parts of a verification are one forward."""
    rounds = generate(layerskip(4, Constant(3)), shallow_pair(), GREEDY, count=9).rounds
    assert rounds[1].count == count_of(3, 3, 4, 3, 1, 4, 3, 3)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True])
def test_exits_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match="exit_layer"):
        EarlyExit(wrong)


def test_an_exit_behind_the_last_block_is_refused_with_the_range():
    with pytest.raises(ConfigError) as refused:
        EarlyExit(5).prepare(shallow_pair())
    assert "1 to 4" in refused.value.fix
    EarlyExit(4).prepare(shallow_pair())
    assert EarlyExit().exit_of(shallow_pair()) == 1


def test_a_tree_is_refused():
    decoder = DraftVerify(EarlyExit(1), StaticTree(paths=((0,), (1,))), Constant(1), TokenSD())
    with pytest.raises(ConfigError, match="chains alone"):
        generate(decoder, shallow_pair(), GREEDY, count=4)
