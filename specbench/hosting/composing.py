"""Compose configurations by Hydra, and say in three short parts what Hydra says in a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from specbench.compare.registry import METRICS
from specbench.errors import ConfigError, UsageError
from specbench.paths import conf_dir
from specbench.schema import catalog
from specbench.schema.config import RunConfig
from specbench.schema.group import unknown_key
from specbench.schema.metric import derived

CONFIG_NAME = "config"
"""The project's own configuration in `conf/`."""

RENAMED = {"engine": "execution"}
"""Keys that have another name than they had."""

_GROUPS = {
    CONFIG_NAME: ("method", "model", "task", "metric"),
    "train": ("recipe", "model", "task"),
}
"""Groups of entries that each of the project's own configurations chooses from."""

NOT_COMPOSED = (HydraException, OmegaConfBaseException, yaml.YAMLError, RecursionError)
"""What composing raises; `explain` says it in words."""


@dataclass(frozen=True)
class HostRequest:
    """What the user asked of Hydra.

    Attributes:
        overrides: KEY=VALUE words, in order.
        multirun: Whether comma-separated values span a sweep.
        config_dir: Another folder with configuration groups, or None.
        config_name: The project's own configuration in `conf/` that is composed.
    """

    overrides: tuple[str, ...] = ()
    multirun: bool = False
    config_dir: Path | None = None
    config_name: str = CONFIG_NAME

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of entries that it chooses from."""
        return _GROUPS[self.config_name]


def named(request: HostRequest, group: str) -> list[Mapping[str, Any]]:
    """Return the entries of a group that the words name; none where one of them is unknown."""
    words = dict(word.partition("=")[::2] for word in request.overrides)
    if group not in words:
        return []
    folders = folders_of(request)
    known = catalog.names(group, folders)
    names = words[group].split(",") if request.multirun else [words[group]]
    if not all(name in known for name in names):
        return []
    return [catalog.load(group, name, folders) for name in names]


def with_models_task(request: HostRequest) -> HostRequest:
    """Return the request with the model's own task where the command names none.

    Prompts of text say nothing to a model of pictures. A sweep gets a task only where all of its
    models have the same.
    """
    if any(word.startswith("task=") for word in request.overrides):
        return request
    tasks = {entry.get("task") for entry in named(request, "model")}
    if len(tasks) != 1 or None in tasks:
        return request
    return replace(request, overrides=(*request.overrides, f"task={tasks.pop()}"))


def with_method_keys(request: HostRequest) -> HostRequest:
    """Return the request with a method's own parameters named in full.

    `method=synthetic acceptance=0.8` says no less than `method.acceptance=0.8`. A key of the run
    comes first, and in a sweep all methods must have the parameter.
    """
    methods = [set(entry.get("parameters") or ()) for entry in named(request, "method")]
    if not methods:
        return request
    shared = set.intersection(*methods) - {field.name for field in fields(RunConfig)}
    overrides = (
        f"method.{word}" if word.partition("=")[0] in shared else word for word in request.overrides
    )
    return replace(request, overrides=tuple(overrides))


def completed(request: HostRequest) -> HostRequest:
    """Return the request with what its words imply."""
    return with_models_task(with_method_keys(request))


@contextmanager
def composer(request: HostRequest) -> Iterator[None]:
    """Open Hydra's compose API on the project's configuration."""
    if request.config_dir is not None and not request.config_dir.is_dir():
        raise UsageError(
            f"There is no folder '{request.config_dir}'",
            "--config-dir names a folder that holds method/, model/ or task/",
            "Correct the path.",
        )
    if request.config_dir is not None:
        catalog.check_bounds(request.config_dir, (*request.groups, "hydra"))
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
            try:
                yield
            except (*NOT_COMPOSED, ValueError) as error:
                raise explain(error, request) from error
    finally:
        GlobalHydra.instance().clear()


def composed(overrides: Sequence[str], request: HostRequest) -> DictConfig:
    """Return the configuration of one job with Hydra's own part; inside of `composer`."""
    folders = [f'"file://{folder}"' for folder in folders_of(request)]
    search = [f"hydra.searchpath=[{','.join(folders)}]"] if folders else []
    words = [*search, *overrides]
    return compose(config_name=request.config_name, overrides=words, return_hydra_config=True)


def choices_of(config: DictConfig) -> Mapping[str, Any]:
    """Return which entry was chosen of each group, of a configuration with Hydra's own part."""
    choices: Mapping[str, Any] = config.hydra.runtime.choices
    return choices


def expand(request: HostRequest) -> list[tuple[str, ...]]:
    """Return the overrides of every job of a sweep; one job where there is no sweep.

    Another sweeper than Hydra's basic one chooses its jobs as it goes: only the fixed overrides
    are checked beforehand then.
    """
    if not request.multirun:
        return [request.overrides]
    if any(word.startswith("hydra/sweeper=") for word in request.overrides):
        return [tuple(word for word in request.overrides if "(" not in word and "," not in word)]
    loader = GlobalHydra.instance().config_loader()
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(request.overrides))
    batches = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [tuple(job) for batch in batches for job in batch]


def swept_keys(jobs: Sequence[tuple[str, ...]]) -> set[str]:
    """Return the keys whose overrides differ between the jobs of a sweep."""
    words = [word for job in jobs for word in job]
    return {word.partition("=")[0] for word in words if words.count(word) < len(jobs)}


def folders_of(request: HostRequest) -> list[Path]:
    """Return the user's own folders of configuration groups."""
    return [request.config_dir.resolve()] if request.config_dir is not None else []


def explain(error: Exception, request: HostRequest) -> ConfigError:
    """Say in three short parts what Hydra says in a page."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if group == "metric" and name in METRICS:
            return derived(name)
        if group in request.groups:
            return catalog.unknown_entry(group, name, _entries(group, request))
    if isinstance(error, OverrideParseException):
        return _bad_word(error.override, request)
    if isinstance(error, (yaml.YAMLError, RecursionError)):
        mark = getattr(error, "problem_mark", None)
        return catalog.not_yaml(mark.name if mark else request.config_dir or conf_dir(), error)
    text = str(error)
    if isinstance(error, ConfigCompositionException) and "Could not override '" in text:
        key = text.split("Could not override '", 1)[1].split("'", 1)[0].partition("@")[0]
        return _unknown_override(key.replace("/", "."), request)
    if text.startswith("Ambiguous value for argument '"):
        key, _, value = text.split("'")[1].partition("=")
        return ConfigError(
            f"'{key}={value}' names several values",
            "several values make a sweep, one job for each",
            f"Add -m to run the sweep, or quote it where it is one value: {key}='\"{value}\"'.",
        )
    nulls = [
        word for word in request.overrides if word in {f"{group}=null" for group in request.groups}
    ]
    if isinstance(error, ValueError) and nulls:
        group = nulls[0].partition("=")[0]
        return ConfigError(
            f"'{group}' cannot be null",
            f"it is the name of a {group}",
            "Write metric=[] to measure nothing of the pictures."
            if group == "metric"
            else f"See 'specbench list {group}s'.",
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ConfigError(
        "The configuration cannot be composed",
        lines[0] if lines else type(error).__name__,
        "See docs/configuration.md for every key.",
    )


def _entries(group: str, request: HostRequest) -> list[str]:
    """Return the names that a group's key can be set to."""
    folders = folders_of(request)
    found = catalog.names(group, folders)
    if group != "metric":
        return found
    return [name for name in found if "metric" in catalog.load(group, name, folders)]


def _bad_word(word: str, request: HostRequest) -> ConfigError:
    if "=" not in word and not word.startswith("~"):
        return ConfigError(
            f"'{word}' is not an override",
            "an override is KEY=VALUE",
            f"Write KEY={word}, such as method={word}."
            if any(word in catalog.names(group, folders_of(request)) for group in request.groups)
            else "Write KEY=VALUE, such as method=pld.",
        )
    key, _, value = word.partition("=")
    return ConfigError(
        f"The value of '{key}' cannot be read: {value}",
        "commas, brackets, spaces and quotes have a meaning in an override",
        f"Quote it twice, such as '{key}=\"{value.strip(chr(34))}\"'.",
    )


def _unknown_override(key: str, request: HostRequest) -> ConfigError:
    """Return the error for a key that does not exist, with its nearest neighbour."""
    chosen = [
        word.partition(",")[0]
        for word in request.overrides
        if word.partition("=")[0] in request.groups
    ]
    if key.startswith("metric.") and not any(word.startswith("metric=") for word in chosen):
        name = key.split(".")[1]
        return ConfigError(
            f"'{key}' sets a metric that is not chosen",
            "a metric's own keys can be set where the metric is named",
            f"Add metric={name}, or metric=[{name},...] for several.",
        )
    path: list[str] = []
    known: list[str] = []
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
            node: Any = composed(chosen, request)
            for part in key.split("."):
                if not isinstance(node, DictConfig) or part not in node:
                    break
                path.append(part)
                node = node[part]
            known = [str(name) for name in node] if isinstance(node, DictConfig) else []
            if not path:
                known = [
                    *(name for name in known if name not in ("hydra", *request.groups)),
                    *request.groups,
                ]
    except NOT_COMPOSED:
        path = []
    if not path and key in RENAMED:
        return ConfigError(
            f"The key '{key}' is now '{RENAMED[key]}'",
            "model.engine says whose code computes a forward, execution how it is run",
            f"Write {RENAMED[key]}= instead.",
        )
    unknown = key.split(".")[len(path)] if len(path) < len(key.split(".")) else key
    if not known:
        return ConfigError(
            f"Unknown key '{key}'",
            f"'{'.'.join(path)}' is a single value" if path else "",
            "See docs/configuration.md for every key.",
        )
    error = unknown_key(".".join(path), unknown, known)
    if not path or not error.fix.startswith("Remove"):
        return error
    return ConfigError(
        error.what, error.why, f"Remove it, or add a key that the file leaves out with +{key}=."
    )
