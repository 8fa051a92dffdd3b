"""`specbench run`: measure one job, or a sweep of jobs, and print the comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specbench.cli.console import stderr, stdout
from specbench.cli.options import ConfigDir, Debug, check_choice, note_debug
from specbench.errors import JobsFailed, NotComparable, UsageError
from specbench.schema import catalog

if TYPE_CHECKING:
    from specbench.hosting import HostRequest, JobOutcome
    from specbench.schema.config import RunConfig
    from specbench.store import ResultSet

_MOST_ERRORS = 3
"""Different errors that are printed."""


def _complete(incomplete: str) -> list[str]:
    group, sign, start = incomplete.partition("=")
    groups = {name: name for name in ("method", "model", "task", "metric")}
    groups["baseline"] = "method"
    if not sign:
        return [f"{name}=" for name in groups if name.startswith(incomplete)]
    names = catalog.names(groups[group]) if group in groups else []
    return [f"{group}={name}" for name in names if name.startswith(start)]


def run(
    context: typer.Context,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="What differs from the default run, such as method=pld task=tiny_math "
            "task.limit=20 sampling.temperature=0.8. See docs/configuration.md.",
            autocompletion=_complete,
            show_default=False,
        ),
    ] = None,
    multirun: Annotated[
        bool, typer.Option("-m", "--multirun", help="Run every combination: method=token_sd,pld.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run and what it needs; load nothing.")
    ] = False,
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--fresh",
            help="Keep the finished measurements of the same job (default), or measure anew.",
            show_default=False,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    config_dir: ConfigDir = None,
    cfg: Annotated[
        str | None,
        typer.Option("--cfg", metavar="job|hydra|all", help="Print the configuration only."),
    ] = None,
    package: Annotated[
        str | None, typer.Option("--package", "-p", help="With --cfg: one part, such as method.")
    ] = None,
    resolve: Annotated[
        bool, typer.Option("--resolve", help="With --cfg: resolve the references.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Measure a decoding method against plain decoding.

    Without any KEY=VALUE it measures speculative sampling on the embedded text pair, which needs
    no network, no GPU and no account.
    """
    debug = note_debug(context, debug)
    words = list(overrides or ())
    if resume is not None:
        words.append(f"resume={str(resume).lower()}")
    if quiet:
        words.append("progress=false")

    from specbench import hosting

    request = hosting.HostRequest(tuple(words), multirun, config_dir)
    if cfg is not None:
        _print_config(request, cfg, package, resolve)
    elif dry_run:
        print_plan(hosting.compose_jobs(request))
    else:
        finish(hosting.run(request), show_traceback=debug)


def _print_config(request: HostRequest, kind: str, package: str | None, resolve: bool) -> None:
    from specbench import hosting

    check_choice("--cfg", kind, ("job", "hydra", "all"))
    if request.multirun:
        raise UsageError("--cfg prints one job, not a sweep", fix="Leave out -m.")
    hosting.show_config(request, kind, package, resolve)


def finish(outcomes: Sequence[JobOutcome], show_traceback: bool = False) -> None:
    """Print the comparison and the result files; raise what stopped or failed.

    Raises:
        SpecbenchError: What stopped the only job of a plain run.
        JobsFailed: If a job of a sweep was stopped, or if samples failed.
    """
    if len(outcomes) == 1 and outcomes[0].error is not None:
        raise outcomes[0].error
    for outcome in outcomes:
        if outcome.reused:
            stderr().print(
                f"Nothing was measured: {outcome.path} holds this job already; "
                "--fresh measures it anew."
            )
    paths = [outcome.path for outcome in outcomes if outcome.path is not None]
    if paths:
        print_comparison(paths)
        for path in paths:
            print(path)
            sheet = path.with_suffix("") / "contact_sheet.png"
            if sheet.is_file():
                stderr().print(f"Its pictures lie beside it, side by side in {sheet}")
    stopped = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in stopped:
        assert outcome.error is not None
        stderr().print(f"stopped: {outcome.label}: {outcome.error.what}")
        if show_traceback and outcome.detail:
            stderr().print(outcome.detail)
    failed = sum(outcome.failed for outcome in outcomes)
    if stopped:
        first = stopped[0].error
        assert first is not None
        raise JobsFailed(
            f"{len(stopped)} of {len(outcomes)} jobs did not finish",
            first.what,
            f"{first.fix} The other jobs' results are kept: the same command does the rest.",
        )
    if failed:
        raise JobsFailed(
            f"{failed} samples failed",
            f"the table leaves them out{_errors(paths)}",
            "Mend that, then run the same command again: it measures what is missing.",
        )


def _errors(paths: Sequence[Path]) -> str:
    """Return the most frequent errors of some files, with how many measurements each stopped.

    Where a method has no other measurement, a warning below the table has said it.
    """
    from specbench.schema.result import METHOD
    from specbench.store import read_many

    counted: Counter[str] = Counter()
    for result in read_many(list(paths)):
        rows = result.read(["arm", "error"])
        arms, errors = rows["arm"].to_pylist(), rows["error"].to_pylist()
        if any(error is None and arm == METHOD for arm, error in zip(arms, errors, strict=True)):
            counted.update(error for error in errors if error)
    own = {error: n for error, n in counted.items() if not error.startswith("no history: ")}
    most = Counter(own).most_common(_MOST_ERRORS)
    more = f"; and {len(own) - len(most)} other errors" if len(own) > len(most) else ""
    said = "".join(f"; {error} ({number} times)" for error, number in most) + more
    return said or " and says why"


def print_comparison(paths: Sequence[Path]) -> None:
    """Print one table over all files, or one for each group that shares a ruler.

    A sweep over models, sampling or limits measures under several rulers on purpose; what shares a
    ruler is set side by side, the rest stands apart.
    """
    from specbench.compare import compare
    from specbench.report import table
    from specbench.store import read_many

    comparisons = [compare(group) for group in _comparable(read_many(list(paths)))]
    for number, comparison in enumerate(comparisons):
        if number:
            stdout().print()
        stdout().print(table.render(comparison, width=stdout().width))


def _comparable(results: Sequence[ResultSet]) -> list[list[ResultSet]]:
    """Return the files in groups that may stand side by side, in order of their first files."""
    from specbench.compare.comparability import check_comparable

    groups: list[list[ResultSet]] = []
    for result in results:
        for group in groups:
            try:
                check_comparable([*group, result], ())
            except NotComparable:
                continue
            group.append(result)
            break
        else:
            groups.append([result])
    return groups


def print_plan(jobs: Sequence[tuple[str, RunConfig]]) -> None:
    """Print every job as a YAML document, with what it would run and need as comments."""
    import yaml

    for label, config in jobs:
        print("---")
        for line in _plan(label, config):
            print(f"# {line}")
        print(yaml.safe_dump(_plain(config.to_dict()), sort_keys=False, allow_unicode=True), end="")


def _plan(label: str, config: RunConfig) -> list[str]:
    model, task = config.model, config.task
    against = f" against {config.baseline.name}" if config.baseline else " without a baseline"
    samples = f"the first {task.limit} samples" if task.limit else "every sample"
    if model.target.startswith("embedded:"):
        need = "nothing to fetch: the model ships with the package"
    elif model.weights_gb is None:
        need = f"the weights of {model.target}" + (f" and {model.draft}" if model.draft else "")
    else:
        need = (
            f"about {model.weights_gb:g} GB of disk for the weights, unless they are cached, and "
            f"as much memory in 16-bit numbers (twice that in 32-bit), and the cache beside it"
        )
    processes = config.timing.processes
    often = f"{config.timing.repeats} repeats after {config.timing.warmup} warm-ups"
    if processes > 1:
        often += f", in each of {processes} fresh processes"
    measures = []
    if config.metric and config.score and config.pictures:
        measures.append(f"measures: {', '.join(metric.name for metric in config.metric)}")
    return [
        f"job: {label}",
        f"runs: {config.method.name} ({config.method.exactness}){against}, {samples} of "
        f"{task.name}, {often}",
        f"model: {model.target}"
        + (f" with the draft {model.draft}" if model.draft else "")
        + (f" with the head {model.head}" if model.head else ""),
        *measures,
        f"needs: {need}",
        f"writes: {config.results_dir}/",
    ]


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
