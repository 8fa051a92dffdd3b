"""From the words of `specbench train` to a validated configuration."""

from __future__ import annotations

from dataclasses import replace

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from specbench.errors import ConfigError
from specbench.hosting.composing import HostRequest, composed, composer, named
from specbench.schema.recipe import TrainConfig

CONFIG_NAME = "train"


def compose_training(request: HostRequest) -> TrainConfig:
    """Compose and validate a training without running it.

    The prompts are those of the model's own training task, or of its own task, where the command
    names none.

    Raises:
        ConfigError: If a name, a key or a value is not valid.
    """
    request = replace(request, config_name=CONFIG_NAME)
    if not any(word.startswith("task=") for word in request.overrides):
        for entry in named(request, "model"):
            task = entry.get("training_task") or entry.get("task")
            if task is None:
                raise ConfigError(
                    f"The model '{entry['name']}' names no prompts to train on",
                    "what is trained learns from the target's answers to a task's prompts",
                    "Add task=NAME (specbench list tasks), with task.path=FILE for prompts of "
                    "your own.",
                )
            request = replace(request, overrides=(*request.overrides, f"task={task}"))
    with composer(request):
        config = composed(request.overrides, request)
    try:
        own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        plain = OmegaConf.to_container(own, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise ConfigError(
            "The configuration cannot be resolved", " ".join(str(error).split())
        ) from error
    return TrainConfig.from_dict(plain)
