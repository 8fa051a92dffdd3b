"""What an audit found: checks, and the verdict on a method that follows from them.

A check compares a decoder's output with what the target alone says. Exact checks (enumeration)
have a numeric bound; statistical ones have a false-alarm rate that was fixed before any sample
was drawn, and a power against a stated bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from specbench.schema.result import MethodInfo


class CheckOutcome(StrEnum):
    """What became of one check."""

    PASS = "pass"
    FAIL = "fail"
    MEASURED = "measured"
    SKIPPED = "skipped"
    INCONCLUSIVE = "inconclusive"


class Kind(StrEnum):
    """How a check compares a decoder with the target."""

    ENUMERATION = "enumeration"
    CHI_SQUARE = "chi_square"
    GREEDY_IDENTITY = "greedy_identity"
    ORACLE = "oracle"
    SAMPLED_LAW = "sampled_law"
    NEGATIVE_CONTROL = "negative_control"


GREEDY_KINDS = frozenset({Kind.GREEDY_IDENTITY})
"""Checks of the argmax alone."""

LAW_KINDS = frozenset({Kind.ENUMERATION, Kind.CHI_SQUARE, Kind.ORACLE, Kind.SAMPLED_LAW})
"""Checks of the law at a temperature above zero."""

MODEL_LAW_KINDS = frozenset({Kind.ORACLE, Kind.SAMPLED_LAW})
"""Checks of the law that was asked for, on the real model."""


@dataclass(frozen=True)
class Check:
    """One comparison of a decoder with the target.

    Attributes:
        name: What was compared, such as "enumeration, temperature 0.7, top-k 2".
        kind: How.
        outcome: `PASS` or `FAIL` where a promise is tested; `MEASURED` where there is no promise
            and the value is shown; `SKIPPED` where the check does not apply or cannot be made,
            with the reason as detail; `INCONCLUSIVE` where it could not have failed, because a
            deliberately biased decoder passed it too.
        statistic: The measured value: the total variation distance of an enumeration, the
            chi-square statistic of a test, the number of differing tokens of an identity.
        bound: What the statistic had to stay under, or None.
        p_value: Probability of a statistic as large under the target's law, or None.
        samples: Number of generations (enumerated paths, for an enumeration), or None.
        false_alarm: Probability that a correct decoder fails this check, or None where it
            cannot.
        power: Probability that the bias named in `detail` would have been found, or None.
        detail: What a reader needs beside the numbers.
        neutral: Whether the method's knob was turned to where it promises the target's law.
        powers: Probability of finding other errors, by their names; empty where none was planted.
    """

    name: str
    kind: Kind
    outcome: CheckOutcome
    statistic: float | None = None
    bound: float | None = None
    p_value: float | None = None
    samples: int | None = None
    false_alarm: float | None = None
    power: float | None = None
    detail: str = ""
    neutral: bool = False
    powers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AuditReport:
    """All checks of one method on one model.

    Attributes:
        method: The method and its promise.
        model: The models' name; "tables" for exact toy models.
        checks: The checks, in the order in which they were made.
        seconds: How long they took.
    """

    method: MethodInfo
    model: str
    checks: tuple[Check, ...]
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing that the method promises was found broken.

        Failing checks fail the audit of a lossy method too, because such a check is only made
        where the method promises something: at a neutral value of its knob.
        """
        return not any(check.outcome is CheckOutcome.FAIL for check in self.checks)

    @property
    def proven(self) -> bool:
        """Whether at least one check of what the method promises was made and all passed.

        What was proven on tables says nothing about a model and a law for which every check was
        skipped.
        """
        if self.untested_on_model or not self.ok:
            return False
        kinds = {"exact": LAW_KINDS, "greedy": GREEDY_KINDS}.get(self.method.exactness)
        if kinds is None:
            judging = (each for each in self.checks if each.kind is not Kind.NEGATIVE_CONTROL)
            return any(each.outcome is not CheckOutcome.SKIPPED for each in judging)
        passed = (each for each in self.checks if each.outcome is CheckOutcome.PASS)
        return any(each.kind in kinds for each in passed)

    @property
    def verdict(self) -> str:
        """One phrase: what is known of the decoder's output law."""
        if not self.ok:
            promise = {"exact": "not exact", "greedy": "does not keep the argmax"}
            return promise.get(self.method.exactness, "not what it declares")
        if any(check.outcome is CheckOutcome.INCONCLUSIVE for check in self.checks):
            return "inconclusive"
        promise = {"exact": "exact", "greedy": "keeps the argmax only"}
        found = promise.get(self.method.exactness, "lossy as declared")
        if self.untested_on_model:
            return f"not tested under this law ({found} in what was)"
        return found if self.proven else "unknown: nothing could be checked"

    @property
    def untested_on_model(self) -> bool:
        """Whether every check of the model's own law was skipped."""
        asked = [check for check in self.checks if check.kind in MODEL_LAW_KINDS]
        return bool(asked) and all(check.outcome is CheckOutcome.SKIPPED for check in asked)

    @property
    def total_variation(self) -> float | None:
        """The largest total variation distance that was measured at the method's own values."""
        values = [
            check.statistic
            for check in self.checks
            if check.kind is Kind.ENUMERATION
            and check.outcome is not CheckOutcome.SKIPPED
            and not check.neutral
            and check.statistic is not None
        ]
        return max(values, default=None)
