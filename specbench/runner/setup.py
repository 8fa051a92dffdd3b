"""What is measured, as one value, and the models that it needs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from specbench.calibration import find_calibrations
from specbench.decoding.base import Decoder
from specbench.law import Guidance, Law
from specbench.models import engines
from specbench.models.heads import load as heads
from specbench.models.load import pick_device
from specbench.models.pair import ModelPair
from specbench.schema.build import instantiate, locate
from specbench.schema.config import RunConfig, missing_draft, missing_head
from specbench.schema.method import MethodConfig
from specbench.schema.result import BASELINE, METHOD
from specbench.store import Key
from specbench.tasks.base import Sample, Task
from specbench.tasks.load import load_task
from specbench.tasks.prompting import for_tokenizer


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Attributes:
        name: "baseline" or "method".
        method: Id of the method that runs in it.
        decoder: The decoder.
        faithful: Whether the method promises plain decoding's tokens at temperature 0.
    """

    name: str
    method: str
    decoder: Decoder
    faithful: bool


class Pair(NamedTuple):
    """One sample in one repeat, to be measured in every arm.

    Attributes:
        sample: The sample.
        repeat: Index of the repeat.
        flip: Whether the last arm begins.
    """

    sample: Sample
    repeat: int
    flip: bool


@dataclass(frozen=True)
class Job:
    """What is measured: made once of a configuration, and handed on.

    Attributes:
        config: The validated configuration; seed, limits and timing stand there.
        law: The target's law.
        arms: The baseline, where there is one, and the method.
        task: The samples.
    """

    config: RunConfig
    law: Law
    arms: tuple[Arm, ...]
    task: Task

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """Build what a configuration names; models are loaded apart.

        Raises:
            SpecbenchError: If a part or the task's samples cannot be read.
        """
        arms = [_arm(METHOD, config.method)]
        if config.baseline is not None:
            arms.insert(0, _arm(BASELINE, config.baseline))
        return cls(config, target_law(config), tuple(arms), load_task(config.task))

    def asked(self, models: ModelPair) -> Self:
        """Return the job with its prompts as the loaded models take them."""
        return replace(self, task=for_tokenizer(self.task, models.tokenizer))

    @property
    def label(self) -> str:
        """What the job is called while it runs."""
        return f"{self.config.method.name} on {self.task.name} with {self.config.model.label}"

    @property
    def needs(self) -> frozenset[str]:
        """What the arms need of the models."""
        return frozenset(need for arm in self.arms for need in arm.decoder.needs)

    def lacking(self, done: Collection[Key], process: int) -> list[Pair]:
        """Return the pairs of a process that are not done, with the order of their arms.

        The order flips with the sample, the repeat and the process (ABBA).
        """
        return [
            Pair(sample, repeat, bool((index + repeat + process) % 2))
            for repeat in range(self.config.timing.repeats)
            for index, sample in enumerate(self.task.samples)
            if not all(Key(arm.name, sample.id, repeat, process) in done for arm in self.arms)
        ]

    def left(self, done: Collection[Key]) -> int:
        """Return how many pairs are not done in all processes."""
        return sum(len(self.lacking(done, k)) for k in range(self.config.timing.processes))


def target_law(config: RunConfig) -> Law:
    """Return the target's law of a configuration."""
    sampling = config.sampling
    guidance = None
    if config.model.modality == "image":
        guidance = Guidance(
            1.0 if sampling.cfg_scale is None else sampling.cfg_scale,
            sampling.cfg_schedule,
            sampling.image_scale,
            sampling.unconditional,
        )
    return Law(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        repetition_penalty=sampling.repetition_penalty,
        guidance=guidance,
        text_top_k=sampling.text_top_k,
    )


def load_for(job: Job) -> ModelPair:
    """Load the models that the arms need.

    Raises:
        ConfigError: If an arm needs something that the model entry lacks.
    """
    model = job.config.model
    for arm in job.arms:
        if "draft" in arm.decoder.needs and not model.drafts(arm.decoder.needs):
            raise missing_draft(arm.name, arm.method, model.name)
    return load_models(job.config, job.needs)


def load_models(config: RunConfig, needs: frozenset[str]) -> ModelPair:
    """Load the models of a run by its entry's own loader, under the run's law.

    The tokens of an image pair are numbers (`ModelPair.narrow`).

    Raises:
        ConfigError: If a head is needed and none is named.
        ModelError: If the models cannot be loaded, or not run in the engine that is asked for.
    """
    model = config.model
    if "head" in needs and model.head is None:
        raise missing_head("method", config.method, model.name)
    lean = model.engine != "transformers" and not model.device_map
    engines.check_engine(config.execution, pick_device(model.device), model.name, lean=lean)
    load = locate(str(config.model.loader["_target_"]))
    options = {key: value for key, value in config.model.loader.items() if key != "_target_"}
    scales = {key: getattr(config.sampling, key) for key in ("cfg_scale", "image_scale")}
    used = replace(model, sampling={**model.sampling, **scales})
    head = heads.find_head(model, heads_taken(config)) if "head" in needs else None
    models: ModelPair = load(used, needs=needs, **options)
    if head is not None:
        models.head = heads.load_head(head, models.target)
        models.provenance = {**models.provenance, "head": heads.describe(head, models.head)}
    engines.switch(models, config.execution)
    models.narrow()
    return models.under(target_law(config))


def heads_taken(config: RunConfig) -> frozenset[str]:
    """Return the families of heads that every method of a run takes, of those that need one."""
    methods = (config.method, config.baseline)
    taken = [frozenset(method.heads) for method in methods if method is not None and method.heads]
    return frozenset.intersection(*taken)


def prepare(job: Job, arm: Arm, models: ModelPair) -> dict[str, str]:
    """Fit an arm to the loaded models; return digests of what it reads beside them.

    Raises:
        ConfigError: If a calibration or a datastore is missing or belongs to other models.
    """
    config = job.config
    if arm.name == BASELINE and config.baseline is not None:
        config = replace(config, method=config.baseline)
    used = find_calibrations(config, arm.decoder, models, job.law)
    arm.decoder.prepare(models)
    return used | arm.decoder.inputs()


def _arm(name: str, method: MethodConfig) -> Arm:
    decoder: Decoder = instantiate(method.decoder)
    return Arm(name, method.name, decoder, method.exactness in ("exact", "greedy"))
