"""Drafts of a set acceptance: the tokens of plain decoding, the set law, an honest clock."""

from __future__ import annotations

from collections import Counter

import pytest
from scipy.stats import chisquare

from specbench.audit.enumeration import enumerate_output
from specbench.clock import CpuClock
from specbench.decoding.drafters.synthetic import NotRepeatable
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.decoding.loops.synthetic import SyntheticAcceptance
from specbench.decoding.request import Request, StopTokens
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table
from specbench.predict import expected_tokens
from specbench.rng import Streams
from tests.unit.decoding.parts import table_pair

SAMPLED = Law(temperature=0.9, top_k=4)
GREEDY = Law(temperature=0.0)
LENGTH = 3


def request(seed=0, count=60, law=SAMPLED, stop=()):
    streams = Streams(seed, f"synthetic/{seed}")
    return Request((0, 1, 2), count, law, streams, StopTokens(frozenset(stop)))


def rounds_of(acceptance, seeds=12, count=200, run_draft=False):
    """Return what full rounds accepted: those whose draft had room for all its tokens."""
    models, decoder = table_pair(vocab=5), SyntheticAcceptance(acceptance, LENGTH, run_draft)
    found = []
    for seed in range(seeds):
        generation = decoder.generate(models, request(seed, count), CpuClock())
        counts = [each.count for each in generation.rounds[1:]]
        found += [each.accepted for each in counts if each.proposed == LENGTH]
    return found


def geometric(acceptance):
    """Return the law of the accepted tokens of a round."""
    law = [acceptance**k * (1 - acceptance) for k in range(LENGTH)]
    return [*law, acceptance**LENGTH]


def p_value(found, law):
    counts = Counter(found)
    observed = [counts[k] for k in range(LENGTH + 1)]
    return chisquare(observed, [p * len(found) for p in law]).pvalue


class Spy(TableModel):
    """Counts its forwards, and can be told to answer otherwise where it sees several tokens."""

    forwards = 0
    contrary = False

    def forward(self, tokens, cache, *view):
        self.forwards += 1
        logits = super().forward(tokens, cache, *view)
        several = self.contrary and 1 < tokens.shape[1] <= LENGTH + 1 and cache.lengths[0] > 4
        return -logits if several else logits


class SpyClock(CpuClock):
    """Notes how many forwards its model had done when it was started, and how often it was."""

    before = 0
    starts = 0

    def __init__(self, model):
        super().__init__()
        self.model = model

    def start(self):
        self.before = self.model.forwards
        self.starts += 1
        super().start()


@pytest.mark.parametrize("run_draft", [True, False])
@pytest.mark.parametrize("law", [SAMPLED, GREEDY, Law(temperature=1.0, repetition_penalty=1.4)])
@pytest.mark.parametrize("stop", [(), (3,)])
def test_the_tokens_are_plain_decodings(run_draft, law, stop):
    decoder = SyntheticAcceptance(0.6, LENGTH, run_draft)
    for seed in range(6):
        models, asked = table_pair(vocab=5, seed=seed), request(seed, law=law, stop=stop)
        plain = Autoregressive().generate(models, asked, CpuClock())
        found = decoder.generate(models, asked, CpuClock())
        assert (found.tokens, found.stop_reason) == (plain.tokens, plain.stop_reason)
        assert sum(each.count.emitted for each in found.rounds) == len(found.tokens)
    ties, emitted = decoder.ties
    assert ties == 0 and emitted > 0


@pytest.mark.parametrize("acceptance", [0.3, 0.8])
def test_a_round_accepts_a_geometric_number_of_tokens(acceptance):
    """Chi-square over full rounds; a right law is rejected once in a million runs."""
    found = rounds_of(acceptance)
    assert len(found) > 600
    assert p_value(found, geometric(acceptance)) > 1e-6
    assert p_value(found, geometric(acceptance + 0.1)) < 1e-6
    tokens = 1 + sum(found) / len(found)
    assert abs(tokens / expected_tokens(acceptance, LENGTH) - 1) < 0.1


def test_the_ends_of_acceptance():
    assert set(rounds_of(1.0, seeds=2)) == {LENGTH}
    assert set(rounds_of(0.0, seeds=2)) == {0}


def test_a_stop_inside_a_draft_ends_the_counts_there():
    decoder = SyntheticAcceptance(1.0, LENGTH, run_draft=False)
    lengths = set()
    for seed in range(30):
        asked = request(seed, stop=(3,))
        found = decoder.generate(table_pair(vocab=5, seed=seed), asked, CpuClock())
        lengths.add(len(found.tokens) % (LENGTH + 1))
        counts = [each.count for each in found.rounds[1:]]
        assert all(count.accepted == count.proposed for count in counts)
        assert all(count.accepted == LENGTH for count in counts[:-1])
        assert not counts or counts[-1].accepted == min(counts[-1].emitted, LENGTH)
    assert len(lengths) > 1


def test_the_clock_starts_behind_the_plain_decoding():
    target = Spy(markov_table(2, 5, 0, 1.0), 5)
    draft = Spy(markov_table(2, 5, 1, 1.0), 5)
    clock = SpyClock(target)
    decoder = SyntheticAcceptance(0.7, LENGTH)
    found = decoder.generate(ModelPair("spied", target, draft), request(), clock)
    assert clock.starts == 1
    assert clock.before == len(found.tokens) == 60  # one forward for each token
    timed = sum(each.count.target.forwards for each in found.rounds)
    assert target.forwards - clock.before == timed < 60
    assert draft.forwards == sum(each.count.draft.forwards for each in found.rounds)
    full = [each.count for each in found.rounds[1:] if each.count.proposed == LENGTH]
    assert {each.draft.forwards for each in full} == {LENGTH}


def test_free_drafts_run_no_model():
    found = SyntheticAcceptance(0.7, LENGTH, run_draft=False).generate(
        table_pair(vocab=5), request(), CpuClock()
    )
    assert sum(each.count.draft.forwards for each in found.rounds) == 0
    assert SyntheticAcceptance(0.7, LENGTH, run_draft=False).needs == frozenset()
    assert SyntheticAcceptance(0.7, LENGTH).needs == {"draft"}


def test_a_target_that_changes_its_mind_is_counted_and_not_followed():
    target = Spy(markov_table(2, 5, 0, 1.0), 5)
    models = ModelPair("contrary", target)
    plain = Autoregressive().generate(models, request(law=GREEDY), CpuClock())
    target.contrary = True
    decoder = SyntheticAcceptance(0.7, LENGTH, run_draft=False)
    found = decoder.generate(models, request(law=GREEDY), CpuClock())
    assert found.tokens == plain.tokens
    ties, emitted = decoder.ties
    assert 0.5 * emitted < ties <= emitted
    decoder.reset()
    assert decoder.ties == (0, 0)


def test_the_coins_are_no_number_of_the_target():
    """With coins from the target's own stream, right drafts would go with its low draws."""
    models, decoder = table_pair(vocab=5), SyntheticAcceptance(0.5, LENGTH, run_draft=False)
    low = high = 0
    for seed in range(20):
        asked = request(seed, 100)
        generation = decoder.generate(models, asked, CpuClock())
        place = len(asked.prompt) + 1
        for each in generation.rounds[1:]:
            if each.count.proposed == LENGTH:
                accepted = each.count.accepted > 0
                number = asked.streams.uniform(place, 0)
                low += accepted and number < 0.5
                high += accepted and number >= 0.5
            place += each.count.emitted
    assert low + high > 400
    assert abs(low - high) < 6 * (low + high) ** 0.5  # six standard deviations


@pytest.mark.parametrize("acceptance", [-0.1, 1.01, float("nan")])
def test_an_acceptance_that_is_no_probability_is_refused(acceptance):
    with pytest.raises(ConfigError, match="acceptance"):
        SyntheticAcceptance(acceptance, LENGTH)


def test_it_says_so_where_draws_do_not_repeat_themselves():
    decoder = SyntheticAcceptance(0.7, 1, run_draft=False)
    with pytest.raises(NotRepeatable, match="repeats itself"):
        enumerate_output(decoder, table_pair(), request(count=3, law=Law(temperature=1.0)))
