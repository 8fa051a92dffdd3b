"""Everything that specbench asks of Hydra, and the only module that imports it.

A run goes through `hydra.main`, because the compose API knows no sweeps, launchers or runtime
information. Before that, every job of the run is composed and validated here, so that a mistyped
key is one short error and never a sweep that stops half way. The job function is module-level:
launchers pickle it by name.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from specbench import errors
from specbench.errors import ConfigError, ResultsError, SpecbenchError, UsageError
from specbench.paths import conf_dir
from specbench.schema import catalog
from specbench.schema.config import RunConfig, check_capabilities
from specbench.schema.reading import unknown_key
from specbench.tasks.config import TaskConfig

_GROUPS = ("method", "model", "task")
_CONFIG_NAME = "config"


@dataclass(frozen=True)
class HostRequest:
    """What the user asked of Hydra.

    Attributes:
        overrides: KEY=VALUE words, in order.
        multirun: Whether comma-separated values span a sweep.
        config_dir: Another folder with configuration groups, or None.
    """

    overrides: tuple[str, ...] = ()
    multirun: bool = False
    config_dir: Path | None = None


class JobOutcome(NamedTuple):
    """How one job ended.

    Attributes:
        label: The job's overrides, as its name in messages.
        path: Its result file, or None where it has none.
        failed: Number of samples that failed.
        error: What stopped the job, or None.
        detail: Traceback of an error that is a bug, else empty.
        reused: Whether the result file was there already and nothing was measured.
    """

    label: str
    path: Path | None
    failed: int
    error: SpecbenchError | None
    detail: str = ""
    reused: bool = False


def run(request: HostRequest) -> list[JobOutcome]:
    """Run every job of the request and return how each ended.

    Raises:
        ConfigError: If a job's configuration is not valid; nothing has run then.
        KeyboardInterrupt: If the user interrupts; finished measurements are kept.
    """
    jobs = compose_jobs(request)
    _finished.clear()
    if not request.multirun:
        _call_hydra(request)
        outcomes = list(_finished)
    else:
        folder = _sweep_folder(request, jobs[0][1].results_dir)
        _call_hydra(request, ["--multirun"], [f'hydra.sweep.dir="{folder}"'])
        outcomes = _collect(folder)
    named = [
        outcome._replace(label=label) for (label, _), outcome in zip(jobs, outcomes, strict=False)
    ]
    return named + outcomes[len(named) :]


def show_config(request: HostRequest, kind: str, package: str | None, resolve: bool) -> None:
    """Print a configuration as Hydra composes it: `kind` is "job", "hydra" or "all"."""
    flags = ["--cfg", kind]
    if package:
        flags += ["--package", package]
    if resolve:
        flags.append("--resolve")
    _call_hydra(request, flags)


def compose_jobs(request: HostRequest) -> list[tuple[str, RunConfig]]:
    """Compose and validate every job of a request without running any.

    Returns:
        For each job its label (the overrides that tell it apart) and its configuration.

    Raises:
        ConfigError: If a name, a key or a value is not valid.
    """
    with _composer(request):
        jobs = _expand(request)
        configs = [_composed(job, request) for job in jobs]
        folders = _folders(request)
    swept = _swept_keys(jobs)
    composed = []
    for job, config in zip(jobs, configs, strict=True):
        run_config = read_config(config, folders)
        check_capabilities(run_config)
        TaskConfig.from_dict(run_config.task)
        label = " ".join(word for word in job if word.partition("=")[0] in swept)
        composed.append((label or run_config.method.name, run_config))
    return composed


def read_config(config: DictConfig, folders: Sequence[Path] = ()) -> RunConfig:
    """Turn a composed configuration into a validated `RunConfig`.

    Args:
        config: What Hydra composed.
        folders: Other folders that may hold the baseline's file.

    Raises:
        ConfigError: If an interpolation, a key or a value is not valid.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise ConfigError(
            "The configuration cannot be resolved", " ".join(str(error).split())
        ) from error
    assert isinstance(plain, dict)
    values = {str(key): value for key, value in plain.items() if key != "hydra"}
    baseline = values.get("baseline")
    if baseline is not None:
        values["baseline"] = load_method(str(baseline), folders)
    return RunConfig.from_dict(values)


def load_method(name: str, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Return a method's node with its own interpolations resolved.

    Raises:
        ConfigError: If there is no such method.
    """
    node = OmegaConf.create({"method": catalog.load("method", name, folders)})
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)
    return dict(plain["method"])


_finished: list[JobOutcome] = []


def _job(config: DictConfig) -> JobOutcome:
    """Run one job; Hydra and its launchers call this, in this process or in another."""
    from specbench.runner import run_job

    about = HydraConfig.get()
    folders = [
        Path(source.path) for source in about.runtime.config_sources if source.schema == "file"
    ]
    try:
        result = run_job(read_config(config, folders))
        outcome = JobOutcome("", result.path, result.failed, None, reused=result.reused)
    except SpecbenchError as error:
        outcome = JobOutcome("", None, 0, error)
    except Exception as error:
        bug = SpecbenchError(
            f"{type(error).__name__}: {error}",
            "this is a bug in specbench or in a part that the configuration names",
            "Run the command again with --debug to see where.",
        )
        bug.__cause__ = error
        outcome = JobOutcome("", None, 0, bug, traceback.format_exc())
    if about.mode == RunMode.MULTIRUN:
        _hand_over(outcome, Path(about.sweep.dir), int(about.job.num))
    else:
        _finished.append(outcome)
    return outcome


def _sweep_folder(request: HostRequest, results_dir: Path) -> Path:
    """Return the folder in which the jobs of this sweep, in any process, leave their outcomes."""
    named = [word for word in request.overrides if word.startswith("hydra.sweep.dir=")]
    if named:
        return Path(named[-1].partition("=")[2].strip("\"'"))
    return (results_dir / ".sweep" / uuid.uuid4().hex[:12]).absolute()


def _hand_over(outcome: JobOutcome, folder: Path, number: int) -> None:
    error = outcome.error
    plain = {
        "path": str(outcome.path) if outcome.path else None,
        "failed": outcome.failed,
        "error": [type(error).__name__, error.what, error.why, error.fix] if error else None,
        "detail": outcome.detail,
        "reused": outcome.reused,
    }
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{number:06d}.json"
    temporary.write_text(json.dumps(plain), encoding="utf-8")
    temporary.replace(folder / f"{number:06d}.json")


def _collect(folder: Path) -> list[JobOutcome]:
    """Read what the jobs handed over, in order, and remove the folder where all is well."""
    outcomes = []
    for file in sorted(folder.glob("[0-9]*.json")):
        plain = json.loads(file.read_text(encoding="utf-8"))
        error = None
        if plain["error"] is not None:
            kind, *parts = plain["error"]
            error = getattr(errors, kind)(*parts)
        path = Path(plain["path"]) if plain["path"] else None
        outcomes.append(
            JobOutcome("", path, plain["failed"], error, plain["detail"], plain["reused"])
        )
    if outcomes and all(outcome.error is None for outcome in outcomes):
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()
    return outcomes


def _call_hydra(request: HostRequest, flags: Sequence[str] = (), extra: Sequence[str] = ()) -> None:
    """Call `hydra.main` with a command line of flags first and overrides after them."""
    if request.config_dir is not None:
        flags = [*flags, "--config-dir", str(request.config_dir)]
    arguments = ["specbench", *flags, *extra, *request.overrides]
    before = sys.argv
    sys.argv = arguments
    os.environ["HYDRA_FULL_ERROR"] = "1"
    GlobalHydra.instance().clear()
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=_CONFIG_NAME)(
            _job
        )()
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error, request) from error
    except OSError as error:
        raise ResultsError(
            "The results folder cannot be written",
            f"{error.strerror or error}: '{error.filename}'",
            "Free some space, or choose another folder with results_dir=FOLDER.",
        ) from error
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()


@contextmanager
def _composer(request: HostRequest) -> Iterator[None]:
    """Open Hydra's compose API on the project's configuration."""
    if request.config_dir is not None and not request.config_dir.is_dir():
        raise UsageError(
            f"There is no folder '{request.config_dir}'",
            "--config-dir names a folder that holds method/, model/ or task/",
            "Correct the path.",
        )
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
            try:
                yield
            except (HydraException, OmegaConfBaseException) as error:
                raise _explain(error, request) from error
    finally:
        GlobalHydra.instance().clear()


def _composed(overrides: Sequence[str], request: HostRequest) -> DictConfig:
    folders = [f'"file://{folder}"' for folder in _folders(request)]
    search = [f"hydra.searchpath=[{','.join(folders)}]"] if folders else []
    return compose(config_name=_CONFIG_NAME, overrides=[*search, *overrides])


def _expand(request: HostRequest) -> list[tuple[str, ...]]:
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


def _swept_keys(jobs: Sequence[tuple[str, ...]]) -> set[str]:
    words = [word for job in jobs for word in job]
    return {word.partition("=")[0] for word in words if words.count(word) < len(jobs)}


def _folders(request: HostRequest) -> list[Path]:
    return [request.config_dir.resolve()] if request.config_dir is not None else []


def _explain(error: Exception, request: HostRequest) -> ConfigError:
    """Say in three short parts what Hydra says in a page."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if group in _GROUPS:
            return catalog.unknown_entry(group, name, catalog.names(group, _folders(request)))
    if isinstance(error, OverrideParseException):
        return _bad_word(error.override, request)
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
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ConfigError(
        "The configuration cannot be composed",
        lines[0] if lines else type(error).__name__,
        "See docs/configuration.md for every key.",
    )


def _bad_word(word: str, request: HostRequest) -> ConfigError:
    if "=" not in word and not word.startswith("~"):
        return ConfigError(
            f"'{word}' is not an override",
            "an override is KEY=VALUE",
            f"Write KEY={word}, such as method={word}."
            if any(word in catalog.names(group, _folders(request)) for group in _GROUPS)
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
        word.partition(",")[0] for word in request.overrides if word.partition("=")[0] in _GROUPS
    ]
    path: list[str] = []
    known: list[str] = []
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
            node: Any = _composed(chosen, request)
            for part in key.split("."):
                if not isinstance(node, DictConfig) or part not in node:
                    break
                path.append(part)
                node = node[part]
            known = [str(name) for name in node] if isinstance(node, DictConfig) else []
    except (HydraException, OmegaConfBaseException):
        path = []
    unknown = key.split(".")[len(path)] if len(path) < len(key.split(".")) else key
    if not known:
        return ConfigError(
            f"Unknown key '{key}'",
            f"'{'.'.join(path)}' is a single value" if path else "",
            "See docs/configuration.md for every key.",
        )
    return unknown_key(".".join(path), unknown, known)
