"""What a job needs before it measures: its law, its arms and its models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from specbench.calibration import find_calibrations
from specbench.decoding.base import Decoder
from specbench.law import Guidance, Law
from specbench.models import engines
from specbench.models.load import pick_device
from specbench.models.pair import ModelPair
from specbench.runner.measure import Arm
from specbench.schema.build import instantiate, locate
from specbench.schema.config import MethodConfig, RunConfig, missing_draft
from specbench.schema.result import BASELINE, METHOD


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


def build_arms(config: RunConfig) -> list[Arm]:
    """Return the baseline, where there is one, and the method."""
    arms = []
    if config.baseline is not None:
        arms.append(_arm(BASELINE, config.baseline))
    arms.append(_arm(METHOD, config.method))
    return arms


def load_for(config: RunConfig, arms: Sequence[Arm]) -> ModelPair:
    """Load the models that the arms need.

    Raises:
        ConfigError: If an arm needs something that the model entry lacks.
    """
    drafted = [arm for arm in arms if "draft" in arm.decoder.needs]
    if drafted and config.model.draft is None:
        raise missing_draft(drafted[0].name, drafted[0].method, config.model.name)
    return load_models(config, frozenset(need for arm in arms for need in arm.decoder.needs))


def load_models(config: RunConfig, needs: frozenset[str]) -> ModelPair:
    """Load the models of a run by its entry's own loader, under the run's law.

    The tokens of an image pair are numbers (`ModelPair.narrow`).

    Args:
        config: The run.
        needs: What the methods need of the models.

    Raises:
        ModelError: If the models cannot be loaded, or not run in the engine that is asked for.
    """
    model = config.model
    lean = model.engine != "transformers" and not model.device_map
    engines.check_engine(config.engine, pick_device(model.device), model.name, lean=lean)
    load = locate(str(config.model.loader["_target_"]))
    options = {key: value for key, value in config.model.loader.items() if key != "_target_"}
    scales = {key: getattr(config.sampling, key) for key in ("cfg_scale", "image_scale")}
    used = replace(model, sampling={**model.sampling, **scales})
    models: ModelPair = load(used, needs=needs, **options)
    engines.switch(models, config.engine)
    models.narrow()
    return models.under(target_law(config))


def prepare(arm: Arm, config: RunConfig, models: ModelPair) -> dict[str, str]:
    """Fit an arm to the loaded models; return digests of what it reads beside them.

    Raises:
        ConfigError: If a calibration or a datastore is missing or belongs to other models.
    """
    if arm.name == BASELINE and config.baseline is not None:
        config = replace(config, method=config.baseline)
    used = find_calibrations(config, arm.decoder, models, target_law(config))
    arm.decoder.prepare(models)
    return used | arm.decoder.inputs()


def _arm(name: str, method: MethodConfig) -> Arm:
    decoder: Decoder = instantiate(method.decoder)
    return Arm(name, method.name, decoder, method.exactness in ("exact", "greedy"))
