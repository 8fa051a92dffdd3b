"""Predict runs that were measured, from everything but their own times.

Each method is predicted from its own acceptance and counts, and from costs that are fitted to the
other methods of the same machine, models and law: nothing that the method itself took enters.
(The `predicted_speedup` of a comparison uses the method's own times; this one does not.)

Times are in units of the file's own plain decoding's target forward, so that a machine that was
slower in another hour does not enter either. The fit has five numbers:

- a target forward of n tokens costs 1 + slope * max(0, n - ridge): a roofline, flat while
  reading the weights takes longer than multiplying with them;
- a draft forward of n tokens costs draft_forward + draft_token * (n - 1);
- a round's host work costs host_round + host_node * fed tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from specbench.predict.profile import Profile, RoundCost, RoundWork
from specbench.schema.result import MethodInfo

LEAST_OTHERS = 3
"""Other methods that a cost must be fitted to."""

_LARGEST_RIDGE = 32


class CostFit(NamedTuple):
    """Costs on one machine, in units of a plain target forward.

    Attributes:
        ridge: Tokens up to which a target forward costs as much as one token's.
        slope: Cost of each further token.
        draft_forward: A draft forward of one token; None where too few methods ran a draft.
        draft_token: Each further token of it.
        host_round: Host work of a round.
        host_node: Host work of each token that is fed to the target.
        methods: How many methods were fitted to.
    """

    ridge: float
    slope: float
    draft_forward: float | None
    draft_token: float
    host_round: float
    host_node: float
    methods: int


class CheckedMethod(NamedTuple):
    """One method's prediction beside its measurement.

    Attributes:
        label: The method, with what tells it from others of its name.
        method: What it says of itself.
        setting: Model, law and device.
        observed: Measured decode tokens per second over plain decoding's; None without baseline.
        predicted: The same from acceptance and others' costs, or None.
        error: predicted / observed - 1, or None.
        best_length: The best draft length at the costs of this machine, or None.
        best_speedup: The prediction there.
        best_extrapolated: Whether that length was never measured.
        reason: Why there is no prediction, or empty.
    """

    label: str
    method: MethodInfo
    setting: str
    observed: float | None
    predicted: float | None
    error: float | None
    best_length: int | None
    best_speedup: float | None
    best_extrapolated: bool
    reason: str


class CheckedMethods(NamedTuple):
    """Every prediction of a set of files.

    Attributes:
        methods: One for each profile, in their order.
        fits: The costs of each setting, fitted to all of its methods.
        median_error: Median of the absolute errors, or None where nothing was predicted.
        percentile_90_error: Their 90th percentile.
        largest_error: The largest.
    """

    methods: tuple[CheckedMethod, ...]
    fits: dict[str, CostFit]
    median_error: float | None
    percentile_90_error: float | None
    largest_error: float | None


def check_predictions(profiles: Sequence[Profile], lengths: Sequence[int] = ()) -> CheckedMethods:
    """Predict each profile from the costs of the others of its setting.

    Args:
        profiles: Profiles of any settings.
        lengths: Draft lengths among which the best is sought; none leaves that out.
    """
    settings: dict[str, list[Profile]] = {}
    for profile in profiles:
        settings.setdefault(profile.setting, []).append(profile)
    checked = tuple(_checked(each, settings[each.setting], lengths) for each in profiles)
    errors = np.abs([item.error for item in checked if item.error is not None])
    fits = {}
    for name, members in settings.items():
        fit = fit_costs(members)
        if fit is not None:
            fits[name] = fit
    return CheckedMethods(
        methods=checked,
        fits=fits,
        median_error=float(np.median(errors)) if len(errors) else None,
        percentile_90_error=float(np.percentile(errors, 90)) if len(errors) else None,
        largest_error=float(errors.max()) if len(errors) else None,
    )


def fit_costs(profiles: Sequence[Profile]) -> CostFit | None:
    """Fit the costs of a machine to the methods that were measured on it.

    Errors are relative: each method counts alike, however long its rounds are.

    Returns:
        None where fewer than `LEAST_OTHERS` methods have times.
    """
    timed = [(profile, profile.cost) for profile in profiles if profile.cost is not None]
    if len(timed) < LEAST_OTHERS:
        return None
    tokens = [p.work.target_tokens / p.work.target_forwards for p, _ in timed]
    forwards = [cost.target / p.work.target_forwards for p, cost in timed]
    ridge, slope = _hinge(np.array(tokens), np.array(forwards))
    drafting = [(p, cost) for p, cost in timed if p.drafter == "model"]
    draft: tuple[float | None, float] = (None, 0.0)
    if len(drafting) >= LEAST_OTHERS:
        draft = _line(
            [p.work.draft_tokens / p.work.draft_forwards - 1.0 for p, _ in drafting],
            [cost.draft / p.work.draft_forwards for p, cost in drafting],
        )
    host = _line([p.work.target_tokens for p, _ in timed], [cost.host for _, cost in timed])
    return CostFit(ridge, slope, *draft, *host, len(timed))


def round_seconds(profile: Profile, work: RoundWork, fit: CostFit) -> float | None:
    """Return the cost of a round in plain target forwards, or None where it is not known."""
    tokens = work.target_tokens / work.target_forwards
    target = work.target_forwards * (1.0 + fit.slope * max(0.0, tokens - fit.ridge))
    draft = 0.0
    if profile.drafter == "model":
        if fit.draft_forward is None:
            return None
        draft = work.draft_forwards * fit.draft_forward
        draft += fit.draft_token * max(0.0, work.draft_tokens - work.draft_forwards)
    return target + draft + fit.host_round + fit.host_node * work.target_tokens


def _checked(profile: Profile, members: Sequence[Profile], lengths: Sequence[int]) -> CheckedMethod:
    cost = profile.cost
    observed = cost.observed_speedup if cost else None
    base = CheckedMethod(
        label=profile.label,
        method=profile.method,
        setting=profile.setting,
        observed=observed,
        predicted=None,
        error=None,
        best_length=None,
        best_speedup=None,
        best_extrapolated=False,
        reason="",
    )
    if cost is None:
        return base._replace(reason="it has no times of rounds beside those of a baseline")
    if profile.drafter == "self":
        return base._replace(reason="no other method has the cost of its drafter")
    fit = fit_costs([other for other in members if other is not profile])
    whole = None if fit is None else round_seconds(profile, profile.work, fit)
    if fit is None or whole is None:
        return base._replace(reason="too few other methods were measured beside it")
    predicted = _speedup(cost, profile.work.tokens, whole)
    base = base._replace(predicted=predicted, error=predicted / cost.observed_speedup - 1.0)
    if profile.fixed or not lengths:
        return base
    everyone = fit_costs(members)
    assert everyone is not None

    def at(length: int) -> float:
        work = profile.at(length)
        return _speedup(cost, work.tokens, round_seconds(profile, work, everyone) or np.inf)

    best = max(lengths, key=at)
    return base._replace(
        best_length=best, best_speedup=at(best), best_extrapolated=profile.extrapolated(best)
    )


def _speedup(cost: RoundCost, tokens: float, round_cost: float) -> float:
    return float(tokens * (1.0 + cost.plain_host) / round_cost)


def _hinge(tokens: np.ndarray, costs: np.ndarray) -> tuple[float, float]:
    """Fit 1 + slope * max(0, tokens - ridge) by relative least squares over whole ridges."""

    def slope_at(ridge: float) -> float:
        x = np.maximum(0.0, tokens - ridge) / costs
        return (
            max(0.0, float((x * (1.0 - 1.0 / costs)).sum() / square))
            if (square := float((x * x).sum()))
            else 0.0
        )

    def misfit(ridge: float) -> float:
        fitted = 1.0 + slope_at(ridge) * np.maximum(0.0, tokens - ridge)
        return float((((fitted - costs) / costs) ** 2).sum())

    ridge = min(map(float, range(1, _LARGEST_RIDGE + 1)), key=misfit)
    return ridge, slope_at(ridge)


def _line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Fit a + b x with b at least 0, by relative least squares."""
    weights = 1.0 / np.maximum(np.array(y), 1e-9)
    columns = np.stack([np.ones(len(x)), np.array(x)], axis=1) * weights[:, None]
    (constant, slope), *_ = np.linalg.lstsq(columns, np.ones(len(x)), rcond=None)
    if slope < 0:
        return float((weights.sum()) / (weights**2).sum()), 0.0
    return float(constant), float(slope)
