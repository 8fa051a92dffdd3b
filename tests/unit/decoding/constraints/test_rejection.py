"""Both estimators, by enumeration of their draws and phantom repeats."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import pytest
import torch
from scipy import stats

from specbench.choices import BY_NUMBER
from specbench.decoding.constraints import rejection
from specbench.decoding.constraints.rejection import (
    Drawn,
    Numbers,
    estimate,
    geometric,
    needed_orders,
    orders,
    phantoms,
    recursive,
)
from specbench.rng import Purpose, Streams
from tests.unit.decoding.enumeration import Script

MOST_PHANTOMS = 8
LAWS = {
    "even": [0.3, 0.25, 0.25, 0.2],
    "peaked": [0.05, 0.8, 0.1, 0.05],
}
THREE = [0.2, 0.7, 0.1]


def numbers(seed=0, choices=BY_NUMBER):
    return Numbers(Streams(seed, "test"), 7, Purpose.DRAFT, choices)


def expectations(monkeypatch, law, allowed, accepts, most=MOST_PHANTOMS):
    """Return E[w 1{token}] of every token and the law of the token, exactly."""
    weighted, plain = defaultdict(float), defaultdict(float)
    law = torch.tensor([law], dtype=torch.float64)
    pending = [[]]
    monkeypatch.setattr(rejection, "_FIRST_DRAWS", 1)
    while pending:
        script = Script(pending.pop())

        def scripted_phantoms(left, uniform, script=script):
            pmf = [left * (1 - left) ** n for n in range(most)]
            return script.choose([*pmf, 1 - sum(pmf)] if left < 1 else [1.0])

        monkeypatch.setattr(rejection, "phantoms", scripted_phantoms)
        source = numbers(choices=script)
        result = estimate(orders(law.expand(accepts, -1), source), allowed.__contains__, source)
        weighted[result.token] += script.weight * result.weight
        plain[result.token] += script.weight
        pending += script.branches
    return weighted, plain


def check(weighted, plain, law, allowed, tolerance=1e-9):
    total = sum(law[token] for token in allowed)
    for token, p in enumerate(law):
        wanted = p if token in allowed else 0.0
        assert weighted[token] == pytest.approx(wanted, abs=tolerance)
        assert plain[token] == pytest.approx(wanted / total, abs=tolerance)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("name", LAWS)
def test_the_recursive_weight_is_unbiased(monkeypatch, name, size):
    for allowed in itertools.combinations(range(4), size):
        check(*expectations(monkeypatch, LAWS[name], allowed, 1), LAWS[name], allowed)


@pytest.mark.parametrize("allowed", [(0, 1), (1, 2), (0, 1, 2)])
def test_the_geometric_weight_is_unbiased(monkeypatch, allowed):
    check(*expectations(monkeypatch, THREE, allowed, 2), THREE, allowed, 1e-5)


@pytest.mark.slow
def test_the_geometric_weight_is_unbiased_with_several_rejected_tokens(monkeypatch):
    law, allowed = [0.01, 0.97, 0.01, 0.01], (0, 1)
    check(*expectations(monkeypatch, law, allowed, 2, most=2), law, allowed, 1e-5)
    weighted, _ = expectations(monkeypatch, law, allowed, 2, most=0)
    assert abs(weighted[1] - law[1]) > 5e-5


def test_the_geometric_weight_is_unbiased_with_more_accepts(monkeypatch):
    law, allowed = [0.01, 0.98, 0.01], (0, 1)
    check(*expectations(monkeypatch, law, allowed, 3, most=2), law, allowed, 1e-5)


def test_no_phantoms_is_caught(monkeypatch):
    weighted, _ = expectations(monkeypatch, THREE, (1, 2), 2, most=0)
    assert max(abs(weighted[token] - THREE[token]) for token in (1, 2)) > 1e-3


@pytest.mark.parametrize(
    ("accepted", "weight"),
    [({0, 1}, 1.0), ({0}, 0.5), ({1, 2}, 0.5), ({1}, 0.5 * 0.6), ({2}, 0.2), (set(), 0.0)],
)
def test_the_recursive_weight_of_one_order(accepted, weight):
    order = [Drawn(0, 0.5, 0.5), Drawn(1, 0.3, 0.2), Drawn(2, 0.2, 0.0)]
    result = recursive(order, accepted.__contains__)
    assert result.weight == pytest.approx(weight)
    assert result.token == (min(accepted) if accepted else -1)


def test_the_geometric_form_serves_peaked_laws_and_more_accepts():
    assert needed_orders(0.66, 2) == 1
    assert needed_orders(0.67, 2) == 2
    assert needed_orders(0.1, 5) == 5


def test_nothing_accepted_weighs_nothing():
    law = torch.tensor([[0.2, 0.0, 0.8]], dtype=torch.float64)
    source = numbers()
    assert geometric(orders(law.expand(2, -1), source), lambda token: token == 1, source) == (-1, 0)
    assert recursive(orders(law, source)[0], lambda token: token == 1) == (-1, 0)


def test_phantoms_are_geometric():
    count = 20000
    values = [phantoms(0.3, (index + 0.5) / count) for index in range(count)]
    for repeats in range(6):
        assert values.count(repeats) / count == pytest.approx(0.3 * 0.7**repeats, abs=2e-4)
    assert phantoms(1.0, 0.9) == 0


@pytest.mark.parametrize("seed", range(5))
def test_an_order_holds_every_possible_token_once_with_precise_rests(seed):
    generator = torch.Generator().manual_seed(seed)
    law = torch.randn(300, generator=generator, dtype=torch.float64).mul(6).softmax(-1)
    law[::3] = 0
    law /= law.sum()
    order = list(orders(law[None], numbers(seed))[0])
    assert sorted(each.token for each in order) == law.nonzero().flatten().tolist()
    rest = 0.0
    for each in reversed(order):
        assert each.rest == pytest.approx(rest, rel=1e-9)
        assert each.mass == pytest.approx(float(law[each.token]), rel=1e-12)
        rest += each.mass


def test_the_bulk_draw_has_the_law_of_draws_without_replacement(monkeypatch):
    """Chi-square over 2,000 seeds; false alarm 1e-4."""
    monkeypatch.setattr(rejection, "_FIRST_DRAWS", 1)
    monkeypatch.setattr(rejection, "_LONGEST_DRAWS", 0)
    law = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
    counts = defaultdict(int)
    for seed in range(2000):
        first, second, third, _ = (each.token for each in orders(law, numbers(seed))[0])
        counts[first, second, third] += 1
    p = law[0].tolist()
    expected = {
        (a, b, c): p[a] * p[b] / (1 - p[a]) * p[c] / (1 - p[a] - p[b])
        for a, b, c in itertools.permutations(range(4), 3)
    }
    observed = [counts[key] for key in expected]
    assert stats.chisquare(observed, [2000 * v for v in expected.values()]).pvalue > 1e-4


def test_a_tiny_allowed_mass_is_estimated_precisely():
    """Where all but 1e-12 is rejected, differences of sums would be all rounding."""
    law = torch.tensor([[1.0 - 1e-12, 0.7e-12, 0.3e-12]], dtype=torch.float64)
    weights = [
        recursive(orders(law, numbers(seed))[0], lambda token: token > 0) for seed in range(50)
    ]
    assert all(each.weight == pytest.approx(1e-12, rel=1e-3) for each in weights)
    assert {each.token for each in weights} == {1, 2}


def test_the_draws_are_the_streams_own():
    law = torch.full((1, 8), 0.125, dtype=torch.float64)
    same = [[each.token for each in orders(law, numbers(seed))[0]] for seed in (1, 1, 2)]
    assert same[0] == same[1] != same[2]
    assert not math.isnan(sum(numbers().take(3)))
