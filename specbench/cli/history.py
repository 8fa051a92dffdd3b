"""`specbench history`: a metric over git revisions, from the result files of many runs."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specbench.cli.console import emit, stderr, stdout
from specbench.cli.options import Csv, Json, check_choice, check_formats
from specbench.errors import ResultsError, UsageError, did_you_mean

if TYPE_CHECKING:
    from specbench.store import ResultSet

_COMMIT = re.compile(r"[0-9a-f]{7,64}")


def history(
    results_dir: Annotated[
        Path,
        typer.Argument(
            metavar="RESULTS_DIR", help="Folder of result files; read with all of its folders."
        ),
    ] = Path("results"),
    metric: Annotated[
        str, typer.Option("--metric", help="Which metric; 'specbench list metrics' shows them.")
    ] = "speedup_e2e",
    method: Annotated[
        list[str] | None, typer.Option("--method", help="Only this method; repeatable.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", help="Only this task; repeatable.")
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            "--by", metavar="task|method", help="A series for each method and task, or pool tasks."
        ),
    ] = "task",
    repository: Annotated[
        Path, typer.Option("--repository", help="Git repository that knows when a commit was made.")
    ] = Path("."),
    json: Json = False,
    csv: Csv = None,
) -> None:
    """Draw a metric over git revisions, and mark where it became better or worse.

    Every result file says which commit measured it. Runs of one clean commit are pooled; a tree
    with uncommitted changes is a point of its own; without a commit the folder gives the name.
    """
    check_choice("--by", by, ("task", "method"))
    check_formats(json, False, csv is not None, None)

    from specbench.compare.history import history as follow
    from specbench.report import history as report

    results = _only(_read(results_dir), task or ())
    found = follow(
        results, metric, by, method or (), _commit_times(repository, results), results_dir
    )
    if json:
        print(report.to_json(found), end="")
    elif csv is not None:
        emit(report.csv(found), csv)
    else:
        console = stdout()
        console.print(report.render(found, width=console.width))


def _read(folder: Path) -> list[ResultSet]:
    """Read every result file below a folder; what is none is named on stderr."""
    from specbench.store import read_parquet

    if not folder.is_dir():
        raise ResultsError(
            f"There is no folder '{folder}'",
            "a history reads a folder with the result files of many runs",
            "Give the folder that `specbench run` wrote to.",
        )
    results = []
    for path in sorted(folder.rglob("*.parquet")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        try:
            results.append(read_parquet(path))
        except ResultsError as error:
            stderr().print(f"Left out: {error.what}: {error.why}")
    if not results:
        raise ResultsError(
            f"There are no result files below '{folder}'",
            "no file there that ends in .parquet is one",
            "Give another folder, or measure something with `specbench run`.",
        )
    return results


def _only(results: list[ResultSet], tasks: Iterable[str]) -> list[ResultSet]:
    names = sorted({result.metadata.task for result in results})
    wanted = list(tasks)
    for task in wanted:
        if task not in names:
            raise UsageError(
                f"No result file has the task '{task}'",
                f"there are: {', '.join(names)}",
                did_you_mean(task, names),
            )
    return [result for result in results if not wanted or result.metadata.task in wanted]


def _commit_times(repository: Path, results: Iterable[ResultSet]) -> dict[str, float]:
    """Return when each commit of some files was made, as far as the repository knows."""
    commits = set()
    for result in results:
        git = result.metadata.provenance.get("git")
        commit = str(git.get("revision") or "") if isinstance(git, dict) else ""
        if _COMMIT.fullmatch(commit):  # a file may say anything: only a hash goes to git
            commits.add(commit)
    times = {}
    for commit in sorted(commits):
        try:
            done = subprocess.run(
                ["git", "-C", str(repository), "show", "-s", "--format=%ct", commit, "--"],
                capture_output=True,
                text=True,
                timeout=10,
            )
            if done.returncode == 0:
                times[commit] = float(done.stdout.split()[-1])
        except (OSError, subprocess.SubprocessError, ValueError, IndexError):
            break
    return times
