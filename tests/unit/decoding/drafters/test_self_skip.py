"""Drafting with the target and fewer sublayers: exact, and without a trace in its cache."""

from __future__ import annotations

from random import Random

import pytest
import torch

from specbench.cache import LengthCache
from specbench.clock import CpuClock
from specbench.decoding.calibrated import Calibrating, calibrated_parts
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.searched_skip import SearchedSkip, Speed, speed_of
from specbench.decoding.drafters.self_skip import SelfSkip
from specbench.decoding.ledger import Generation, Round, StopReason
from specbench.decoding.lengths.confidence import AdaptiveConfidence
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.request import Request
from specbench.decoding.search.bayesian import BayesianSearch
from specbench.decoding.session import Session
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.verifiers.token_sd import TokenSD
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.base import LayerSkip, View
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table
from specbench.rng import Streams
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, count_of, generate
from tests.unit.models import tiny_checkpoints

PROMPT = (0, 1, 0, 2)
LAWS = {
    "plain": Law(),
    "cold": Law(temperature=0.5, top_p=0.9),
    "penalty": Law(temperature=0.8, top_k=2, repetition_penalty=1.7),
}
ENGINES = [
    ("llama3", "lean"),
    ("qwen3", "lean"),
    ("mistral_window", "lean"),
    ("gpt2", "transformers"),
    ("qwen2", "transformers"),
]


def skipping_pair(vocab=3, seed=0):
    plain, skipped = markov_table(2, vocab, seed), markov_table(2, vocab, seed + 1)
    return ModelPair("table", TableModel(plain, vocab, skipped=skipped))


def draft_verify(drafter=None, length=None):
    return DraftVerify(
        drafter or SelfSkip([1], [2]), Chain(), length or AdaptiveConfidence(0.5, 2), TokenSD()
    )


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return tiny_checkpoints.pairs(tmp_path_factory.mktemp("self_skip"))


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_law_equals_the_targets(law, threshold):
    models = skipping_pair()
    got = output_law(draft_verify(length=AdaptiveConfidence(threshold, 2)), models, law, PROMPT, 3)
    assert distance(got, true_law(models, law, PROMPT, 3)) < 1e-12


def test_a_law_of_its_own_for_the_draft_changes_no_output():
    models = skipping_pair()
    got = output_law(draft_verify(), models, Law(), PROMPT, 3, draft_law=Law(0.3))
    assert distance(got, true_law(models, Law(), PROMPT, 3)) < 1e-12


@pytest.mark.parametrize("law", [Law(0.0), Law(0.0, repetition_penalty=1.4), Law(0.9)])
def test_skipping_nothing_is_accepted_until_the_cap(law):
    models = skipping_pair(vocab=6)
    decoder = draft_verify(SelfSkip([], []), AdaptiveConfidence(0.0, 8, inertia=1.0))
    rounds = generate(decoder, models, law, count=64).rounds
    assert all(r.count.accepted == r.count.proposed for r in rounds)
    assert all(r.count.proposed == 8 for r in rounds[1:-1])


def test_skipping_something_is_sometimes_rejected():
    """Otherwise the law above would only have tested a draft that is the target."""
    rounds = generate(draft_verify(), skipping_pair(), Law(), count=64).rounds
    accepted = sum(r.count.accepted for r in rounds) / sum(r.count.proposed for r in rounds)
    assert 0.2 < accepted < 0.95


@pytest.mark.parametrize(
    "law", [pytest.param(Law(0.0), marks=pytest.mark.slow), Law(0.0, repetition_penalty=1.3)]
)
@pytest.mark.parametrize(("name", "engine"), ENGINES)
def test_greedy_tokens_are_plain_decodings_on_real_architectures(real, name, engine, law):
    models = real(name, engine)
    for length in (1, 40):
        prompt = tuple((7 * i + i * i) % tiny_checkpoints.VOCAB for i in range(length))
        expected = generate(Autoregressive(), models, law, prompt, 30)
        for skip in (([1], []), ([0, 1], [1, 2]), ([], [])):
            got = generate(draft_verify(SelfSkip(*skip), Constant(4)), models, law, prompt, 30)
            assert got.tokens == expected.tokens
    assert all(r.count.accepted == r.count.proposed for r in got.rounds), "nothing was skipped"


def test_the_draft_is_the_skipped_model_behind_the_full_models_prefix(real):
    models = real("llama3", "lean")
    target, law = models.target, Law(0.0)
    decoder = draft_verify(SelfSkip([1], [0]), Constant(3))
    seen = []
    decoder.probe = lambda scored, verdict: seen.append((scored.tree.tokens[0].tolist(), verdict))
    prompt = (3, 5, 9)
    generate(decoder, models, law, prompt, 24)
    tokens = list(generate(Autoregressive(), models, law, prompt, 24).tokens)
    committed = [*prompt, tokens[0]]
    for drafted, verdict in seen:
        cache = target.new_cache(1, 64)
        target.forward(torch.tensor([committed[:-1]]), cache)
        fed = torch.tensor([[committed[-1], *drafted]])
        logits = target.forward(fed, cache, View(skip=LayerSkip(frozenset({1}), frozenset({0}))))[0]
        assert logits[:-1].argmax(-1).tolist() == drafted
        committed += verdict.tokens


def test_a_draft_left_in_the_targets_cache_is_caught(monkeypatch):
    monkeypatch.setattr(LengthCache, "truncate", lambda self, lengths: None)
    with pytest.raises(AssertionError):
        generate(draft_verify(), skipping_pair(), Law(), count=8)


def test_a_draft_law_that_claims_to_be_the_whole_models_is_caught(monkeypatch):
    """Mutation: record the target's own law for tokens that the skipped model drew."""
    models = skipping_pair()
    original = Chain.grow

    def lying(self, growth):
        source = growth._ground._role
        base = source.cache.lengths[0]
        tree = original(self, growth)
        source.cache.truncate([base])
        root = torch.tensor([growth._session.committed[-1:]])
        logits = source.model.forward(torch.cat([root, tree.tokens], 1), source.cache)
        tree.draws.law.copy_(source.law.probabilities(logits[:, :-1]))
        return tree

    monkeypatch.setattr(Chain, "grow", lying)
    got = output_law(draft_verify(), models, Law(), PROMPT, 3)
    assert distance(got, true_law(models, Law(), PROMPT, 3)) > 1e-3


def test_a_history_that_stands_still_is_seen_in_the_draft(monkeypatch):
    """With a penalty, a draft that forgets what was committed drafts something else."""
    law = Law(0.0, repetition_penalty=3.0)
    models = skipping_pair(vocab=6)

    def accepted():
        drafter = SelfSkip([], [])
        rounds = generate(draft_verify(drafter, Constant(4)), models, law, count=40).rounds
        return sum(r.count.accepted for r in rounds) / sum(r.count.proposed for r in rounds)

    assert accepted() == 1.0
    monkeypatch.setattr(
        Session, "_roles", property(lambda self: [self.target], lambda *_: None), False
    )
    assert accepted() < 1.0


@pytest.mark.parametrize(
    ("skip", "word"),
    [
        (([-1], []), "not a block"),
        (([1.5], []), "not a block"),
        (([True], []), "not a block"),
        (([1], None), "Only one"),
        ((None, [1]), "Only one"),
    ],
)
def test_sets_that_cannot_be_are_refused(skip, word):
    with pytest.raises(ConfigError, match=word):
        SelfSkip(*skip)


def test_blocks_that_the_target_lacks_are_refused_with_the_range():
    with pytest.raises(ConfigError) as refused:
        SelfSkip([4], []).prepare(skipping_pair())
    assert "0 to 3" in refused.value.fix
    SelfSkip([3], [0]).prepare(skipping_pair())


def test_without_a_set_every_second_block_is_skipped():
    drafter, models = SelfSkip(), skipping_pair()
    assert (drafter.skip_for(models).attention, drafter.skip_for(models).feed_forward) == ({1}, {1})


# The offline search.


def context_of(decoder, models, count=2):
    requests = tuple(
        Request((0, 1, i), 12, Law(0.0), Streams(0, f"calibration/{i}")) for i in range(count)
    )
    return Calibrating(decoder, models, requests, CpuClock())


def reward(self, context, skip):
    """Pay for skipping attentions 1 and 2, and charge for everything else."""
    good, bad = len(skip.attention & {1, 2}), len(skip.attention - {1, 2})
    return Speed(10.0 + 3 * good - 2 * bad - 2 * len(skip.feed_forward), 0.5, 0.7)


def test_the_best_set_of_a_search_is_adopted(monkeypatch):
    random = Random(0)
    monkeypatch.setattr(SearchedSkip, "_measure", reward)
    monkeypatch.setattr(BayesianSearch, "ask", lambda self: [random.random() for _ in range(8)])
    drafter = SearchedSkip(iterations=600)
    models = skipping_pair()
    values = drafter.calibrate(context_of(draft_verify(drafter), models))
    assert values["attention"] == [1, 2] and values["feed_forward"] == []
    assert values["speedup"] == 16.0
    assert values["sets_tried"] <= 2**8 and values["iterations"] == 600
    drafter.prepare(models)
    assert drafter.skip_for(models).feed_forward == {1}, "measuring alone changes nothing"
    drafter.use(values)
    drafter.prepare(models)
    skip = drafter.skip_for(models)
    assert (skip.attention, skip.feed_forward) == ({1, 2}, frozenset())


@pytest.mark.slow
def test_the_bayesian_search_finds_what_pays_in_a_tenth_of_all_sets(monkeypatch):
    monkeypatch.setattr(SearchedSkip, "_measure", reward)
    drafter = SearchedSkip(iterations=18)
    values = drafter.calibrate(context_of(draft_verify(drafter), skipping_pair()))
    assert values["attention"] == [1, 2] and values["feed_forward"] == []


def test_a_search_measures_real_decoding(real):
    models = real("llama3", "lean")
    drafter = SearchedSkip(iterations=3, new_tokens=8)
    decoder = draft_verify(drafter, Constant(3))
    values = drafter.calibrate(context_of(decoder, models))
    assert values["speedup"] > 0 and 0 <= values["acceptance_rate"] <= 1
    assert max(values["attention"] + values["feed_forward"], default=0) < 3


def test_a_stall_of_one_round_does_not_move_the_objective():
    def generation(stall):
        prefill = Round(count_of(0, 0, 1, 0, 1, 3, 0, 0), 10**9, 10**9, 10**9)
        rounds = [Round(count_of(4, 3, 4, 4, 1, 5, 4, 4), 4_000, 9_000, 1_000) for _ in range(5)]
        rounds[2] = rounds[2].__class__(rounds[2].count, 4_000 + stall, 9_000 + stall, 1_000)
        return Generation((), (prefill, *rounds), StopReason.LENGTH, 0, 0, None)

    calm, busy = speed_of([generation(0)]), speed_of([generation(10**9)])
    assert calm == busy
    assert calm.speedup == pytest.approx(20 / (5 * (1 + 4 * 0.1)))
    assert (calm.acceptance_rate, calm.draft_cost) == (0.75, pytest.approx(0.1))


def test_a_slow_hour_does_not_move_the_objective():
    def generation(pace):
        prefill = Round(count_of(0, 0, 1, 0, 1, 3, 0, 0), 1, 1, 1)
        count = count_of(4, 3, 4, 4, 1, 5, 4, 4)
        rounds = [Round(count, 4_000 * pace, 9_000 * pace, 1_000 * pace) for _ in range(5)]
        return Generation((), (prefill, *rounds), StopReason.LENGTH, 0, 0, None)

    assert speed_of([generation(1)]) == speed_of([generation(5)])


def test_answers_too_short_for_a_draft_are_refused():
    prefill = Round(count_of(0, 0, 1, 0, 1, 3, 0, 0), 1, 1, 1)
    with pytest.raises(ConfigError, match="no round"):
        speed_of([Generation((), (prefill,), StopReason.LENGTH, 0, 0, None)])


def test_the_part_asks_for_a_calibration_unless_a_set_is_given():
    assert calibrated_parts(draft_verify(SearchedSkip()))[0].needs_calibration
    assert not calibrated_parts(draft_verify(SearchedSkip([1], [])))[0].needs_calibration
    assert not calibrated_parts(draft_verify(SelfSkip()))
    with pytest.raises(ConfigError, match="names no skipped"):
        SearchedSkip().use({"acceptance": [1]})


@pytest.mark.parametrize("values", [{"iterations": 0}, {"new_tokens": 1}])
def test_searches_that_cannot_be_are_refused(values):
    with pytest.raises(ConfigError, match="search of"):
        SearchedSkip(**values)
