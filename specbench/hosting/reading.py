"""From what Hydra composed to a validated configuration."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from specbench.errors import ConfigError
from specbench.schema import catalog
from specbench.schema.config import RunConfig
from specbench.schema.group import unknown_key


def read_config(
    config: DictConfig, choices: Mapping[str, Any], folders: Sequence[Path] = ()
) -> RunConfig:
    """Turn a composed configuration into a validated `RunConfig`.

    Args:
        config: What Hydra composed.
        choices: Which entry was chosen of each group, as Hydra records it.
        folders: Other folders that may hold the baseline's or a metric's file.

    Raises:
        ConfigError: If an interpolation, a key or a value is not valid.
    """
    own = [str(key) for key in config if key != "hydra"]
    try:
        chosen = OmegaConf.masked_copy(config, own)
        fill(chosen.method, chosen.model)
        plain = OmegaConf.to_container(chosen, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise ConfigError(
            "The configuration cannot be resolved", " ".join(str(error).split())
        ) from error
    assert isinstance(plain, dict)
    values = {str(key): value for key, value in plain.items()}
    baseline = values.get("baseline")
    if baseline is not None:
        values["baseline"] = load_method(str(baseline), folders, values["model"])
    values["metric"] = _metrics(values, choices, folders)
    return RunConfig.from_dict(values)


def load_method(
    name: str, folders: Sequence[Path] = (), model: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a method's node with its own interpolations resolved.

    Raises:
        ConfigError: If there is no such method.
    """
    entry = dict(catalog.load("method", name, folders))
    fill(entry, model or {})
    return dict(_resolved({"method": entry})["method"])


def fill(method: MutableMapping[Any, Any], model: Mapping[Any, Any]) -> None:
    """Give a method the model's own values of parameters that are null.

    Args:
        method: The method's node; changed in place.
        model: The model's node, whose `methods` holds values by method and parameter.

    Raises:
        ConfigError: If the model names a parameter that the method lacks.
    """
    known = model.get("methods") if "methods" in model else None
    for key, value in ((known or {}).get(method.get("name")) or {}).items():
        if key not in method:
            raise unknown_key(f"model.methods.{method['name']}", key, list(method))
        if method[key] is None:
            method[key] = value


def load_metric(name: str, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Return a metric's node with its own interpolations resolved.

    Raises:
        ConfigError: If there is no such metric.
    """
    entry = catalog.load("metric", name, folders)
    return dict(_resolved({"metric": {name: entry}})["metric"][name])


def _resolved(node: Mapping[str, Any]) -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.create(dict(node)), resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _metrics(
    values: Mapping[str, Any], choices: Mapping[str, Any], folders: Sequence[Path]
) -> dict[str, Any]:
    """Return the nodes of the chosen metrics by name: the task's own where none was chosen.

    Hydra records the default (null) as a choice and an empty list (`metric=[]`) as none.
    """
    chosen = values.get("metric")
    if chosen:
        if not isinstance(chosen.get("name"), str):
            return dict(chosen)
        if "metric" not in chosen:
            return {chosen["name"]: chosen}
        raise ConfigError(
            f"The file of the metric '{chosen['name']}' lacks its first line",
            "without it Hydra cannot set several metrics side by side",
            f"Begin the file with '# @package metric.{chosen['name']}'.",
        )
    task = values.get("task")
    if "metric" not in choices or not isinstance(task, Mapping):
        return {}
    return {str(name): load_metric(str(name), folders) for name in task.get("metrics") or ()}
