"""The three checks on table models: enumeration, chi-square, and greedy identity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from specbench.audit.chi_square import CONFIRMATION, stage_rate
from specbench.audit.enumeration import (
    Distribution,
    Enumeration,
    NotReproducible,
    Tokens,
    check_ledger,
    enumerate_output,
    greedy_tokens,
    reseeded,
    total_variation,
    true_law,
)
from specbench.audit.heads import with_head
from specbench.audit.tables import Case
from specbench.audit.verdict import Check, CheckOutcome, Kind
from specbench.audit.views import Statistic, views_of
from specbench.clock import CpuClock
from specbench.decoding.base import Decoder
from specbench.decoding.request import Request
from specbench.errors import SpecbenchError
from specbench.models.pair import ModelPair

BOUND = 1e-9
"""Greatest total variation distance of an enumerated law that calls itself exact."""

FALSE_ALARM = 1e-6
"""Probability that the chi-square tests of one audit together fail a correct decoder."""

BIAS = "one token in ten taken from the draft unverified"
"""The bias that powers are stated for."""

_BLIND = 0.01
"""Power below which a test that found nothing was none."""

_REPEATS = 24
_REPEATED_PATHS = 300
_UNSCRIPTED = "random choices other than the request's cannot be enumerated"


@dataclass(frozen=True)
class Subject:
    """A decoder under audit.

    Attributes:
        build: Builds it, fitted to a pair of tables; called anew for every case.
        promise: "exact", "greedy", or "" where its law is only measured.
        label: The neutral values that it has, such as "lenience=1.0"; empty for its own.
        small: Whether its drafts are smaller than the method's own.
        heads: Families of heads that it takes.
    """

    build: Callable[[ModelPair], Decoder]
    promise: str
    label: str = ""
    small: bool = False
    heads: tuple[str, ...] = ()

    def ready(self, case: Case) -> tuple[Decoder, ModelPair]:
        """Return the decoder and the pair of a case, ready to generate.

        Raises:
            SpecbenchError: If the decoder refuses the law or the models.
        """
        models = with_head(case.make(), self.heads).under(case.law)
        decoder = self.build(models)
        decoder.check(case.law)
        decoder.prepare(models)
        return decoder, models

    def name(self, kind: str, case: Case) -> str:
        """Return the name of a check."""
        return f"{kind}, {case.name}" + (f" ({self.label})" if self.label else "")

    def draft(self, name: str, kind: Kind, **values: object) -> Check:
        """Return a check that passed, for `replace`."""
        outcome = CheckOutcome.PASS if self.promise else CheckOutcome.MEASURED
        check = Check(name, kind, outcome, neutral=bool(self.label))
        return replace(check, **values)  # type: ignore[arg-type]


def enumerated(subject: Subject, case: Case, most_paths: int) -> Check:
    """Compare the whole output law of a case with the target's.

    Skipped where there are more paths, or where the decoder's choices cannot be scripted.
    """
    check = subject.draft(subject.name("enumeration", case), Kind.ENUMERATION)
    try:
        decoder, models = subject.ready(case)
        request = case.request()
        found = enumerate_output(decoder, models, request, most_paths)
        if not found.complete:
            return _skipped(replace(check, samples=found.paths), f"more than {most_paths} paths")
        truth = true_law(models, case.law, case.prompt, case.count, case.stop)
        variation = total_variation(found.law, truth)
        if variation > BOUND and not _decided(found, decoder, models, request):
            return _skipped(check, _UNSCRIPTED)
    except NotReproducible:
        return _skipped(check, _UNSCRIPTED)
    except SpecbenchError as error:
        return _skipped(check, error.what)
    except Exception as error:  # any decoder, from anywhere
        return _broken(check, error)
    detail = _drafts(found) + ("; at small sizes" if subject.small else "")
    check = replace(check, statistic=variation, samples=found.paths, detail=detail)
    if not subject.promise:
        return check
    check = replace(check, bound=BOUND)
    if variation <= BOUND:
        return check
    wrong = f"{_worst(found.law, truth)}; {detail}"
    return replace(check, outcome=CheckOutcome.FAIL, detail=wrong)


def sampled(
    subject: Subject, case: Case, generations: int, tests: int, seed: int = 0
) -> list[Check]:
    """Test sampled outputs of a case, with the decoder's own random numbers.

    Args:
        subject: The decoder.
        case: The case.
        generations: Outputs of the first look; suspicions are confirmed on `CONFIRMATION` times
            as many fresh ones.
        tests: Number of tests of the whole audit, which share `FALSE_ALARM`.
        seed: First seed.

    Returns:
        A check for each view of the case.
    """
    name = subject.name("chi-square", case)
    blank = subject.draft(name, Kind.CHI_SQUARE)
    try:
        decoder, models = subject.ready(case)
        views = views_of(case, models)
        outputs = _outputs(decoder, models, case, seed, generations)
        stage = stage_rate(FALSE_ALARM, tests)
        checks = [_judged(view, case, outputs, stage, blank, tests) for view in views]
        if all(check.outcome is not CheckOutcome.FAIL for check in checks):
            return checks
        more = CONFIRMATION * generations
        fresh = _outputs(decoder, models, case, seed + generations, more)
        return [
            _confirmed(check, _judged(view, case, fresh, stage, blank, tests), subject)
            for check, view in zip(checks, views, strict=True)
        ]
    except SpecbenchError as error:
        return [_skipped(blank, error.what)]
    except Exception as error:  # any decoder, from anywhere
        return [_broken(blank, error)]


def greedy(subject: Subject, case: Case) -> Check:
    """Compare greedy texts with the target's own, token for token."""
    check = subject.draft(subject.name("greedy identity", case), Kind.GREEDY_IDENTITY)
    different: list[str] = []
    prompts = _prompts(case)
    try:
        for prompt in prompts:
            asked = replace(case, prompt=prompt)
            decoder, models = subject.ready(asked)
            expected = greedy_tokens(models, case.law, prompt, case.count, case.stop)
            (output,) = _outputs(decoder, models, asked, 0, 1)
            if output != expected:
                pairs = zip(output, expected, strict=False)
                place = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
                where = "in length" if place is None else f"first at token {place}"
                different.append(f"prompt {prompt} differs {where}")
    except SpecbenchError as error:
        return _skipped(check, error.what)
    except Exception as error:  # any decoder, from anywhere
        return _broken(check, error)
    bound = 0.0 if subject.promise else None
    check = replace(check, statistic=float(len(different)), bound=bound, samples=len(prompts))
    if not different:
        return check
    outcome = CheckOutcome.FAIL if subject.promise else CheckOutcome.MEASURED
    return replace(check, outcome=outcome, detail="; ".join(different))


def _prompts(case: Case) -> list[Tokens]:
    """Return the case's prompt and, for text, two others of its length."""
    models = case.make()
    if models.image is not None:
        return [case.prompt]
    vocab = models.target.vocab_size
    return [tuple((token + shift) % vocab for token in case.prompt) for shift in range(3)]


def _outputs(
    decoder: Decoder, models: ModelPair, case: Case, seed: int, count: int
) -> list[Tokens]:
    outputs = []
    for index in range(seed, seed + count):
        decoder.reset()
        generation = decoder.generate(models, case.request(index), CpuClock())
        check_ledger(generation)
        outputs.append(generation.tokens)
    return outputs


def _judged(
    view: Statistic, case: Case, outputs: Sequence[Tokens], stage: float, blank: Check, tests: int
) -> Check:
    result = view.test(case, outputs, len(outputs))
    power = view.power(len(outputs), stage)
    outcome = CheckOutcome.FAIL if result.p_value < stage else blank.outcome
    blind = outcome is CheckOutcome.PASS and power < _BLIND
    return replace(
        blank,
        name=f"{blank.name}, {view.name}",
        outcome=CheckOutcome.SKIPPED if blind else outcome,
        statistic=result.statistic if math.isfinite(result.statistic) else None,
        p_value=result.p_value,
        samples=len(outputs),
        false_alarm=FALSE_ALARM / tests,
        power=power,
        detail="an output was seen that the target forbids"
        if not math.isfinite(result.statistic)
        else f"not tested: so few samples could not have shown {BIAS}"
        if blind
        else f"{result.freedom} degrees of freedom; power against {BIAS}",
    )


def _confirmed(first: Check, second: Check, subject: Subject) -> Check:
    """Return the outcome of a suspicion and its confirmation on fresh samples."""
    if first.outcome is not CheckOutcome.FAIL:
        return first
    words = f"suspected with p = {first.p_value:.2g}"
    if second.outcome is not CheckOutcome.FAIL:
        return replace(second, detail=f"{second.detail}; {words}, not confirmed")
    outcome = CheckOutcome.FAIL if subject.promise else CheckOutcome.MEASURED
    return replace(second, outcome=outcome, detail=f"{second.detail}; {words}, confirmed")


def _decided(found: Enumeration, decoder: Decoder, models: ModelPair, request: Request) -> bool:
    """Say whether scripted choices alone decide a decoder's output.

    The enumeration is repeated with other numbers, which should change nothing, the more often
    the fewer paths it has: a decoder without scripted choices has one, and repeats it by chance.
    """
    if abs(sum(found.law.values()) - 1) > BOUND:
        return False
    for index in range(max(2, min(_REPEATS, _REPEATED_PATHS // found.paths))):
        again = enumerate_output(decoder, models, reseeded(request, index + 1), 2 * found.paths)
        if total_variation(found.law, again.law) > BOUND:
            return False
    return True


def _drafts(found: Enumeration) -> str:
    if not found.proposed:
        return "nothing was drafted"
    share = found.accepted / found.proposed
    return f"{found.proposed:.2g} draft tokens a text, {share:.0%} accepted"


def _worst(law: Distribution, truth: Distribution) -> str:
    """Name the output whose probability is most wrong."""
    key = max({*law, *truth}, key=lambda key: abs(law.get(key, 0.0) - truth.get(key, 0.0)))
    got, wanted = law.get(key, 0.0), truth.get(key, 0.0)
    return f"the tokens {list(key)} have probability {got:.4f}, not {wanted:.4f}"


def _skipped(check: Check, why: str) -> Check:
    return replace(check, outcome=CheckOutcome.SKIPPED, detail=why)


def _broken(check: Check, error: Exception) -> Check:
    text = " ".join(str(error).split())
    words = f"the decoder raised {type(error).__name__}" + (f": {text}" if text else "")
    return replace(check, outcome=CheckOutcome.FAIL, detail=words)
