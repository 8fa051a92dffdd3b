"""Audit a method on table models: is its output law the target's?

What a method is asked depends on what it promises. An exact one is enumerated with small drafts,
sampled at its own sizes, and compared token for token at temperature 0. A greedy one is compared
at temperature 0 alone. A lossy one promises neither: its distance from the target is measured,
and where a value of its knob is known at which it loses nothing, the promise is tested there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from specbench.audit.verdict import Check, Outcome
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
    progress: Progress | None = None,
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
    effort = QUICK if quick else FULL
    with Fitter() as fitter:
        models = cases_of(method, effort).greedy[0].make()
        instantiate(fitter.fitted(method.decoder, models))  # its errors are the user's to mend
        told = progress or (lambda name: None)
        checks = list(_checks(method, effort, fitter, told, seed))
    return _without_repetition(checks)


def _checks(
    method: MethodConfig, effort: Effort, fitter: Fitter, progress: Progress, seed: int
) -> Iterator[Check]:
    cases = cases_of(method, effort)
    node = method.decoder
    promise = method.exactness if method.exactness != "lossy" else ""
    if promise != "greedy":
        small = Subject(_builder(fitter, shrunk(node)), promise, small=shrunk(node) != node)
        chosen = cases.enumerated if promise else cases.enumerated[:2]
        yield from _enumerated(small, chosen, effort, progress)
    if promise:
        own = Subject(_builder(fitter, node), promise)
        if promise == "exact":
            yield from _sampled(own, cases, effort, progress, seed)
        yield from _greedy(own, cases, progress)
        return
    known = NEUTRAL.get(method.name)
    if known is None:
        return
    label = known.describe()
    there = neutral(node, known.arguments)
    if known.promise == "exact":
        least = neutral(shrunk(node), known.arguments)
        small = Subject(_builder(fitter, least), known.promise, label, least != there)
        yield from _enumerated(small, cases.enumerated, effort, progress)
        own = Subject(_builder(fitter, there), known.promise, label)
        yield from _sampled(own, cases, effort, progress, seed)
    yield from _greedy(Subject(_builder(fitter, there), known.promise, label), cases, progress)


def _enumerated(
    subject: Subject, cases: tuple[Case, ...], effort: Effort, progress: Progress
) -> Iterator[Check]:
    for case in cases:
        progress(subject.name("enumeration", case))
        yield enumerated(subject, case, effort.paths)


def _sampled(
    subject: Subject, cases: Cases, effort: Effort, progress: Progress, seed: int
) -> Iterator[Check]:
    for case in cases.sampled:
        progress(subject.name("chi-square", case))
        yield from sampled(subject, case, effort.generations, cases.tests, seed)


def _greedy(subject: Subject, cases: Cases, progress: Progress) -> Iterator[Check]:
    for case in cases.greedy:
        progress(subject.name("greedy identity", case))
        yield greedy(subject, case)


def _builder(fitter: Fitter, node: Node) -> Callable[[ModelPair], Decoder]:
    def build(models: ModelPair) -> Decoder:
        decoder: Decoder = instantiate(fitter.fitted(node, models))
        return decoder

    return build


def _without_repetition(checks: list[Check]) -> list[Check]:
    """Leave one of the checks that a decoder refused for the same reason."""
    kept: list[Check] = []
    reasons: set[tuple[str, str, bool]] = set()
    for check in checks:
        reason = (check.kind, check.detail, check.neutral)
        if check.outcome is Outcome.SKIPPED and check.samples is None:
            if reason in reasons:
                continue
            reasons.add(reason)
        kept.append(check)
    return kept
