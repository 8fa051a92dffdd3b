"""Cool-SD: neutral at one, exact wherever a weight is at most one, relaxed at first tokens."""

from __future__ import annotations

import math

import pytest
import torch

from specbench.decoding.verifiers.cool_sd import CoolSD, annealed_weights
from specbench.decoding.verifiers.token_sd import TokenSD, residual
from specbench.errors import ConfigError
from specbench.law import Guidance, Law
from tests.unit.decoding.enumeration import distance, output_law, true_law
from tests.unit.decoding.parts import generate, table_pair, token_sd
from tests.unit.decoding.pictures import toy_picture
from tests.unit.decoding.verifiers.nodes import F5_P, F5_Q, POINT, WR, node_law

LAWS = [Law(0.0), Law(), Law(temperature=0.7, top_p=0.9), Law(repetition_penalty=1.5)]


def ledger(generation):
    return generation.tokens, [r.count for r in generation.rounds]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("mu", [None, 0.0])
def test_at_one_it_is_speculative_sampling_token_for_token(law, mu):
    models = table_pair(vocab=5)
    for seed in range(3):
        exact = generate(token_sd(3, TokenSD()), models, law, count=60, seed=seed)
        same = generate(token_sd(3, CoolSD(3, 1.0, 0.0, mu)), models, law, count=60, seed=seed)
        assert ledger(exact) == ledger(same)
    if not law.greedy:
        loose = generate(token_sd(3, CoolSD(3, 3.0)), models, law, count=60, seed=seed)
        assert loose.tokens != exact.tokens


def test_pictures_too_at_one():
    models = toy_picture()
    law = Law(guidance=Guidance(2.0))
    models = models.under(law)
    count = models.image.grid.length
    exact = generate(token_sd(3, TokenSD()), models, law, (1, 0), count)
    same = generate(token_sd(3, CoolSD(3, 1.0)), models, law, (1, 0), count)
    assert ledger(exact) == ledger(same)


def test_weights():
    assert annealed_weights(3, 1.0) == [1.0, 1.0, 1.0]
    assert annealed_weights(3, 2.0, 0.5, 0.25) == pytest.approx(
        [2 * math.exp(-0.5 * i - 0.25) for i in (1, 2, 3)]
    )
    weights = annealed_weights(5, 1.1, 0.7)
    assert sum(weights) / 5 == pytest.approx(1.1)
    assert [a / b for a, b in zip(weights, weights[1:], strict=False)] == pytest.approx(
        [math.exp(0.7)] * 4
    )


@pytest.mark.parametrize("kind", [WR, POINT])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, 1.1, 2.0, 5.0])
def test_the_law_and_the_acceptance_at_one_token(weight, kind):
    """Every weight up to one keeps the target's law; the others miss it by a known distance."""
    law, accepted = node_law(CoolSD(1, weight), F5_P, F5_Q, kind, 1)
    q = F5_Q if kind is WR else torch.eye(5, dtype=torch.float64)[0]
    kept = torch.minimum(q, weight * F5_P)
    leftover = (F5_P - kept).clamp(min=0)
    want = kept + (1 - kept.sum()) * leftover / leftover.sum()
    torch.testing.assert_close(law, want, atol=1e-12, rtol=0)
    assert accepted == pytest.approx(float(kept.sum()), abs=1e-12)
    strayed = float((law - F5_P).abs().sum() / 2)
    excess = (kept - torch.minimum(q, F5_P)).clamp(min=0).sum()
    assert strayed == pytest.approx(float(excess), abs=1e-12)
    assert (strayed < 1e-12) == (weight <= 1)


def test_its_residual_is_the_best_one():
    """Of leftover laws, norm((p - q f)+) brings the output nearest to the target."""
    weight = 2.0
    kept = torch.minimum(F5_Q, weight * F5_P)
    missing = 1 - kept.sum()
    best = float((node_law(CoolSD(1, weight), F5_P, F5_Q, WR, 1)[0] - F5_P).abs().sum() / 2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        other = torch.rand(5, generator=generator, dtype=torch.float64)
        output = kept + missing * other / other.sum()
        assert best <= float((output - F5_P).abs().sum() / 2) + 1e-12


def test_a_whole_decoder_is_exact_until_a_weight_exceeds_one():
    models = table_pair(vocab=2)
    exact = true_law(models, Law(), (0, 1), 3)
    for delta, nu, mu, lossy in [(1.0, 0.5, 0.0, False), (1.5, 0.5, None, True)]:
        got = output_law(token_sd(2, CoolSD(2, delta, nu, mu)), models, Law(), (0, 1), 3)
        assert sum(got.values()) == pytest.approx(1, abs=1e-12)
        assert (distance(got, exact) > 1e-3) == lossy
        assert lossy or distance(got, exact) < 1e-12


def test_more_relaxation_never_accepts_less():
    models = table_pair(vocab=5)
    lengths = []
    for delta in (0.0, 0.5, 1.0, 1.5, 3.0, 1e9):
        runs = [
            generate(token_sd(3, CoolSD(3, delta)), models, Law(), count=81, seed=seed)
            for seed in range(2)
        ]
        lengths.append(sum(len(run.rounds) for run in runs))
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == 2 * 81 and lengths[-1] == 2 * 21


def test_a_residual_that_forgets_its_weight_is_noticed(monkeypatch):
    """Below one, the residual of speculative sampling leaves the target's law."""
    monkeypatch.setattr(CoolSD, "leftover", lambda self, p, q, accepted: residual(p, q, accepted))
    law, _ = node_law(CoolSD(1, 0.5), F5_P, F5_Q, WR, 1)
    assert float((law - F5_P).abs().sum() / 2) > 0.01


def test_bad_values_are_refused():
    for values in [
        dict(draft_length=0, delta=1.0),
        dict(draft_length=3, delta=-0.1),
        dict(draft_length=3, delta=1.0, nu=-1),
        dict(draft_length=3, delta=1.0, nu=1e3),
        dict(draft_length=3, delta=1.0, mu=math.nan),
        dict(draft_length=3, delta="much"),
    ]:
        with pytest.raises(ConfigError):
            CoolSD(**values)
