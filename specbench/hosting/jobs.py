"""Run the jobs of a request through `hydra.main`, and collect how each ended.

The compose API knows no sweeps, launchers or runtime information; so every job is composed and
validated first, and then Hydra runs them, in this process or in others.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from specbench import errors
from specbench.bounded import replacing
from specbench.errors import ResultsError, SpecbenchError
from specbench.hosting.composing import (
    CONFIG_NAME,
    NOT_COMPOSED,
    HostRequest,
    choices_of,
    completed,
    composed,
    composer,
    expand,
    explain,
    folders_of,
    swept_keys,
)
from specbench.hosting.reading import read_config
from specbench.paths import conf_dir
from specbench.schema.config import RunConfig, check_capabilities


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
    request = completed(request)
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
    request = completed(request)
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
    request = completed(request)
    with composer(request):
        jobs = expand(request)
        configs = [composed(job, request) for job in jobs]
        folders = folders_of(request)
    swept = swept_keys(jobs)
    ready = []
    for job, config in zip(jobs, configs, strict=True):
        run_config = read_config(config, choices_of(config), folders)
        check_capabilities(run_config)
        label = " ".join(word for word in job if word.partition("=")[0] in swept)
        ready.append((label or run_config.method.name, run_config))
    return ready


_finished: list[JobOutcome] = []


def _job(config: DictConfig) -> JobOutcome:
    """Run one job; Hydra and its launchers call this, in this process or in another."""
    from specbench.runner import run_job

    about = HydraConfig.get()
    folders = [
        Path(source.path) for source in about.runtime.config_sources if source.schema == "file"
    ]
    try:
        result = run_job(read_config(config, about.runtime.choices, folders))
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
    plain = outcome._asdict() | {
        "path": str(outcome.path) if outcome.path else None,
        "error": [type(error).__name__, error.what, error.why, error.fix] if error else None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / f"{number:06d}.json") as temporary:
        temporary.write_text(json.dumps(plain), encoding="utf-8")


def _collect(folder: Path) -> list[JobOutcome]:
    """Read what the jobs handed over, in order, and remove the folder where all is well."""
    outcomes = []
    for file in sorted(folder.glob("[0-9]*.json")):
        plain = json.loads(file.read_text(encoding="utf-8"))
        if plain["error"]:
            kind, *parts = plain["error"]
            plain["error"] = getattr(errors, kind)(*parts)
        outcomes.append(JobOutcome(**plain | {"path": plain["path"] and Path(plain["path"])}))
    if outcomes and all(outcome.error is None for outcome in outcomes):
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()
    return outcomes


def _call_hydra(request: HostRequest, flags: Sequence[str] = (), extra: Sequence[str] = ()) -> None:
    """Call `hydra.main` with a command line of flags first and overrides after them.

    The subcommand is part of the program's name: Hydra would take it for an override, and a result
    file records these words.
    """
    if request.config_dir is not None:
        flags = [*flags, "--config-dir", str(request.config_dir)]
    arguments = ["specbench run", *flags, *extra, *request.overrides]
    before = sys.argv
    sys.argv = arguments
    os.environ["HYDRA_FULL_ERROR"] = "1"
    GlobalHydra.instance().clear()
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=CONFIG_NAME)(_job)()
    except NOT_COMPOSED as error:
        raise explain(error, request) from error
    except OSError as error:
        raise ResultsError(
            "The results folder cannot be written",
            f"{error.strerror or error}: '{error.filename}'",
            "Free some space, or choose another folder with results_dir=FOLDER.",
        ) from error
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()
