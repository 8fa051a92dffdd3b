"""Audit a method on table models: is its output law the target's?

What a method is asked depends on what it promises. An exact one is enumerated with small drafts,
sampled at its own sizes, and compared token for token at temperature 0. A greedy one is compared
at temperature 0 alone. A lossy one promises neither: its distance from the target is measured,
and where a value of its knob is known at which it loses nothing, the promise is tested there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from specbench.audit.checks import Subject, enumerated, greedy, sampled
from specbench.audit.fitting import NEUTRAL, Fitter, Node, neutral, shrunk
from specbench.audit.tables import (
    ENUMERATED,
    GREEDY,
    GREEDY_PICTURES,
    PICTURES,
    SAMPLED,
    SAMPLED_PICTURES,
    Case,
)
from specbench.audit.verdict import Check, CheckOutcome
from specbench.decoding.base import Decoder
from specbench.models.pair import ModelPair
from specbench.schema.build import instantiate
from specbench.schema.method import MethodConfig

Progress = Callable[[str], None]
"""Is told what is checked next."""


@dataclass(frozen=True)
class Effort:
    """How much an audit does.

    Attributes:
        paths: Most paths of one enumeration.
        generations: Sampled outputs of one case.
        short: Whether only the cases of the short form are tried.
    """

    paths: int
    generations: int
    short: bool = False

    def choose(self, cases: tuple[Case, ...]) -> tuple[Case, ...]:
        """Return the cases to try."""
        return tuple(case for case in cases if case.quick) if self.short else cases


QUICK = Effort(paths=1600, generations=80, short=True)
FULL = Effort(paths=60_000, generations=2000)


@dataclass(frozen=True)
class Cases:
    """What one kind of model is asked.

    Attributes:
        enumerated: Cases whose whole law is enumerated.
        sampled: Cases that are sampled; with a memory they are looked at in three ways.
        greedy: Cases at temperature 0.
    """

    enumerated: tuple[Case, ...]
    sampled: tuple[Case, ...]
    greedy: tuple[Case, ...]

    @property
    def tests(self) -> int:
        """Number of chi-square tests."""
        return sum(3 if case.memory else 1 for case in self.sampled)


def cases_of(method: MethodConfig, effort: Effort) -> Cases:
    """Return the cases of a method: texts, pictures, or both for one of any modality."""
    texts = Cases(*map(effort.choose, (ENUMERATED, SAMPLED, GREEDY)))
    pictures = Cases(*map(effort.choose, (PICTURES, SAMPLED_PICTURES, GREEDY_PICTURES)))
    if method.modality == "image":
        return pictures
    if method.modality == "text" or effort.short:
        return texts
    return Cases(
        texts.enumerated + pictures.enumerated,
        texts.sampled + pictures.sampled,
        texts.greedy + pictures.greedy,
    )


def audit_on_tables(
    method: MethodConfig,
    *,
    quick: bool = False,
    progress: Progress = lambda name: None,
    seed: int = 0,
) -> list[Check]:
    """Check everything that table models can say of a method.

    Args:
        method: The method; its decoder may be any class that `_target_` can name. Parts of
            specbench are given what tables lack (a calibration, a datastore, a token grammar),
            and small drafts where their outcomes are enumerated.
        quick: The short form: a few seconds.
        progress: Told the name of every check before it is made.
        seed: First seed of the sampled outputs.

    Returns:
        The checks, in the order in which they were made.

    Raises:
        ConfigError: If the decoder cannot be built.
    """
    with Fitter() as fitter:
        audit = _Audit(method, QUICK if quick else FULL, fitter, progress, seed)
        audit.builder(method.decoder)(audit.cases.greedy[0].make())  # the user's to mend
        return _without_repetition(list(audit.checks()))


class _Audit:
    """The checks of one method, subject by subject."""

    def __init__(
        self, method: MethodConfig, effort: Effort, fitter: Fitter, progress: Progress, seed: int
    ) -> None:
        self.cases = cases_of(method, effort)
        self._method = method
        self._effort = effort
        self._fitter = fitter
        self._progress = progress
        self._seed = seed

    def builder(self, node: Node) -> Callable[[ModelPair], Decoder]:
        """Return what builds a decoder node, fitted to a pair of tables."""

        def build(models: ModelPair) -> Decoder:
            decoder: Decoder = instantiate(self._fitter.fitted(node, models))
            return decoder

        return build

    def checks(self) -> Iterator[Check]:
        """Make all checks, one after another."""
        node, promise = self._method.decoder, self._method.exactness
        if promise == "lossy":
            yield from self._enumerated(shrunk(node), node, "", self.cases.enumerated[:2])
            known = NEUTRAL.get(self._method.name)
            if known is not None:
                there = neutral(node, known.arguments)
                small = neutral(shrunk(node), known.arguments)
                yield from self._promised(there, small, known.promise, known.describe())
        else:
            yield from self._promised(node, shrunk(node), promise)

    def _promised(self, node: Node, small: Node, promise: str, label: str = "") -> Iterator[Check]:
        own = Subject(self.builder(node), promise, label, heads=self._method.heads)
        if promise == "exact":
            yield from self._enumerated(small, node, promise, self.cases.enumerated, label)
            for case in self.cases.sampled:
                self._progress(own.name("chi-square", case))
                generations, tests = self._effort.generations, self.cases.tests
                yield from sampled(own, case, generations, tests, self._seed)
        for case in self.cases.greedy:
            self._progress(own.name("greedy identity", case))
            yield greedy(own, case)

    def _enumerated(
        self, small: Node, node: Node, promise: str, cases: Sequence[Case], label: str = ""
    ) -> Iterator[Check]:
        heads = self._method.heads
        subject = Subject(self.builder(small), promise, label, small != node, heads)
        for case in cases:
            self._progress(subject.name("enumeration", case))
            yield enumerated(subject, case, self._effort.paths)


def _without_repetition(checks: list[Check]) -> list[Check]:
    """Leave one of the checks that a decoder refused for the same reason."""
    kept: list[Check] = []
    reasons: set[tuple[str, str, bool]] = set()
    for check in checks:
        reason = (check.kind, check.detail, check.neutral)
        if check.outcome is CheckOutcome.SKIPPED and check.samples is None:
            if reason in reasons:
                continue
            reasons.add(reason)
        kept.append(check)
    return kept
