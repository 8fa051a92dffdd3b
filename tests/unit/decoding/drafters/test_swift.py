"""SWIFT: exact while it searches, and a search that leaves the target's cache alone."""

from __future__ import annotations

import pytest
import torch

from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters import swift as swift_module
from specbench.decoding.drafters.swift import SearchPlan, SkipSearch, Swift, agreement
from specbench.decoding.lengths.confidence import ConfidenceStop
from specbench.decoding.request import Request
from specbench.decoding.search.bayesian import BayesianSearch
from specbench.decoding.search.sublayers import alternating
from specbench.decoding.session import Role
from specbench.decoding.topologies.chain_leaves import ChainLeaves
from specbench.decoding.tree import DrawKind, TreeMask
from specbench.decoding.verifiers.base import Verifier
from specbench.decoding.verifiers.rrs import RecursiveRejection
from specbench.decoding.verifiers.tree_walk import TreeWalk
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.base import CAUSAL, LayerSkip, View
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table
from specbench.rng import Streams
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, generate
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


class SkipTable(TableModel):
    """A table whose law depends on which sublayers are skipped."""

    def __init__(self, vocab, seed, layers=5):
        super().__init__(markov_table(2, vocab, seed), vocab)
        self.layers = layers
        self.skips = []
        self._plain = self._table
        self._vocab, self._seed = vocab, seed

    def forward(self, tokens, cache, view=CAUSAL):
        skip = view.skip
        self._table = self._plain
        if skip is not None:
            self.skips.append(skip)
        if skip is not None and skip.size:
            code = sum(2**n for n in skip.attention) + sum(32 * 2**n for n in skip.feed_forward)
            noise = markov_table(2, self._vocab, self._seed + code)
            self._table = lambda context: self._plain(context) + noise(context)
        return super().forward(tokens, cache, view)


def skip_pair(vocab=3, seed=0):
    return ModelPair("table", SkipTable(vocab, seed))


def swift(threshold=0.3, depth=2, verifier=None, topology=None, **options):
    options = {"window": 1, "bayes_interval": 0, "skip_ratio": 0.5, "enough": 1.0, **options}
    leaves = topology or ChainLeaves(sampled_widths=(1, 2, 2, 3), max_depth=depth)
    walk = verifier or TreeWalk(RecursiveRejection(replacement=False))
    return DraftVerify(Swift(**options), leaves, ConfidenceStop(threshold, depth), walk)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return tiny_checkpoints.pairs(tmp_path_factory.mktemp("swift"))


# The law.


@pytest.mark.parametrize(
    ("law", "count"),
    [
        ("plain", 3),
        ("cold", 4),
        ("penalty", 4),
        pytest.param("plain", 4, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("threshold", [0.0, 0.45])
def test_law_equals_the_targets_while_the_search_goes_on(law, count, threshold):
    models = skip_pair()
    decoder = swift(threshold)
    got = output_law(Fresh(decoder), models, LAWS[law], PROMPT, count)
    assert distance(got, true_law(models, LAWS[law], PROMPT, count)) < 1e-12
    assert len(set(models.target.skips)) > 1, "the set changed on the way"


class Fresh:
    """Resets carried state before every request, as a run does."""

    def __init__(self, decoder):
        self._decoder = decoder

    def generate(self, models, request, clock):
        self._decoder.reset()
        return self._decoder.generate(models, request, clock)


def test_a_carried_search_keeps_the_law():
    """The set in use depends on earlier requests, and on nothing of this one's draft."""
    models = skip_pair()
    decoder = swift()
    generate(decoder, models, Law(), count=20)
    best = decoder.drafter.search.best
    assert best != alternating(5)
    got = output_law(decoder, models, Law(), PROMPT, 3)
    assert distance(got, true_law(models, Law(), PROMPT, 3)) < 1e-12


def test_draws_declared_as_independent_are_caught():
    """Mutation: leaves drawn without replacement, verified as if with."""
    topology = ChainLeaves(sampled_widths=(2, 2, 2, 3), max_depth=1)
    original = topology.grow

    def lying(growth):
        tree = original(growth)
        object.__setattr__(tree.draws, "kind", DrawKind.WITH_REPLACEMENT)
        return tree

    models = skip_pair()
    for honest in (True, False):
        topology.grow = original if honest else lying
        walk = TreeWalk(RecursiveRejection(replacement=not honest))
        decoder = Fresh(swift(0.0, 1, verifier=walk, topology=topology))
        error = distance(
            output_law(decoder, models, Law(), PROMPT, 3), true_law(models, Law(), PROMPT, 3)
        )
        assert error < 1e-12 if honest else error > 1e-3


class UnwarpedBonus(Verifier):
    """The release's slip: after full acceptance the next token ignores the temperature."""

    def __init__(self):
        self._walk = TreeWalk(RecursiveRejection(replacement=False))

    def verify(self, scored):
        (verdict,) = self._walk.verify(scored)
        last = verdict.path[-1] if verdict.path else -1
        if verdict.path and not scored.tree.children[last + 1]:
            raw = Law().probabilities(scored.logits[:, last + 1])
            token = int(scored.choices.draw(raw, 0.5))
            verdict = verdict._replace(next_token=token, tokens=(*verdict.tokens[:-1], token))
        return [verdict]


def test_a_bonus_that_skips_the_warper_is_caught():
    law, models = Law(temperature=0.4), skip_pair()
    decoder = Fresh(swift(0.0, 1, verifier=UnwarpedBonus()))
    got = output_law(decoder, models, law, PROMPT, 3)
    assert distance(got, true_law(models, law, PROMPT, 3)) > 1e-3


@pytest.mark.parametrize("law", [Law(0.0), Law(0.0, repetition_penalty=1.3)])
@pytest.mark.parametrize(("name", "engine"), ENGINES)
def test_greedy_tokens_are_plain_decodings_on_real_architectures(real, name, engine, law):
    models = real(name, engine)
    for length in (1, 40):
        prompt = tuple((7 * i + i * i) % tiny_checkpoints.VOCAB for i in range(length))
        expected = generate(Autoregressive(), models, law, prompt, 30)
        decoder = swift(0.3, 4, window=6)
        assert generate(decoder, models, law, prompt, 30).tokens == expected.tokens
        assert decoder.drafter.search.tries > 3


# The search.


def self_draft(target, cache):
    return Role(
        "draft", target, cache, Law(), Request((0,), 1, Law(), Streams(0)), torch.tensor([[0]])
    )


@pytest.mark.parametrize(("name", "engine"), ENGINES)
def test_scoring_a_candidate_leaves_the_cache_as_it_was(real, name, engine):
    target = real(name, engine).target
    tokens = [(5 * i + i * i) % tiny_checkpoints.VOCAB for i in range(30)]
    cache = target.new_cache(1, 64)
    target.forward(torch.tensor([tokens[:-1]]), cache)
    before = [tensor[:, :, :29].clone() for tensor in (*cache.keys, *cache.values)]
    agreement(self_draft(target, cache), tokens[-13:], LayerSkip(frozenset({1}), frozenset({0})))
    assert cache.lengths == [29]
    for left, right in zip((*cache.keys, *cache.values), before, strict=True):
        assert torch.equal(left[:, :, :29], right)


def score_of(target, tokens, window, skip):
    """Return the score by a fresh cache: full prefix, then the window under the skip."""
    cache = target.new_cache(1, 64)
    target.forward(torch.tensor([tokens[: -window - 1]]), cache)
    logits = target.forward(torch.tensor([tokens[-window - 1 : -1]]), cache, View(skip=skip))[0]
    return float((logits.argmax(-1) == torch.tensor(tokens[-window:])).float().mean())


def answer(target, count=40, window=12):
    """Return a text whose end a skipped model would half agree with."""
    models = ModelPair("t", target)
    tokens = [3, 5, 9, *generate(Autoregressive(), models, Law(0.0), (3, 5, 9), count).tokens]
    tokens[-window:-1:3] = [(token + 1) % tiny_checkpoints.VOCAB for token in tokens[-window:-1:3]]
    return tokens


@pytest.mark.parametrize(("name", "engine"), ENGINES)
def test_a_score_is_the_skipped_models_agreement(real, name, engine):
    target = real(name, engine).target
    tokens = answer(target)
    cache = target.new_cache(1, 128)
    target.forward(torch.tensor([tokens[:-1]]), cache)
    scores = []
    for block in range(3):
        for skip in (LayerSkip(frozenset({block})), LayerSkip(frozenset(), frozenset({block}))):
            scores.append(agreement(self_draft(target, cache), tokens[-13:], skip))
            assert scores[-1] == pytest.approx(score_of(target, tokens, 12, skip))
    assert len(set(scores)) > 1


def test_seeing_the_old_slots_would_change_the_score(real, monkeypatch):
    """Mutation: the reread tokens also see the slots that they were first written to."""

    def open_mask(count, device):
        seen = torch.ones(count, count, dtype=torch.bool)
        return TreeMask(torch.arange(count).repeat(2), torch.cat([seen, seen.tril()], 1))

    target = real("llama3", "lean").target
    tokens = answer(target)
    cache = target.new_cache(1, 128)
    target.forward(torch.tensor([tokens[:-1]]), cache)
    skips = [LayerSkip(frozenset({block})) for block in range(3)]
    honest = [agreement(self_draft(target, cache), tokens[-13:], skip) for skip in skips]
    monkeypatch.setattr(swift_module, "_again", open_mask)
    assert [agreement(self_draft(target, cache), tokens[-13:], skip) for skip in skips] != honest


def test_scores_of_accepted_sets_rise():
    search = SkipSearch(8, SearchPlan(bayes_interval=0, max_failures=99), alternating(8))
    best = [0.0]
    for trial, score in enumerate((0.2, 0.5, 0.4, 0.5, 0.7, 0.1)):
        before = search.best
        tried = search.candidate(trial)
        assert tried.size == int(12 * 0.45)
        search.report(score)
        best.append(search.score)
        assert search.best == (tried if score > best[-2] else before)
    assert best == sorted(best) and best[-1] == 0.7


@pytest.mark.parametrize(
    ("plan", "scores", "tries"),
    [
        (SearchPlan(enough=0.9, bayes_interval=0), (0.5, 0.9, 0.91, 0.99), 3),
        (SearchPlan(max_failures=2, bayes_interval=0), (0.5, 0.4, 0.4, 0.3, 0.9), 4),
        (SearchPlan(max_tries=3, bayes_interval=0), (0.1, 0.2, 0.3, 0.4), 3),
    ],
    ids=["enough", "failures", "tries"],
)
def test_the_search_ends(plan, scores, tries):
    search = SkipSearch(8, plan, alternating(8))
    for score in scores:
        if search.active:
            search.candidate(0)
            search.report(score)
    assert not search.active and search.tries == tries


def test_every_so_many_candidates_are_suggested(monkeypatch):
    asked = []

    def ask(self):
        asked.append(len(self._told))
        return [0.1 * n for n in range(12)]

    monkeypatch.setattr(BayesianSearch, "ask", ask)
    search = SkipSearch(8, SearchPlan(bayes_interval=3), alternating(8))
    sets = []
    for trial in range(6):
        sets.append(search.candidate(trial))
        search.report(0.1)
    assert asked == [2, 5], "every third, and told of all that was tried before"
    assert sets[2] == LayerSkip(frozenset(), frozenset({2, 3, 4, 5, 6}))


def test_the_first_and_the_last_block_are_never_skipped(monkeypatch):
    monkeypatch.setattr(BayesianSearch, "ask", lambda self: [0.5] * 8)
    models = skip_pair()
    models.target.layers = 6
    generate(swift(bayes_interval=2), models, Law(), count=40)
    assert models.target.skips
    for skip in models.target.skips:
        assert not (skip.attention | skip.feed_forward) & {0, 5}


def test_the_search_waits_for_a_window_and_is_counted():
    models = skip_pair(vocab=5)
    for window, tried in ((60, False), (10, True)):
        decoder = swift(0.3, 2, window=window)
        rounds = generate(decoder, models, Law(0.0), count=40).rounds
        assert (decoder.drafter.search.tries > 0) is tried
        read = [r.count.draft.tokens - r.count.proposed for r in rounds[1:-1]]
        assert set(read) == ({0, 10} if tried else {0}), "the window is work of the draft"


def test_a_fixed_set_is_not_searched():
    models = skip_pair(vocab=5)
    decoder = swift(search="fixed", attention=[2], feed_forward=[])
    generate(decoder, models, Law(), count=40)
    assert set(models.target.skips) == {LayerSkip(frozenset({2}))}
    assert decoder.drafter.search is None


def test_state_is_carried_and_reset():
    models = skip_pair(vocab=5)
    decoder = swift()
    assert decoder.carries_state
    first = generate(decoder, models, Law(), count=30)
    tries = decoder.drafter.search.tries
    generate(decoder, models, Law(), count=30)
    assert decoder.drafter.search.tries > tries
    decoder.reset()
    again = generate(decoder, models, Law(), count=30)
    assert [r.count for r in again.rounds] == [r.count for r in first.rounds]
    assert decoder.drafter.search.tries == tries


def test_the_search_raises_acceptance_over_its_start():
    """On a target with one harmless sublayer, found by the search, chains get longer."""
    models = skip_pair(vocab=8, seed=3)
    forward = models.target.forward

    def harmless(tokens, cache, view=CAUSAL):
        good = view.skip == LayerSkip(frozenset({2}))
        return forward(tokens, cache, view._replace(skip=None) if good else view)

    models.target.forward = harmless

    def share(**options):
        decoder = swift(0.0, 4, skip_ratio=0.2, window=12, **options)
        rounds = generate(decoder, models, Law(0.0), count=300).rounds
        return sum(r.count.accepted for r in rounds) / sum(r.count.proposed for r in rounds)

    assert share() > share(search="fixed") + 0.1


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"search": "later"}, "no search"),
        ({"skip_ratio": 1.2}, "skip_ratio"),
        ({"enough": -0.1}, "enough"),
        ({"window": 0}, "window"),
        ({"interval": 0}, "interval"),
        ({"bayes_interval": -1}, "bayes_interval"),
        ({"max_tries": -1}, "max_tries"),
    ],
)
def test_searches_that_cannot_be_are_refused(values, word):
    with pytest.raises(ConfigError, match=word):
        Swift(**values)


def test_a_target_without_middle_blocks_is_refused():
    models = skip_pair()
    models.target.layers = 2
    with pytest.raises(ConfigError, match="no sublayers"):
        Swift(bayes_interval=0).prepare(models)
    Swift(search="fixed").prepare(models)
