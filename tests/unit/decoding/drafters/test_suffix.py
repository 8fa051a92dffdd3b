"""SuffixDecoding: what is counted when, what is carried, and the law that it leaves alone."""

from __future__ import annotations

import pytest

from specbench.clock import CpuClock
from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.model import ModelDrafter
from specbench.decoding.drafters.suffix import SuffixDecoding
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.request import Request
from specbench.decoding.search.suffix_automaton import SuffixAutomaton
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.verifiers.sample_match import SampleMatch
from specbench.decoding.verifiers.token_sd import TokenSD
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel
from specbench.rng import Streams
from tests.unit.decoding.drafters.stores import paths_of, watch
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, cyclic_table, generate, table_pair

GREEDY = Law(temperature=0)
PROMPT = (0, 1, 0, 1, 0)
LAWS = {
    "plain": Law(),
    "cold": Law(temperature=0.5, top_p=0.9),
    "penalty": Law(temperature=0.8, top_k=2, repetition_penalty=1.7),
}


def suffix(verifier=None, **options):
    return DraftVerify(SuffixDecoding(**options), Chain(), Constant(32), verifier or SampleMatch())


def hybrid(verifier=None, length=2, **options):
    options = {"fallback": ModelDrafter(), "fallback_length": length, **options}
    return suffix(verifier or TokenSD(), **options)


class Anew:
    """A decoder that begins every request without what it carries."""

    def __init__(self, decoder):
        self._decoder = decoder

    def generate(self, *arguments):
        self._decoder.reset()
        return self._decoder.generate(*arguments)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("make", [suffix, lambda: suffix(tree=True), hybrid])
def test_law_equals_the_targets(make, law):
    models = table_pair(vocab=2)
    got = output_law(Anew(make()), models, law, PROMPT, 4)
    assert distance(got, true_law(models, law, PROMPT, 4)) < 1e-12


@pytest.mark.parametrize("make", [suffix, lambda: suffix(tree=True), hybrid])
def test_law_equals_the_targets_whatever_was_answered_before(make):
    """The carried counts change what is drafted, and nothing else."""
    models, decoder = table_pair(vocab=2), make()
    for seed in range(3):
        generate(decoder, models, Law(), PROMPT, 12, seed=seed)
    kept = decoder.drafter.answers

    class Carrying(Anew):
        def generate(self, *arguments):
            self._decoder.reset()
            for text, tokens in kept.texts.items():
                self._decoder.drafter.answers.extend(-1 - text, tokens)
            return self._decoder.generate(*arguments)

    got = output_law(Carrying(decoder), models, Law(), PROMPT, 3)
    assert distance(got, true_law(models, Law(), PROMPT, 3)) < 1e-12


def test_a_draft_that_claims_a_law_of_its_counts_is_caught():
    """Mutation: a copied token is verified as if it had been drawn from the draft's law."""

    class Claiming(TokenSD):
        def draft_law(self, scored, target):
            return target[:, : scored.tree.size].roll(1, -1)

    models = table_pair(vocab=2)
    got = output_law(Anew(suffix(Claiming())), models, Law(), PROMPT, 4)
    assert distance(got, true_law(models, Law(), PROMPT, 4)) > 1e-3


@pytest.mark.parametrize("make", [suffix, lambda: suffix(tree=True), hybrid])
@pytest.mark.parametrize("law", [GREEDY, Law(0, repetition_penalty=1.3), Law(0.7)])
def test_tokens_are_plain_decodings(make, law):
    models = table_pair(vocab=4, sharpness=3.0)
    decoder = make()
    for seed in range(3):
        expected = generate(Autoregressive(), models, law, PROMPT, 60, seed=seed)
        got = generate(decoder, models, law, PROMPT, 60, seed=seed)
        if law.greedy or isinstance(decoder.verifier, SampleMatch):
            assert got.tokens == expected.tokens
        assert len(got.tokens) == 60 and len(got.rounds) < 60


def test_a_periodic_text_is_drafted_as_long_as_is_allowed():
    """After one period the match grows with the text, and the draft with the match."""
    models = ModelPair("cycle", TableModel(cyclic_table(4, 5), 5))
    prompt = tuple(range(4)) * 3
    rounds = generate(suffix(max_tokens=8), models, GREEDY, prompt, 60).rounds
    assert [r.count.emitted for r in rounds[3:-1]] == [9] * len(rounds[3:-1])
    assert len(rounds) == 8


def test_earlier_answers_are_drafted_from_until_they_are_forgotten():
    """An answer that has nothing in common with its prompt can only be known from before."""
    models = ModelPair("cycle", TableModel(cyclic_table(40, 41), 41))
    decoder = suffix(max_spec_factor=4.0, max_cached_requests=2)

    def emitted():
        rounds = generate(decoder, models, GREEDY, (0,), 30).rounds
        return [r.count.emitted for r in rounds]

    first, second = emitted(), emitted()
    assert first == [1] * 30
    assert len(second) < 12
    decoder.reset()
    assert emitted() == first
    generate(decoder, models, GREEDY, tuple(range(32)), 4)
    assert emitted() == first, "of two answers, the one being decoded included, one is earlier"


def test_every_kept_token_of_an_answer_is_counted_and_no_other():
    models, decoder = table_pair(vocab=4, sharpness=3.0), suffix()
    answers = []
    for seed in range(3):
        answers.append(generate(decoder, models, Law(), PROMPT, 30, seed=seed, stop=(3,)).tokens)
    generate(decoder, models, Law(), PROMPT, 1)
    known = list(decoder.drafter.answers.texts.values())
    assert [tuple(text) for text in known[:3]] == answers
    assert any(3 in answer for answer in answers)


def test_an_answer_that_is_being_decoded_counts_for_others_and_goes_with_its_turn():
    models, decoder = table_pair(vocab=4, sharpness=3.0), suffix(max_cached_requests=2)
    requests = [Request(PROMPT, 30, GREEDY, Streams(s, "turn")) for s in range(4)]
    expected = generate(Autoregressive(), models, GREEDY, PROMPT, 30).tokens
    sessions = [decoder.open(models, request, CpuClock()) for request in requests]
    while not all(session.done for session in sessions):
        for session in sessions:
            if not session.done:
                decoder.step(session)
    assert all(session.finish().tokens == expected for session in sessions)
    assert len(decoder.drafter.answers.texts) == 2


def test_nothing_is_carried_where_no_answer_is_kept():
    decoder = suffix(max_cached_requests=0)
    assert not decoder.carries_state
    models = table_pair(vocab=4, sharpness=3.0)
    once, again = (generate(decoder, models, Law(), PROMPT, 30).rounds for _ in range(2))
    assert [r.count for r in once] == [r.count for r in again]
    assert not decoder.drafter.answers.texts


def test_the_draft_model_is_asked_where_the_counts_promise_less_than_it():
    models = table_pair(vocab=4, sharpness=3.0)
    drafted = {}
    for length in (1, 2, 30):
        decoder = hybrid(length=length)
        rounds = generate(decoder, models, GREEDY, PROMPT, 40).rounds
        drafted[length] = [r.count.draft.forwards > 0 for r in rounds[1:-1]]
    assert all(drafted[30]) and any(drafted[2]) and not all(drafted[2])


def test_a_stop_token_and_what_lies_behind_it_are_not_drafted():
    models = ModelPair("cycle", TableModel(cyclic_table(6, 7), 7))
    for tree in (False, True):
        decoder = suffix(tree=tree, max_spec_factor=4.0)
        seen = watch(decoder)
        prompt = tuple(range(6)) * 3 + (0, 1)
        generate(decoder, models, GREEDY, prompt, 20, stop=(5,))
        paths = [path for scored, _ in seen for path in paths_of(scored.tree)]
        assert paths and not any(5 in path for path in paths)


@pytest.mark.parametrize(
    "options",
    [
        {"max_depth": 1},
        {"max_tokens": 0},
        {"max_spec_factor": -1},
        {"min_token_prob": 1.5},
        {"max_cached_requests": -1},
        {"fallback": ModelDrafter()},
    ],
)
def test_numbers_that_cannot_be_are_refused(options):
    with pytest.raises(ConfigError, match="is not possible"):
        SuffixDecoding(**options)


def test_a_place_that_was_not_followed_anew_would_be_noticed(monkeypatch):
    """Mutation: counts are built anew, and a request goes on with the old numbers of states."""
    models = ModelPair("cycle", TableModel(cyclic_table(12, 13), 13))

    def second_in_turn():
        decoder = suffix(max_cached_requests=2, max_spec_factor=4.0)
        generate(decoder, models, GREEDY, (0,), 40)
        request = Request((0, 1), 40, GREEDY, Streams(0, "turn"))
        session = decoder.open(models, request, CpuClock())
        for _ in range(3):
            generate(decoder, models, GREEDY, (0,), 8)
        while not session.done:
            decoder.step(session)
        return [round_.count.emitted for round_ in session.finish().rounds]

    right = second_in_turn()
    monkeypatch.setattr(SuffixAutomaton, "epoch", property(lambda s: 0, lambda s, v: None), False)
    with pytest.raises((IndexError, AssertionError)):
        assert second_in_turn() == right
