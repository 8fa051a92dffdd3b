"""Length policies: what each decides, and that no decision changes the target's law."""

from __future__ import annotations

import math

import pytest
import torch

from specbench.decoding.draft_verify import DraftVerify
from specbench.decoding.drafters.model import ModelDrafter
from specbench.decoding.lengths.confidence import AdaptiveConfidence, ConfidenceStop
from specbench.decoding.lengths.constant import Constant
from specbench.decoding.lengths.heuristic import Heuristic
from specbench.decoding.lengths.oracle_cost import (
    OracleCost,
    best_length,
    expected_speedup,
    measured_cost_ratio,
)
from specbench.decoding.lengths.svip import Svip
from specbench.decoding.topologies.chain import Chain
from specbench.decoding.tree import DraftTree, Draws
from specbench.decoding.verifiers.token_sd import TokenSD
from specbench.errors import ConfigError
from specbench.law import Law
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import Autoregressive, generate, table_pair

PROMPT = (0, 1, 0, 2, 0, 1)
POLICIES = {
    "heuristic": lambda: Heuristic(1),
    "confidence": lambda: ConfidenceStop(0.55, 3),
    "confidence, token dropped": lambda: ConfidenceStop(0.55, 3, keep_last=False),
    "adaptive confidence": lambda: AdaptiveConfidence(0.55, 3, step=0.5, inertia=0.5),
    "svip": lambda: Svip(0.36, max_length=3),
    "oracle cost": lambda: OracleCost(3, cost_ratio=0.3, first_weight=1.0),
}


def chain(length, topology=None):
    return DraftVerify(ModelDrafter(), topology or Chain(), length, TokenSD())


def stops(policy, law, token=None):
    return policy.ends(float(policy.measure(law, token)))


def lengths_of(decoder, law=None, count=60):
    generation = generate(decoder, table_pair(sharpness=2.0), law or Law(), count=count)
    return [entry.count.proposed for entry in generation.rounds[1:]], generation.tokens


@pytest.mark.parametrize("law", [Law(), Law(temperature=0.6)], ids=["plain", "cold"])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_policy_keeps_the_law(policy, law):
    models = table_pair()
    got = output_law(chain(policy()), models, law, PROMPT, 4)
    assert distance(got, true_law(models, law, PROMPT, 4)) < 1e-12


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_policy_keeps_the_greedy_tokens_and_varies_the_length(policy):
    for law in (Law(temperature=0), Law(temperature=0, repetition_penalty=1.3)):
        proposed, tokens = lengths_of(chain(policy()), law)
        assert tokens == generate(Autoregressive(), table_pair(sharpness=2.0), law, count=60).tokens
        assert len(set(proposed)) > 1


class DropsImprobable(Chain):
    """Mutation: the first token with a small probability is dropped, whatever its law was."""

    def grow(self, growth):
        tree = super().grow(growth)
        law = tree.draws.law[0]
        for index, token in enumerate(tree.tokens[0].tolist()):
            if law[index, token] < 0.3:
                if index == 0:
                    return None
                draws = Draws(tree.draws.kind, tree.parents[:index], tree.draws.law[:, :index])
                return DraftTree.chain(tree.tokens[:, :index], draws)
        return tree


def test_dropping_a_token_for_what_it_is_is_caught():
    models = table_pair()
    got = output_law(chain(Constant(2), DropsImprobable()), models, Law(), PROMPT, 3)
    assert distance(got, true_law(models, Law(), PROMPT, 3)) > 1e-3


def test_the_heuristic_adds_two_and_takes_one():
    part = Heuristic(5, max_length=8)
    policy = part.begin()
    seen = [policy.limit()]
    for proposed, accepted in ((5, 5), (7, 7), (8, 8), (8, 7), (7, 0), (0, 0), (6, 6)):
        policy.update(proposed, accepted)
        seen.append(policy.limit())
    assert seen == [5, 7, 8, 8, 7, 6, 6, 8]
    for _ in range(20):
        policy.update(2, 0)
    assert policy.limit() == 1
    assert part.begin().limit() == 5


def test_a_heuristic_that_never_moves_is_a_constant_length():
    fixed = lengths_of(chain(Heuristic(3, increase=0, decrease=0)))
    assert fixed == lengths_of(chain(Constant(3)))


@pytest.mark.parametrize("largest", [0.55, 0.7, 0.9])
def test_confidence_compares_the_largest_probability(largest):
    law = torch.tensor([[largest, 1 - largest - 0.01, 0.01]])
    assert stops(ConfidenceStop(largest + 0.01, 4), law)
    assert not stops(ConfidenceStop(largest - 0.01, 4), law)


@pytest.mark.parametrize("token", range(3))
def test_confidence_compares_the_drawn_tokens_probability_where_the_token_is_kept(token):
    law = torch.tensor([[0.5, 0.3, 0.2]])
    drawn = torch.tensor([token])
    assert [stops(ConfidenceStop(bound, 4), law, drawn) for bound in (0.19, 0.25, 0.4, 0.6)] == [
        bound > law[0, token] for bound in (0.19, 0.25, 0.4, 0.6)
    ]


@pytest.mark.parametrize(
    "neutral", [ConfidenceStop(0.0, 3), ConfidenceStop(0.0, 3, keep_last=False), Svip(math.inf)]
)
def test_a_policy_that_never_stops_is_a_constant_length(neutral):
    assert not neutral.watches
    assert lengths_of(chain(neutral)) == lengths_of(chain(Constant(neutral.limit())))


def test_a_certain_threshold_proposes_one_token_or_none():
    laws = lengths_of(chain(ConfidenceStop(1.0, 5)))[0]
    assert set(laws[:-1]) == {1}
    assert set(lengths_of(chain(ConfidenceStop(1.0, 5, keep_last=False)))[0]) == {0}


def test_the_adaptive_threshold_follows_the_acceptance():
    """Steps by hand: m = 0.5 m + 0.5 accepted / proposed, th = 0.9 th + 0.1 (th +- 0.01)."""
    part = AdaptiveConfidence()
    policy = part.begin()
    expected = 0.8
    running = 0.0
    for proposed, accepted in ((8, 8), (4, 4), (8, 8), (8, 8), (3, 3), (0, 0), (5, 1), (8, 8)):
        policy.update(proposed, accepted)
        if proposed:
            running = 0.5 * running + 0.5 * accepted / proposed
            move = 0.01 if running < 0.9 else (0.0 if proposed == 8 else -0.01)
            expected = 0.9 * expected + 0.1 * (expected + move)
        assert policy.threshold == pytest.approx(expected, abs=1e-15)
    assert policy.threshold != 0.8
    assert part.begin().threshold == 0.8


def test_an_adaptive_threshold_that_never_moves_is_a_fixed_one():
    for neutral in ({"inertia": 1.0}, {"step": 0.0}):
        adaptive = lengths_of(chain(AdaptiveConfidence(0.6, 5, **neutral)))
        assert adaptive == lengths_of(chain(ConfidenceStop(0.6, 5)))


def test_svip_is_monotone_in_its_threshold():
    generator = torch.Generator().manual_seed(0)
    laws = (3 * torch.randn(50, 1, 7, generator=generator)).softmax(-1)
    counts = [
        sum(stops(Svip(threshold), law) for law in laws)
        for threshold in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 50 > counts[3] > counts[-1] == 0


def test_svip_never_stops_on_a_certain_draft_and_measures_entropy_in_nats():
    assert not stops(Svip(0.0), torch.eye(4)[:1])
    uniform = torch.full((1, 8), 1 / 8)
    bound = math.sqrt(0.15 * math.log(8))
    assert stops(Svip(bound - 1e-4), uniform)
    assert not stops(Svip(bound + 1e-4), uniform)


@pytest.mark.parametrize("acceptance", [0.0, 0.2, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("cost", [0.01, 0.1, 0.3, 1.0])
def test_the_best_length_maximises_the_closed_form(acceptance, cost):
    def closed_form(length):
        emitted = length + 1
        if acceptance < 1:
            emitted = (1 - acceptance ** (length + 1)) / (1 - acceptance)
        return emitted / (length * cost + 1)

    lengths = range(1, 25)
    assert all(
        expected_speedup(acceptance, n, cost) == pytest.approx(closed_form(n)) for n in lengths
    )
    best = best_length(acceptance, cost, 24)
    assert closed_form(best) == pytest.approx(max(map(closed_form, lengths)))


def test_the_estimate_counts_the_tokens_that_the_verifier_reached():
    part = OracleCost(8, 0.1, fading=0.5, first_acceptance=0.5, first_weight=2.0)
    policy = part.begin()
    assert policy.acceptance == 0.5
    policy.update(4, 1)  # one accepted, one rejected, two never tested
    assert policy.acceptance == (0.5 + 1) / (1 + 2)
    policy.update(4, 4)
    assert policy.acceptance == (0.75 + 4) / (1.5 + 4)
    policy.update(0, 0)
    assert policy.acceptance == (0.75 + 4) / (1.5 + 4)
    assert part.begin().acceptance == 0.5


def test_a_good_draft_is_drafted_longer_and_a_dear_one_shorter():
    lengths = []
    for cost in (0.01, 0.1, 0.5):
        policy = OracleCost(16, cost)
        for _ in range(30):
            policy.update(policy.limit(), policy.limit() - 1)
        lengths.append(policy.limit())
    assert lengths[0] > lengths[1] > lengths[2] >= 1


def test_the_cost_ratio_is_measured_once_unless_given():
    models = table_pair()
    measured = OracleCost()
    measured.prepare(models)
    steps = math.log(measured.cost_ratio, 1.1)
    assert steps == pytest.approx(round(steps), abs=1e-9)
    given = OracleCost(cost_ratio=0.123)
    given.prepare(models)
    assert given.cost_ratio == 0.123
    assert 0.02 < measured_cost_ratio(models.draft, models.target) < 50


@pytest.mark.parametrize(
    "make",
    [
        lambda: Heuristic(0),
        lambda: Heuristic(9, max_length=8),
        lambda: Heuristic(5, increase=-1),
        lambda: ConfidenceStop(1.2, 5),
        lambda: ConfidenceStop(0.5, 0),
        lambda: AdaptiveConfidence(target_acceptance=1.5),
        lambda: AdaptiveConfidence(memory=1.0),
        lambda: Svip(-0.1),
        lambda: Svip(math.nan),
        lambda: Svip(max_length=0),
        lambda: OracleCost(0),
        lambda: OracleCost(cost_ratio=0.0),
        lambda: OracleCost(fading=0.0),
    ],
)
def test_what_cannot_be_is_refused_with_the_range(make):
    with pytest.raises(ConfigError) as caught:
        make()
    assert "Choose" in caught.value.fix
