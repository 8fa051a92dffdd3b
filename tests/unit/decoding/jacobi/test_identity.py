"""Token by token plain decoding: greedy, with the oracle, and in a window of one."""

from __future__ import annotations

import pytest
import torch

from specbench.cache import LengthCache
from specbench.decoding.jacobi.acceptance import Acceptance, Ruling
from specbench.decoding.jacobi.couplings import COUPLINGS, Gumbel, Noise
from specbench.decoding.jacobi.initial import INITIALS
from specbench.decoding.loops.jacobi import Jacobi
from specbench.decoding.loops.speculative_jacobi import SpeculativeJacobi
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models.base import View
from specbench.rng import Streams
from tests.unit.decoding.jacobi.toy import PROMPT, ROW_END, image_pair
from tests.unit.decoding.parts import Autoregressive, count_of, generate, table_pair

GREEDY = [Law(temperature=0), Law(temperature=0, repetition_penalty=1.6)]
SAMPLED = [Law(), Law(temperature=0.7, top_k=3, repetition_penalty=1.4), Law(top_p=0.8)]


@pytest.mark.parametrize("initial", INITIALS)
@pytest.mark.parametrize("law", GREEDY)
def test_greedy_tokens_are_those_of_plain_decoding(law, initial):
    models = table_pair(vocab=5, sharpness=2.0)
    expected = generate(Autoregressive(), models, law, count=50)
    for coupling in COUPLINGS:
        got = generate(SpeculativeJacobi(8, coupling, initial), models, law, count=50)
        assert got.tokens == expected.tokens
        assert len(got.rounds) < len(expected.rounds), "no draft was ever right"


@pytest.mark.parametrize("initial", INITIALS)
@pytest.mark.parametrize("law", [*SAMPLED, GREEDY[0]])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_the_oracle_emits_plain_decodings_tokens(coupling, law, initial):
    models = table_pair(vocab=5, sharpness=2.0)
    expected = generate(Autoregressive(), models, law, count=40).tokens
    decoder = SpeculativeJacobi(7, coupling, initial, "oracle")
    assert generate(decoder, models, law, count=40).tokens == expected


@pytest.mark.parametrize("initial", INITIALS)
@pytest.mark.parametrize("law", [Law(), GREEDY[0]])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_the_oracle_draws_plain_decodings_picture(coupling, law, initial):
    models = image_pair(codes=5, rows=4, columns=4, sharpness=2.0)
    count = models.image.grid.length
    expected = generate(Autoregressive(), models, law, PROMPT, count)
    decoder = SpeculativeJacobi(6, coupling, initial, "oracle")
    got = generate(decoder, models, law, PROMPT, count)
    assert got.tokens == expected.tokens
    assert len(got.rounds) < len(expected.rounds)


class GumbelOracle(Acceptance):
    """Accept what argmax(log p + g) says, with one table of noise for every loop."""

    def __init__(self, noise):
        self._noise = noise

    def judge(self, trial):
        answers = self._noise(trial.position, trial.laws)
        return Ruling(trial.tokens == answers[:-1], answers)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_a_shared_gumbel_table_gives_one_text(coupling):
    """The oracle and the coupling read one table; so does plain decoding by hand."""
    models = table_pair(vocab=5, sharpness=2.0)
    streams = Streams(3, "test")

    def answers(position, laws):
        table = Noise(_request(streams)).rows(0, laws.new_empty(64, 5))
        return (laws * table[position : position + len(laws)]).argmax(-1)

    decoder = SpeculativeJacobi(6, coupling, "random", GumbelOracle(answers))
    got = generate(decoder, models, Law(), count=40, seed=3).tokens
    text = [0, 1, got[0]]
    cache = models.target.new_cache(1, 64)
    cache_tokens = torch.tensor([text])
    while len(text) < 2 + 40:
        logits = models.target.forward(cache_tokens, cache, View(last=1))[0]
        text.append(int(answers(len(text), Law().probabilities(logits))[0]))
        cache_tokens = torch.tensor([text[-1:]])
    # a round without a draft is a plain step and draws with plain decoding's number
    assert got[:-1] == tuple(text[2:-1])


def _request(streams):
    return type("Asked", (), {"streams": streams})()


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("law", [Law(), *GREEDY])
def test_a_window_of_one_is_plain_decoding(coupling, law):
    models = table_pair(vocab=5)
    expected = generate(Autoregressive(), models, law, count=20)
    got = generate(SpeculativeJacobi(1, coupling), models, law, count=20)
    assert got.tokens == expected.tokens
    assert [r.count for r in got.rounds] == [r.count for r in expected.rounds]


def test_noise_belongs_to_a_position_whatever_the_rounds():
    """The table moves on and is filled again, and a position's row stays what it was."""
    like = torch.empty(5, 3, dtype=torch.float64)
    whole = Noise(_request(Streams(0, "a"))).rows(0, torch.empty(200, 3, dtype=torch.float64))
    moving = Noise(_request(Streams(0, "a")))
    for position in (3, 4, 9, 20, 21, 58, 150, 195):
        assert torch.equal(moving.rows(position, like), whole[position : position + 5])
    other = Noise(_request(Streams(1, "a"))).rows(0, like)
    assert not torch.equal(other, whole[:5])
    assert len(set(whole.flatten().tolist())) == whole.numel()


@pytest.mark.parametrize("acceptance", ["ratio", "oracle"])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_forced_tokens_are_guessed_and_accepted(coupling, acceptance):
    """A draft at a row's end is never the first to be rejected."""
    models = image_pair(codes=40, rows=6, columns=2)
    count = models.image.grid.length
    rejected = []
    for seed in range(5):
        generation = generate(
            SpeculativeJacobi(9, coupling, "random", acceptance), models, Law(), PROMPT, count, seed
        )
        assert generation.tokens[2::3] == (ROW_END,) * 6
        position = 1
        for round_ in generation.rounds[1:]:
            position += round_.count.accepted
            if round_.count.accepted < round_.count.proposed:
                rejected.append(models.image.grid.forced[position])
            position += 1
    assert rejected and set(rejected) == {-1}


def test_the_ledger_counts_the_window():
    models = table_pair(vocab=4)
    rounds = [r.count for r in generate(SpeculativeJacobi(5), models, Law(), count=30).rounds]
    assert rounds[0] == count_of(0, 0, 1, 0, 1, 2)
    emitted = 1
    for count in rounds[1:]:
        drafts = min(4, 30 - emitted - 1)
        assert count == count_of(drafts, count.accepted, count.accepted + 1, drafts, 1, drafts + 1)
        assert 0 <= count.accepted <= drafts
        emitted += count.emitted
    assert emitted == 30


def test_a_tail_is_drawn_one_by_one():
    """Windows shrink towards it, as in the releases; the tokens stay those of plain decoding."""
    models = table_pair(vocab=4, sharpness=2.0)
    plain = generate(Autoregressive(), models, Law(), count=30)
    got = generate(SpeculativeJacobi(5, acceptance="oracle", tail=9), models, Law(), count=30)
    assert got.tokens == plain.tokens
    emitted = 1
    for count in [r.count for r in got.rounds][1:]:
        assert count.target.tokens == max(min(5, 21 - emitted), 1)
        emitted += count.emitted
    assert [r.count.emitted for r in got.rounds[-9:]] == [1] * 9
    whole = generate(SpeculativeJacobi(5, tail=99), models, Law(), count=30)
    assert len(whole.rounds) == 30
    with pytest.raises(ConfigError, match="tail=-1"):
        SpeculativeJacobi(5, tail=-1)


def test_stop_tokens_end_the_text():
    models = table_pair(vocab=4)
    for seed in range(8):
        got = generate(SpeculativeJacobi(6, "maximal"), models, Law(), seed=seed, stop={3})
        assert 3 not in got.tokens[:-1]


@pytest.mark.parametrize("law", [Law(), GREEDY[0]])
def test_stale_cache_entries_would_be_noticed(monkeypatch, law):
    """Mutation: rejected drafts stay in the cache under the right length."""
    models = table_pair(vocab=5, sharpness=2.0)
    expected = generate(Autoregressive(), models, law, count=30).tokens

    def keep_the_last(self, lengths):
        for row, length in enumerate(lengths):
            if self.lengths[row] > length > 0:
                self.tokens[row][length - 1] = self.tokens[row][self.lengths[row] - 1]
        self.lengths = list(lengths)

    monkeypatch.setattr(LengthCache, "truncate", keep_the_last)
    decoder = SpeculativeJacobi(6, "maximal", "random", "oracle")
    assert generate(decoder, models, law, count=30).tokens != expected


@pytest.mark.parametrize("initial", ["text", "last", "pad"])
@pytest.mark.parametrize("slide", [False, True])
@pytest.mark.parametrize("law", [Law(), GREEDY[0]])
def test_jacobi_draws_pictures_too(law, slide, initial):
    models = image_pair(codes=5, rows=4, columns=3, sharpness=2.0)
    count = models.image.grid.length
    expected = generate(Autoregressive(), models, law, PROMPT, count)
    got = generate(Jacobi(8, slide, initial), models, law, PROMPT, count)
    assert got.tokens == expected.tokens
    assert len(got.rounds) < len(expected.rounds)


def test_impossible_parameters_are_refused():
    with pytest.raises(ConfigError, match="window=0"):
        SpeculativeJacobi(0)
    with pytest.raises(ConfigError, match="coupling=maximum") as refused:
        SpeculativeJacobi(4, "maximum")
    assert "maximal" in refused.value.fix
    with pytest.raises(ConfigError, match="initial=left"):
        SpeculativeJacobi(4, initial="left")
    with pytest.raises(ConfigError, match="acceptance=group"):
        SpeculativeJacobi(4, acceptance="group")


def test_a_part_of_ones_own_is_taken_as_it_is():
    class Mine(Gumbel):
        pass

    models = table_pair(vocab=4)
    assert generate(SpeculativeJacobi(4, Mine()), models, Law(), count=9).tokens
