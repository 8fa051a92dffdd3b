"""Audit a method on a real model: identity, oracle, sampled law, and the control of the last.

`specbench.audit` holds the checks; here the models of a configuration are loaded for them, once
in the run's own type and, where outputs differ, once in the next wider one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from specbench.audit.control import Mixed, control_check
from specbench.audit.identity import (
    Judge,
    ReadyDecoder,
    compare_tokens,
    identity_check,
    judge_greedy,
)
from specbench.audit.oracle import judge_coupled, oracle_of
from specbench.audit.sampled import POSITIONS, SAMPLES, Plan, check_of, sample_law
from specbench.audit.verdict import Check, CheckOutcome, Kind
from specbench.calibration import find_calibrations
from specbench.clock import clock_for
from specbench.decoding.base import Decoder
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.decoding.request import Request
from specbench.errors import SpecbenchError
from specbench.law import Law
from specbench.models.pair import ModelPair
from specbench.runner.measure import Bench
from specbench.runner.patience import OutOfTime, Patience
from specbench.runner.setup import Job, load_models
from specbench.schema.build import instantiate
from specbench.schema.config import RunConfig
from specbench.schema.model import Dtype
from specbench.tasks.base import Sample

_WIDER: dict[str, Dtype] = {"float16": "float32", "bfloat16": "float32", "float32": "float64"}
_CONTROL_SAMPLES = 100
"""Generations of a control that is found by so few; its power is resampled from them."""

_OUT_OF_TIME = "not tested: the limit of --minutes was reached"

_GREEDY_TOKENS = 128
"""Tokens of an identity check where the configuration names no limit."""


@dataclass
class Effort:
    """How much an audit on a real model does.

    Attributes:
        samples: Generations of the sampled law test, and of its control.
        positions: Tokens of each of them.
        prompts: Prompts of all checks, spread over the task; None takes all of them.
        tokens: Tokens of an identity check, where the configuration names no limit.
        progress: Told what is done next.
        say: Told how long the checks on a model will take, before they begin.
        patience: Knows what the audit is at, and when it must end.
        controls: The controls of earlier audits, which another method's audit may use again.
    """

    samples: int = SAMPLES
    positions: int = POSITIONS
    prompts: int | None = 8
    tokens: int = _GREEDY_TOKENS
    progress: Callable[[str], None] = lambda name: None
    say: Callable[[str], None] = lambda line: None
    patience: Patience = field(default_factory=lambda: Patience(None, lambda line: None))
    controls: dict[str, Check] = field(default_factory=dict)

    @classmethod
    def short(cls) -> Effort:
        """Return the effort of the short form."""
        return cls(samples=200, prompts=4, tokens=48)


def audit_on_model(config: RunConfig, effort: Effort) -> list[Check]:
    """Check what a real model can say of a method.

    Args:
        config: The method, the model, the task that prompts it, and the sampling law. At
            temperature 0 the sampled checks are made at temperature 1.
        effort: How much is done.

    Returns:
        The checks. One that the method refuses, or that lacks a calibration or a datastore, is
        skipped with the reason; one in which the decoder crashes has failed.

    Raises:
        SpecbenchError: If the model or the task cannot be loaded.
    """
    threads = config.timing.threads
    if threads is None and config.model.target.startswith("embedded:"):
        threads = 1  # the embedded models are too small to be divided among threads
    if threads is not None:
        torch.set_num_threads(threads)
    audit = _Audit(config, effort)
    return list(audit.checks())


class _Audit:
    """One method on one model."""

    def __init__(self, config: RunConfig, effort: Effort) -> None:
        self._config = config
        self._effort = effort
        job = Job.of(replace(config, baseline=None))
        self._needs = job.needs
        self._models = load_models(config, job.needs)
        self._job = job.asked(self._models)
        own = job.law
        self._sampling = replace(own, temperature=1.0) if own.greedy else own
        self._greedy = replace(own, temperature=0.0, top_k=None, top_p=None)
        self._wide: ModelPair | None = None

    def checks(self) -> Iterator[Check]:
        """Yield the checks."""
        node = self._config.method.decoder
        exactness = self._config.method.exactness
        self._effort.say(self._forecast())
        yield self._guarded(Kind.GREEDY_IDENTITY, self._greedy, self._identity)
        if exactness == "greedy":
            why = "nothing is promised above temperature 0"
            for kind in (Kind.ORACLE, Kind.SAMPLED_LAW):
                yield Check(
                    self._name(kind, self._sampling), kind, CheckOutcome.SKIPPED, detail=why
                )
            return
        if oracle_of(node) is not None:
            yield self._guarded(Kind.ORACLE, self._sampling, self._oracle)
        checks = self._sampled()
        check = self._guarded(Kind.SAMPLED_LAW, self._sampling, lambda: next(checks))
        yield check
        if check.detail != _OUT_OF_TIME:
            yield from checks

    def _identity(self) -> Check:
        build = _builder(self._config)
        promised = self._config.method.exactness in ("exact", "greedy")
        return self._compare(self._greedy, build, judge_greedy, Kind.GREEDY_IDENTITY, promised)

    def _oracle(self) -> Check:
        def build() -> Decoder:
            decoder = oracle_of(self._config.method.decoder)
            assert decoder is not None
            return decoder

        return self._compare(self._sampling, build, judge_coupled, Kind.ORACLE, True)

    def _compare(
        self, law: Law, build: Callable[[], Decoder], judged: Judge, kind: Kind, promised: bool
    ) -> Check:
        name = self._name(kind, law)
        arm = self._arm(build(), self._models, law)
        tried = []

        def widened() -> ReadyDecoder | None:
            models = self._wider()
            if models is None:
                return None
            tried.append(models)
            return self._arm(build(), models, law)

        requests = self._requests(law)
        grades = compare_tokens(arm, requests, judged, widened, self._counter(len(requests)))
        return identity_check(grades, name, kind, promised, wider=bool(tried))

    def _sampled(self) -> Iterator[Check]:
        law, effort = self._sampling, self._effort
        faithful = self._config.method.exactness == "exact"
        decoder = _builder(self._config)()
        arm = self._arm(decoder, self._models, law)
        drafts = "draft" in self._needs and self._models.draft is not None
        prompts = [request.prompt for request in self._requests(law)]
        seed = self._config.sampling.seed
        plan = Plan(prompts, law, effort.samples, effort.positions, seed)
        evidence = sample_law(
            arm.decoder,
            self._models,
            plan,
            drafts=drafts,
            planted=faithful and drafts,
            advance=self._counter(plan.samples),
        )
        name = self._name(Kind.SAMPLED_LAW, law)
        check = check_of(evidence, name, faithful)
        if not faithful or check.outcome is CheckOutcome.FAIL:
            yield check
            return
        control = self._control(plan, drafts)
        if control.outcome is not CheckOutcome.PASS:
            check = replace(check, outcome=CheckOutcome.INCONCLUSIVE)
        yield replace(check, power=control.power)
        yield control

    def _control(self, plan: Plan, drafts: bool) -> Check:
        """Return the check of the biased decoder, made once for all methods that share it."""
        key = repr((self._config.model, self._config.task, plan, drafts))
        known = self._effort.controls
        if key not in known:
            name = self._name(Kind.NEGATIVE_CONTROL, plan.law)
            control = Mixed(drafts=drafts)
            for samples in sorted({min(plan.samples, _CONTROL_SAMPLES), plan.samples}):
                part = replace(plan, samples=samples)
                self._effort.patience.at(name)
                advance = self._counter(samples)
                evidence = sample_law(
                    control, self._models, part, drafts=drafts, whole=True, advance=advance
                )
                if evidence.found():
                    break
            known[key] = control_check(evidence, control, name, plan.samples)
        return known[key]

    def _arm(self, decoder: Decoder, models: ModelPair, law: Law) -> ReadyDecoder:
        decoder.check(law)
        models = models.under(law)
        find_calibrations(self._config, decoder, models, law)
        decoder.prepare(models)
        return ReadyDecoder(decoder, models)

    def _wider(self) -> ModelPair | None:
        """Return the models in the next wider type, or None where there is none or no room."""
        dtype = _WIDER.get(str(self._models.target.dtype).removeprefix("torch."))
        if dtype is None:
            return None
        if self._wide is None:
            self._effort.progress(f"loading {self._models.name} in {dtype}")
            config = replace(self._config, model=replace(self._config.model, dtype=dtype))
            try:
                self._wide = load_models(config, self._needs)
            except (SpecbenchError, MemoryError, torch.OutOfMemoryError):
                return None
        return self._wide

    def _requests(self, law: Law) -> list[Request]:
        """Return the requests of the identity checks."""
        clock = clock_for(self._models.target.device)
        bench = Bench(replace(self._job, law=law), self._models, clock)
        requests = [bench.request(sample, 0, bench.prompt(sample)) for sample in self._samples()]
        if self._config.max_new_tokens is not None:
            return requests
        most = self._effort.tokens
        return [replace(r, max_new_tokens=min(r.max_new_tokens, most)) for r in requests]

    def _samples(self) -> Sequence[Sample]:
        """Return the samples that prompt the checks, spread over the task."""
        samples, wanted = self._job.task.samples, self._effort.prompts
        if wanted is None or wanted >= len(samples):
            return samples
        return [samples[index * len(samples) // wanted] for index in range(wanted)]

    def _guarded(self, kind: Kind, law: Law, make: Callable[[], Check]) -> Check:
        """Return a check, or one that says why it could not be made."""
        name = self._name(kind, law)
        patience = self._effort.patience
        if patience.over:
            return Check(name, kind, CheckOutcome.SKIPPED, detail=_OUT_OF_TIME)
        self._effort.progress(name)
        patience.at(name)
        try:
            return make()
        except OutOfTime:
            return Check(name, kind, CheckOutcome.SKIPPED, detail=_OUT_OF_TIME)
        except SpecbenchError as error:
            words = ": ".join(part for part in (error.what, error.why, error.fix) if part)
            return Check(name, kind, CheckOutcome.SKIPPED, detail=words)
        except Exception as error:
            words = f"the decoder stopped: {type(error).__name__}: {error}"
            return Check(name, kind, CheckOutcome.FAIL, detail=" ".join(words.split()))
        finally:
            patience.at("")

    def _counter(self, total: int) -> Callable[[], None]:
        """Return a call that counts what is done of a check."""
        patience = self._effort.patience
        name = patience.activity
        count = itertools.count(1)

        def advance() -> None:
            patience.activity = f"{name}, {next(count)} of {total}"

        return advance

    def _forecast(self) -> str:
        """Say roughly how long the checks take, from one short plain generation."""
        requests, effort = self._requests(self._greedy), self._effort
        clock = clock_for(self._models.target.device)
        short = replace(requests[0], max_new_tokens=effort.positions)
        for _ in range(2):  # the first one pays for what is made only once
            done = Autoregressive().generate(self._models, short, clock)
        prompt = done.prefill_ns / 1e9
        token = (done.total_ns - done.prefill_ns) / 1e9 / max(1, len(done.tokens) - 1)
        answers = sum(prompt + token * request.max_new_tokens for request in requests)
        texts = effort.samples + min(_CONTROL_SAMPLES, effort.samples)
        seconds = 4 * answers + texts * (2 * prompt + token * effort.positions)
        minutes = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
        return (
            f"on {self._models.name}: {len(requests)} answers in four arms and {texts} short "
            f"texts, roughly {minutes}; --minutes sets a limit, --samples and task.limit ask for "
            "less"
        )

    def _name(self, kind: Kind, law: Law) -> str:
        words = {
            Kind.GREEDY_IDENTITY: "greedy identity",
            Kind.ORACLE: "oracle",
            Kind.SAMPLED_LAW: "sampled law",
            Kind.NEGATIVE_CONTROL: "control",
        }
        return f"{words[kind]}, {self._models.name}, {law.describe()}"


def _builder(config: RunConfig) -> Callable[[], Decoder]:
    def build() -> Decoder:
        decoder: Decoder = instantiate(config.method.decoder)
        return decoder

    return build
