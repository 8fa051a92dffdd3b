"""What a gate is asked to hold: rules such as `nfe:1%`, read and checked against the metrics."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from specbench.compare import registry
from specbench.compare.registry import METRICS
from specbench.errors import UsageError, did_you_mean

IDENTICAL = "identical"
"""A quantity that only a gate has: the share of samples with the very tokens of BASE."""

_GRAMMAR = "a rule is METRIC:TOLERANCE, such as nfe:1%, speedup_e2e:3% or fid:+0.5"

_TOLERANCE = re.compile(r"(?P<sign>[+-]?)(?P<number>\d+(\.\d*)?([eE][+-]?\d+)?|\.\d+)(?P<unit>%?)")

_SHARES = ("ratio", "share", "fraction")
"""Units in which a change of 1 or more is none that a gate would let pass."""


@dataclass(frozen=True)
class Rule:
    """The change of one metric that a gate lets pass.

    Attributes:
        metric: Id of the metric.
        tolerance: Largest change in the bad direction that passes: a share of BASE's value where
            `relative`, else in the metric's unit.
        relative: Whether the tolerance was given in percent.
        bad: +1 where an increase is bad, -1 where a decrease is, 0 where both are.
        text: The rule as it was given.
        title: Name of the metric for people.
        unit: Unit of the metric.
    """

    metric: str
    tolerance: float
    relative: bool
    bad: int
    text: str
    title: str
    unit: str

    def worse_by(self, change: float) -> float:
        """Return how far a change goes in the bad direction; below 0 it is an improvement."""
        return abs(change) if self.bad == 0 else self.bad * change


def parse_rules(
    texts: Iterable[str], measured: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Rule]:
    """Read the rules of a gate.

    Args:
        texts: `METRIC:TOLERANCE` each. `3%` is a share of BASE's value, `0.5` is in the metric's
            unit. A sign names the direction that is bad and must agree with the metric: `+0.5`
            for one whose lower values are better.
        measured: What result files say of metrics that the catalogue may not have, by id (see
            `schema.result.FileMetadata.metrics`).

    Raises:
        UsageError: If a rule cannot be read, its metric does not exist or has no single number,
            its sign contradicts the metric, or two rules name one metric.
    """
    rules: dict[str, Rule] = {}
    for text in texts:
        rule = _parse(text, measured or {})
        if rule.metric in rules:
            raise UsageError(
                f"Two rules gate '{rule.metric}'",
                f"'{rules[rule.metric].text}' and '{text}' were given",
                "Keep one of them.",
            )
        rules[rule.metric] = rule
    return list(rules.values())


def _parse(text: str, measured: Mapping[str, Mapping[str, Any]]) -> Rule:
    name, colon, wanted = text.strip().partition(":")
    if not colon or not name:
        raise UsageError(f"Cannot read the rule '{text}'", _GRAMMAR, "Add the tolerance.")
    title, unit, better = _about(name, measured)
    match = _TOLERANCE.fullmatch(wanted.strip())
    number = float(match["number"]) if match else math.nan
    if match is None or not math.isfinite(number):
        raise UsageError(
            f"Cannot read the tolerance of '{text}'",
            f"{_GRAMMAR}; '{wanted}' is neither a percentage nor a number",
        )
    bad = {"higher": -1, "lower": 1}.get(better, 0)
    signed = {"+": 1, "-": -1, "": 0}[match["sign"]]
    if bad and signed and signed != bad:
        agreed = ("-" if bad < 0 else "+") + wanted.strip()[1:]
        raise UsageError(
            f"The sign of '{text}' is the wrong way round",
            f"it would fail a change that improves {name}, whose {better} values are better",
            f"Write {name}:{agreed}, or leave the sign out.",
        )
    relative = match["unit"] == "%"
    if relative and name in METRICS and METRICS[name].signed:
        raise UsageError(
            f"'{name}' has no relative tolerance",
            "it may lie on both sides of 0, so that a share of it means nothing",
            f"Give an absolute one, such as {name}:0.05.",
        )
    if not relative and number >= 1 and unit in _SHARES:
        raise UsageError(
            f"The rule '{text}' lets everything pass",
            f"{name} is a {unit}, and a change of {wanted.strip()} is no percentage",
            f"Write {name}:{wanted.strip()}% for a share of BASE's value.",
        )
    return Rule(
        metric=name,
        tolerance=number / 100 if relative else number,
        relative=relative,
        bad=bad or signed,
        text=text.strip(),
        title=title,
        unit=unit,
    )


def _about(name: str, measured: Mapping[str, Mapping[str, Any]]) -> tuple[str, str, str]:
    """Return title, unit and better direction of a metric that a gate can hold."""
    metric = METRICS.get(name)
    if metric is not None and metric.gate_on:
        raise UsageError(
            f"'{name}' cannot be gated",
            "it has several numbers, and a gate compares one",
            f"Gate on {metric.gate_on} in its place.",
        )
    if metric is not None and metric.gate_title:
        return metric.gate_title, "share", "higher"
    known = [*registry.names(), IDENTICAL]
    if name in measured:
        entry: Mapping[str, Any] = measured[name]
    elif name in known:
        entry = registry.about(name)
    else:
        options = {*known, *measured} - {each.id for each in METRICS.values() if each.gate_on}
        raise UsageError(
            f"There is no metric '{name}'",
            "the rule names what no comparison has",
            did_you_mean(name, list(options)) or "'specbench list metrics' says which there are.",
        )
    if name not in measured and "metric" not in entry and not (metric and metric.gated):
        able = sorted([*(each.id for each in registry.PUBLISHED if each.gated), IDENTICAL])
        raise UsageError(
            f"'{name}' cannot be gated",
            "no gate knows how it changes",
            f"These can be: {', '.join(able)}.",
        )
    return str(entry.get("title", name)), str(entry.get("unit", "")), str(entry.get("better", ""))
