"""Relaxed acceptance: the neutral knob is the parent, and how far the others move the law."""

from __future__ import annotations

import pytest
import torch

from specbench.decoding.jacobi.acceptance import Cool, Grouped, Ratio
from specbench.decoding.jacobi.couplings import COUPLINGS
from specbench.decoding.jacobi.trial import Trial
from specbench.decoding.loops.speculative_jacobi import SpeculativeJacobi
from specbench.decoding.request import Request
from specbench.decoding.verifiers.cool_sd import annealed_weights
from specbench.errors import ConfigError
from specbench.law import Law
from specbench.rng import Streams
from tests.unit.decoding.enumeration import Script, output_law, true_law
from tests.unit.decoding.jacobi.choices import family_law, variation
from tests.unit.decoding.jacobi.toy import FIRST_CODE, PROMPT, image_pair
from tests.unit.decoding.parts import generate, table_pair

NEUTRAL = {
    "no ranks": Grouped(ranks=0),
    "no probability": Grouped(probability_threshold=0),
    "no distance": Grouped(distance_threshold=0),
    "delta 1": Cool(delta=1, nu=0),
    "delta 1, mu 0": Cool(delta=1, nu=0, mu=0),
}


@pytest.mark.parametrize("rule", NEUTRAL)
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_a_neutral_knob_is_the_exact_test_bit_for_bit(coupling, rule):
    models = image_pair(codes=30, rows=3, columns=4)
    count = models.image.grid.length
    for seed in range(4):
        expected, got = (
            generate(
                SpeculativeJacobi(6, coupling, "random", acceptance),
                models,
                Law(temperature=1.1),
                PROMPT,
                count,
                seed,
            )
            for acceptance in (Ratio(), NEUTRAL[rule])
        )
        assert got.tokens == expected.tokens
        assert [r.count for r in got.rounds] == [r.count for r in expected.rounds]


def trial_of(laws, old, tokens, models):
    ratio = laws[:-1].gather(1, tokens[:, None]) / old[:-1].gather(1, tokens[:, None])
    numbers = torch.zeros(len(tokens), dtype=torch.float64)
    request, columns = Request((0,), 1, Law(), Streams(0)), torch.arange(len(laws))
    return Trial(models, request, 0, tokens, laws, old, ratio[:, 0], numbers, numbers, columns)


def by_hand(p, q, token, image, ranks, most_apart, most_distant):
    """P(C)/Q(C) with C spelled out, one code at a time."""
    order = sorted(range(len(p)), key=lambda t: (p[t], t))
    rank = order.index(token)
    group = {token}
    if rank >= ranks:
        for other in order[rank - ranks : rank + ranks]:
            codes = [t - image.first_code for t in (token, other)]
            if all(0 <= code < image.codes for code in codes):
                left, right = (image.codebook[code] for code in codes)
                near = float(((left - right) ** 2).sum()) < most_distant
                if near and abs(p[other] - p[token]) < most_apart:
                    group.add(other)
    return sum(p[t] for t in group) / sum(q[t] for t in group), group


@pytest.mark.parametrize(("ranks", "apart", "distant"), [(7, 0.15, 0.5), (3, 0.02, 9), (2, 1, 2.5)])
def test_a_group_is_what_rank_probability_and_codebook_say(ranks, apart, distant):
    models = image_pair(codes=25)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.arange(FIRST_CODE, FIRST_CODE + 25)
    shape = (26, FIRST_CODE + 25)
    logits = torch.randn(2, *shape, generator=generator, dtype=torch.float64) * 2
    logits[:, :, :FIRST_CODE] = -torch.inf
    laws, old = logits.softmax(-1)
    ratio = Grouped(ranks, apart, distant).ratio(trial_of(laws, old, tokens, models))
    sizes = []
    for row, token in enumerate(tokens.tolist()):
        expected, group = by_hand(
            laws[row].tolist(), old[row].tolist(), token, models.image, ranks, apart, distant
        )
        assert float(ratio[row]) == pytest.approx(expected, rel=1e-12)
        sizes.append(len(group))
    assert max(sizes) > 1


def test_groups_are_near_in_the_space_that_is_asked_for():
    """The release's distance is that of input embeddings: other codes are near in them."""
    models = image_pair(codes=25)
    image = models.image
    shuffled = torch.randperm(25, generator=torch.Generator().manual_seed(1))
    lengths = shuffled[:, None].expand(25, 3) * 0.5
    models.image = type("Spaces", (), {"vectors": lambda _, space: spaces[space]})()
    models.image.first_code, models.image.codes = image.first_code, image.codes
    spaces = {"codebook": image.codebook, "embeddings": lengths.to(torch.bfloat16)}
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 26, FIRST_CODE + 25, generator=generator, dtype=torch.float64)
    laws, old = logits.softmax(-1)
    trial = trial_of(laws, old, torch.arange(FIRST_CODE, FIRST_CODE + 25), models)
    ratios = {}
    for space, vectors in spaces.items():
        image_of_space = type("Image", (), {"codebook": vectors.float()})
        image_of_space.first_code, image_of_space.codes = image.first_code, image.codes
        ratios[space] = Grouped(7, 1.0, 2.0, space).ratio(trial)
        for row, token in enumerate(trial.tokens.tolist()):
            args = laws[row].tolist(), old[row].tolist(), token, image_of_space, 7, 1.0, 2.0
            assert float(ratios[space][row]) == pytest.approx(by_hand(*args)[0], rel=1e-12)
    assert not torch.allclose(ratios["codebook"], ratios["embeddings"])
    assert torch.equal(Grouped(7, 1.0, 2.0).ratio(trial), ratios["codebook"])


def test_the_least_probable_tokens_are_judged_alone():
    models = image_pair(codes=8)
    laws = torch.arange(1.0, 12.0).double().repeat(2, 1)
    laws /= laws.sum(-1, keepdim=True)
    old = torch.full((2, 11), 1 / 11, dtype=torch.float64)
    rule = Grouped(4, 1.0, 100.0)
    alone = rule.ratio(trial_of(laws, old, torch.tensor([3]), models))
    assert float(alone) == pytest.approx(float(laws[0, 3] * 11))
    top = rule.ratio(trial_of(laws, old, torch.tensor([10]), models))
    assert float(top) == pytest.approx(float(laws[0, 6:11].sum() * 11 / 5))


@pytest.mark.parametrize("rule", ["grouped", "cool"])
def test_a_relaxed_rule_accepts_more(rule):
    models = image_pair(codes=40, rows=6, columns=6)
    count = models.image.grid.length
    relaxed = Grouped(5, 1.0, 9.0) if rule == "grouped" else Cool(delta=4)
    exact, lossy = (
        sum(len(generate(decoder, models, Law(), PROMPT, count, seed).rounds) for seed in range(4))
        for decoder in (
            SpeculativeJacobi(8, acceptance=Ratio()),
            SpeculativeJacobi(8, acceptance=relaxed),
        )
    )
    assert lossy < exact - 4


@pytest.mark.parametrize("coupling", ["fresh", "maximal"])
def test_weights_below_one_keep_the_law(coupling):
    """The residual follows the weights: a rule that accepts less than it may is exact."""
    models = table_pair(vocab=2, order=2)
    decoder = SpeculativeJacobi(3, coupling, "random", Cool(delta=0.7, nu=0.3, mu=0))
    kind = "fresh" if coupling == "fresh" else None
    if kind is None:
        got = output_law(decoder, models, Law(), (0, 1, 0), 3)
        expected = true_law(models, Law(), (0, 1, 0), 3)
    else:
        got = family_law(decoder, models, Law(), 4, kind, initial_law=False)
        expected = true_law(models, Law(), (0, 1, 0), 4)
    assert variation(got, expected) < 1e-12


def test_the_relaxation_decays_along_the_window():
    models = table_pair(vocab=4)
    laws = torch.full((4, 4), 0.25, dtype=torch.float64)
    trial = trial_of(laws, laws.clone(), torch.tensor([0, 1, 2]), models)
    weights = Cool(delta=2, nu=0.7).judge(trial).weights
    assert weights.tolist() == pytest.approx(annealed_weights(3, 2, 0.7))
    assert float(weights.mean()) == pytest.approx(2)
    assert weights[0] > weights[1] > weights[2]


@pytest.mark.slow
def test_relaxed_rules_leave_the_law():
    """Measured output total variation on four codes in a row; see docs/jacobi.md."""
    models = image_pair(codes=3, rows=1, columns=4, ending=False, row_end=False)
    expected = true_law(models, Law(), PROMPT, 4)
    measured = {}
    for name, rule in {
        "exact": Ratio(),
        "grouped": Grouped(1, 1.0, 9.0),
        "cool": Cool(delta=1.5),
    }.items():
        decoder = SpeculativeJacobi(3, "fresh", "random", rule)
        law = family_law(decoder, models, Law(), 4, prompt=PROMPT, initial_law=False)
        measured[name] = variation(law, expected)
    assert measured["exact"] < 1e-12
    assert 1e-3 < measured["cool"] < 0.2
    assert 1e-3 < measured["grouped"] < 0.5


def test_at_temperature_zero_nothing_is_relaxed():
    models = image_pair(codes=12, rows=4, columns=4, sharpness=2.0)
    law = Law(temperature=0)
    count = models.image.grid.length
    rules = (Ratio(), Grouped(7, 1.0, 99.0), Cool(delta=5))
    exact, *relaxed = (
        generate(SpeculativeJacobi(6, "fresh", "random", rule), models, law, PROMPT, count)
        for rule in rules
    )
    assert all(generation.tokens == exact.tokens for generation in relaxed)


def test_groups_need_a_codebook():
    assert SpeculativeJacobi(acceptance=Grouped()).needs == {"image"}
    assert SpeculativeJacobi().needs == frozenset()
    with pytest.raises(ConfigError, match="needs an image model"):
        SpeculativeJacobi(acceptance=Grouped()).prepare(table_pair())
    SpeculativeJacobi(acceptance=Grouped()).prepare(image_pair())


def test_impossible_parameters_are_refused():
    for wrong in ({"ranks": -1}, {"ranks": 1.5}, {"probability_threshold": -1}):
        with pytest.raises(ConfigError, match="not possible"):
            Grouped(**wrong)
    for wrong in ({"delta": 0}, {"nu": -1}, {"mu": "high"}):
        with pytest.raises(ConfigError, match="not possible"):
            Cool(**wrong)


def test_an_unknown_space_is_refused():
    with pytest.raises(ConfigError, match="distance=embedding "):
        Grouped(distance="embedding")


def test_scripts_count_every_choice():
    """The generic script enumerates both calls of a relaxed rule under maximal coupling."""
    script = Script([])
    assert script.happens(torch.tensor([0.5, 1.0]), None).tolist() == [False, True]
