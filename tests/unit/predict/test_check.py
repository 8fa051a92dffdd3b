"""Predictions of measured runs: exact in a world that obeys the model, and never circular."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from specbench.predict.check import check_predictions, fit_costs
from specbench.predict.profile import Profile, RoundCost, RoundWork
from tests.unit.predict.worlds import chain

RIDGE, SLOPE, DRAFT, TOKEN, HOST, NODE, PLAIN = 4.0, 0.05, 0.1, 0.02, 0.03, 0.002, 0.01


def obeying(rate: float, length: int, nodes: float, drafted: float, label: str) -> Profile:
    """A profile whose times follow the five numbers of the model exactly."""
    profile = chain(rate, length, label=label)
    work = RoundWork(profile.work.tokens, 1.0, nodes + 1.0, float(length), drafted)
    draft = length * DRAFT + TOKEN * (drafted - length)
    target = 1 + SLOPE * max(0.0, nodes + 1 - RIDGE)
    host = HOST + NODE * (nodes + 1)
    speedup = work.tokens * (1 + PLAIN) / (draft + target + host)
    return replace(profile, work=work, cost=RoundCost(draft, target, host, PLAIN, speedup, 1.0))


def world() -> list[Profile]:
    shapes = ((0.8, 4, 4, 4.0), (0.7, 3, 3, 5.0), (0.6, 6, 20, 30.0), (0.9, 8, 60, 40.0))
    more = ((0.5, 2, 9, 2.0), (0.75, 5, 31, 15.0))
    return [obeying(*shape, f"m{n}") for n, shape in enumerate((*shapes, *more))]


def test_the_costs_of_an_obedient_world_are_found() -> None:
    fit = fit_costs(world())
    assert fit is not None
    assert fit.methods == 6
    assert tuple(fit)[:-1] == pytest.approx((RIDGE, SLOPE, DRAFT, TOKEN, HOST, NODE))


def test_every_run_of_an_obedient_world_is_predicted() -> None:
    check = check_predictions(world(), range(1, 9))
    assert [item.error for item in check.methods] == pytest.approx([0.0] * 6, abs=1e-9)
    assert check.largest_error == pytest.approx(0.0, abs=1e-9)


def test_a_run_is_never_predicted_from_its_own_times() -> None:
    profiles = world()
    before = check_predictions(profiles).methods
    cost = profiles[2].cost
    assert cost is not None
    slowed = cost._replace(
        draft=7 * cost.draft, target=3 * cost.target, host=5 * cost.host, observed_speedup=0.1
    )
    profiles[2] = replace(profiles[2], cost=slowed)
    after = check_predictions(profiles).methods
    assert after[2].predicted == before[2].predicted
    assert after[2].error == pytest.approx((before[2].predicted or 0) / 0.1 - 1)
    # the others see it, so that the first line is no accident
    assert any(a.predicted != b.predicted for a, b in zip(after, before, strict=True))


def test_errors_are_summarised() -> None:
    profiles = world()
    observed = [1.1, 0.8, 1.0, 1.0, 1.0, 1.0]
    changed = [
        replace(p, cost=p.cost._replace(observed_speedup=p.cost.observed_speedup * factor))
        for p, factor in zip(profiles, observed, strict=True)
        if p.cost is not None
    ]
    check = check_predictions(changed)
    errors = np.abs(1 / np.array(observed) - 1)
    assert check.median_error == pytest.approx(np.median(errors), abs=1e-9)
    assert check.percentile_90_error == pytest.approx(np.percentile(errors, 90))
    assert check.largest_error == pytest.approx(0.25)


def test_runs_that_nothing_else_informs_have_a_reason() -> None:
    profiles = world()
    lone = replace(profiles[0], law="temperature 1")
    own = replace(profiles[1], drafter="self")
    bare = replace(profiles[2], cost=None)
    check = check_predictions([*profiles[:4], lone, own, bare])
    reasons = [item.reason for item in check.methods]
    assert reasons[:4] == [""] * 4
    assert "too few" in reasons[4]
    assert "drafter" in reasons[5]
    assert "beside those of a baseline" in reasons[6]
    assert check.methods[6].observed is None
    assert check_predictions([bare]).median_error is None


def test_a_draft_that_only_one_other_method_runs_is_not_guessed() -> None:
    lookups = [
        replace(p, drafter="lookup", work=p.work._replace(draft_forwards=0.0)) for p in world()
    ]
    check = check_predictions([*lookups[:4], *world()[4:]])
    assert "too few" in check.methods[5].reason
    assert check.methods[0].predicted is not None


def test_the_best_length_is_the_best_at_the_costs_of_the_machine() -> None:
    profiles = world()
    found = check_predictions(profiles, range(1, 9)).methods[0]

    def speedup(length: int) -> float:
        work = profiles[0].at(length)
        target = 1 + SLOPE * max(0.0, work.target_tokens - RIDGE)
        draft = work.draft_forwards * DRAFT + TOKEN * (work.draft_tokens - work.draft_forwards)
        return work.tokens * (1 + PLAIN) / (target + draft + HOST + NODE * work.target_tokens)

    assert found.best_length == max(range(1, 9), key=speedup)
    assert found.best_speedup == pytest.approx(max(map(speedup, range(1, 9))))
    assert found.best_extrapolated == ((found.best_length or 0) > 4)
    assert check_predictions(profiles).methods[0].best_length is None
