"""Token identity with plain decoding, on random trees and awkward drafts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from specbench.clock import CpuClock
from specbench.decoding.ledger import StopReason
from specbench.decoding.request import Request, StopStrings, StopTokens
from specbench.decoding.session import PromptTooLong
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, drift_table, markov_table
from specbench.rng import Streams
from tests.unit.decoding.parts import (
    Autoregressive,
    cyclic_table,
    generate,
    pld,
    random_trees,
    table_pair,
    token_sd,
)

GREEDY_LAWS = [Law(temperature=0), Law(temperature=0, repetition_penalty=1.6)]
SAMPLED_LAWS = [Law(), Law(temperature=0.7, top_p=0.8), Law(repetition_penalty=1.5, top_k=3)]


@pytest.mark.parametrize("law", GREEDY_LAWS + SAMPLED_LAWS)
@pytest.mark.parametrize("seed", range(6))
def test_random_trees_change_no_token(seed, law):
    """Plain decoding and sample matching draw the same number at the same position."""
    models = table_pair(vocab=5, seed=seed)
    expected = generate(Autoregressive(), models, law, count=40, seed=seed)
    got = generate(random_trees(seed), models, law, count=40, seed=seed)
    assert got.tokens == expected.tokens
    assert len(got.rounds) < len(expected.rounds)


@pytest.mark.parametrize("law", GREEDY_LAWS)
@pytest.mark.parametrize("draft_length", [1, 3, 7])
@pytest.mark.parametrize("prompt", [(0,), (1, 2, 1, 2, 0), tuple(range(5)) * 6])
def test_greedy_methods_change_no_token(law, draft_length, prompt):
    models = table_pair(vocab=5)
    expected = generate(Autoregressive(), models, law, prompt, 30)
    for decoder in (token_sd(draft_length), pld(draft_length), pld(draft_length, match="last")):
        assert generate(decoder, models, law, prompt, 30).tokens == expected.tokens


@pytest.mark.parametrize("law", SAMPLED_LAWS)
def test_prompt_lookup_changes_no_sampled_token(law):
    models = table_pair(vocab=4, sharpness=3.0)
    expected = generate(Autoregressive(), models, law, count=50)
    got = generate(pld(10), models, law, count=50)
    assert got.tokens == expected.tokens
    assert len(got.rounds) < 50


def test_a_wrong_token_would_be_noticed():
    """Mutation: a verifier that keeps one unverified token breaks identity."""
    from specbench.decoding.verifiers.sample_match import SampleMatch

    class Careless(SampleMatch):
        def verify(self, scored):
            verdict = super().verify(scored)[0]
            if scored.tree.size == 0:
                return [verdict]
            first = scored.tree.tokens[0, 0].item()
            return [verdict._replace(path=(0,), tokens=(first, verdict.next_token))]

    models = table_pair(vocab=5)
    law = Law(temperature=0)
    expected = generate(Autoregressive(), models, law, count=30)
    assert generate(token_sd(1, Careless()), models, law, count=30).tokens != expected.tokens


@pytest.mark.parametrize("count", [1, 2, 3, 17])
def test_exactly_the_asked_number_of_tokens(count):
    models = table_pair(vocab=5)
    for decoder in (Autoregressive(), token_sd(4), pld(6), random_trees(1)):
        generation = generate(decoder, models, Law(), count=count)
        assert len(generation.tokens) == count
        assert generation.stop_reason is StopReason.LENGTH


def test_everything_after_the_first_stop_token_is_cut():
    law = Law(temperature=0)
    target = TableModel(cyclic_table(7, 8), 8)
    models = ModelPair("cycle", target, target)
    for decoder in (Autoregressive(), token_sd(4), pld(6)):
        generation = generate(decoder, models, law, tuple(range(7)) * 2, 30, stop={3})
        assert generation.tokens == (0, 1, 2, 3)
        assert generation.stop_reason is StopReason.STOP_TOKEN
        assert sum(r.count.emitted for r in generation.rounds) == 4


def test_stop_strings_cut_every_arm_alike():
    law = Law(temperature=0)
    target = TableModel(cyclic_table(7, 8), 8)
    models = ModelPair("cycle", target, target)
    rule = StopStrings(frozenset(), ("34",), lambda ids: "".join(map(str, ids)))
    for decoder in (Autoregressive(), token_sd(4), pld(6)):
        request = Request((0, 1, 2, 3, 4, 5, 6), 30, law, Streams(0), rule)
        generation = decoder.generate(models, request, CpuClock())
        assert generation.tokens == (0, 1, 2, 3, 4)
        assert generation.stop_reason is StopReason.STOP_STRING


def test_prompt_lookup_on_a_periodic_prompt_emits_eleven_tokens_a_round():
    """A prompt of period 4 of at least 17 tokens: ten copied tokens and the bonus, always."""
    target = TableModel(cyclic_table(4, 5), 5)
    prompt = (0, 1, 2, 3) * 5
    generation = generate(
        pld(10, allow_short=False), ModelPair("cycle", target), Law(temperature=0), prompt, 45
    )
    emitted = [r.count.emitted for r in generation.rounds]
    assert emitted == [1, 11, 11, 11, 11]


def test_prompt_lookup_excludes_the_suffix_itself():
    target = TableModel(markov_table(1, 6, 0), 6)
    generation = generate(pld(5), ModelPair("t", target), Law(temperature=0), (1, 2, 3), 1)
    assert generation.rounds[0].count.proposed == 0
    from specbench.decoding.drafters.prompt_lookup import PromptLookup

    for match in ("first", "last"):
        clock = CpuClock()
        clock.start()
        session = SimpleNamespace(committed=[5, 1, 2, 7, 1, 2, 8, 1, 2], clock=clock)
        drafting = PromptLookup(match=match).begin(session, None)
        assert drafting._after[(1, 2)] == (3 if match == "first" else 6)


def test_a_draft_equal_to_the_target_is_always_accepted():
    target = TableModel(markov_table(2, 4, 0), 4)
    models = ModelPair("same", target, TableModel(markov_table(2, 4, 0), 4))
    generation = generate(token_sd(4), models, Law(temperature=0.8), count=51)
    assert [r.count.emitted for r in generation.rounds[1:]] == [5] * 10
    assert all(r.count.accepted == r.count.proposed for r in generation.rounds)


def test_acceptance_falls_with_the_drift_of_the_draft():
    table, noise = markov_table(2, 5, 0), markov_table(2, 5, 7)
    accepted = []
    for share in (0.0, 0.3, 0.6, 1.0):
        draft = TableModel(drift_table(table, noise, share), 5)
        models = ModelPair("drift", TableModel(table, 5), draft)
        rounds = generate(token_sd(3), models, Law(), count=400).rounds
        proposed = sum(r.count.proposed for r in rounds)
        accepted.append(sum(r.count.accepted for r in rounds) / proposed)
    assert accepted == sorted(accepted, reverse=True)
    assert accepted[0] == 1.0


def test_the_ledger_adds_up():
    models = table_pair(vocab=5)
    for law in (Law(temperature=0), Law()):
        for decoder in (Autoregressive(), token_sd(3), pld(4), random_trees(3)):
            prompt = (0, 1, 2, 0, 1)
            generation = generate(decoder, models, law, prompt, count=33)
            counts = [r.count for r in generation.rounds]
            assert sum(c.emitted for c in counts) == len(generation.tokens) == 33
            assert counts[0].target.tokens == len(prompt) and counts[0].proposed == 0
            for count in counts[1:]:
                assert 0 <= count.accepted <= count.proposed <= count.nodes
                assert 1 <= count.emitted <= count.accepted + 1
                assert count.target.tokens == count.nodes + 1
            fed = sum(c.draft.tokens for c in counts)
            if counts[0].draft.forwards:
                assert fed >= len(prompt)


def test_a_prompt_without_room_for_its_answer_is_refused_by_every_arm():
    table = markov_table(1, 4, 0)
    models = ModelPair("short", TableModel(table, 4, context=20), TableModel(table, 4, context=20))
    for decoder in (Autoregressive(), token_sd(4), pld(4)):
        assert len(generate(decoder, models, Law(), (0,) * 10, 10).tokens) == 10
        with pytest.raises(PromptTooLong):
            generate(decoder, models, Law(), (0,) * 11, 10)


def test_stop_tokens_find_the_first():
    assert StopTokens(frozenset({7})).find([1, 7, 7], 0) == (2, StopReason.STOP_TOKEN)
    assert StopTokens(frozenset({7})).find([7, 1, 2], 1) is None
