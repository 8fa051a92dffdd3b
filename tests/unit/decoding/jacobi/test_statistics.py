"""Gumbel coupling keeps the law, and coupled drafts need fewer forwards.

Its noise cannot be enumerated: chi-square tests, each with a false-alarm rate of 1e-4 at a
fixed seed.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from scipy.stats import chi2

from specbench.decoding.jacobi.couplings import Gumbel
from specbench.decoding.loops.speculative_jacobi import SpeculativeJacobi
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.models.table import TableModel, markov_table
from tests.unit.decoding.enumeration import true_law
from tests.unit.decoding.parts import generate, table_pair

FALSE_ALARM = 1e-4
COUNT = 5


def excess(decoder, samples, marginal):
    """Return chi-square over its critical value; above 1 the law is refused."""
    models = table_pair(vocab=3, order=2)
    expected = Counter()
    for tokens, p in true_law(models, Law(), (0, 1), COUNT).items():
        expected[marginal(tokens)] += p
    seen = Counter(
        marginal(generate(decoder, models, Law(), count=COUNT, seed=seed).tokens)
        for seed in range(samples)
    )
    statistic = sum((seen[t] - samples * p) ** 2 / (samples * p) for t, p in expected.items())
    return statistic / chi2.isf(FALSE_ALARM, len(expected) - 1)


@pytest.mark.parametrize("place", [pytest.param("early", marks=pytest.mark.slow), "late"])
def test_gumbel_coupling_keeps_the_law(place):
    marginal = (lambda t: t[:3]) if place == "early" else (lambda t: t[2:])
    assert excess(SpeculativeJacobi(4, "gumbel"), 1000, marginal) < 1


@pytest.mark.slow
def test_gumbel_coupling_keeps_the_law_of_whole_texts():
    assert excess(SpeculativeJacobi(4, "gumbel", "sample_left"), 5000, tuple) < 1


class ResampledFromLaw(Gumbel):
    """Mutation: a rejected draft is replaced by argmax(log p + g), and not from the residual."""

    def begin(self, request):
        return _Mutated(super().begin(request))


class _Mutated(Gumbel):
    def __init__(self, right):
        self._right = right

    def redraw(self, trial):
        factors = self._right._noise.rows(trial.position, trial.laws)
        return (trial.laws * factors).argmax(-1)


def test_resampling_from_the_law_would_be_noticed():
    assert excess(SpeculativeJacobi(4, ResampledFromLaw()), 600, lambda t: t[:3]) > 1


def test_gumbel_drafts_stay_what_they_were_under_one_law():
    """The table belongs to positions: the same law gives the same draft in the next round."""
    base = torch.randn(12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    models = ModelPair("memoryless", TableModel(lambda context: base, 12))
    rounds = generate(SpeculativeJacobi(6, "gumbel"), models, Law(), count=60).rounds
    accepted = [r.count.accepted == r.count.proposed for r in rounds[1:]]
    # fresh columns aside, a draft is accepted for certain once it was drawn from its law
    assert sum(accepted) >= len(accepted) // 3


def drifting(share, vocabulary=32):
    """Return the law softmax(base + share * noise of the token before)."""
    base = torch.randn(vocabulary, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    noise = markov_table(1, vocabulary, 8)
    return ModelPair("drift", TableModel(lambda context: base + share * noise(context), vocabulary))


def mean_steps(coupling, share, seeds):
    models = drifting(share)
    decoder = SpeculativeJacobi(16, coupling, "uniform")
    total = sum(
        len(generate(decoder, models, Law(), count=64, seed=seed).rounds) for seed in range(seeds)
    )
    return total / seeds - 1


def test_couplings_need_fewer_forwards():
    """About 13, 10 and 9 forwards for 64 tokens in windows of 16 at drift 0.3."""
    fresh, gumbel, maximal = (
        mean_steps(coupling, 0.3, 16) for coupling in ("fresh", "gumbel", "maximal")
    )
    assert maximal + 0.3 < gumbel < fresh - 1.5, (fresh, gumbel, maximal)
    assert 11.5 < fresh < 14
