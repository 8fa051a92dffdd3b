"""`specbench import`: published raw outputs to result files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specbench.cli.console import print_json, print_table, stderr
from specbench.cli.options import Json
from specbench.errors import UsageError

if TYPE_CHECKING:
    from specbench.importing import Imported


def import_files(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES...", help="Answer files or benchmark results, plain or gzipped."
        ),
    ],
    results_dir: Annotated[
        Path, typer.Option("--results-dir", help="Folder of the result files.")
    ] = Path("results"),
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="auto, spec_bench, eagle, medusa, rest, vllm_bench, sglang_bench, aiperf, "
            "openai_chat or sglang_generate.",
        ),
    ] = "auto",
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline",
            metavar="FILE",
            help="The file of plain decoding; found by its one token a step where it is not named.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The target model, where it is not recorded.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="The task, where it is not recorded.")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="The method, where it is not recorded.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="The device that the numbers come from.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="The compute dtype, where it is not recorded.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature", min=0.0, help="The target law's temperature, where it is not recorded."
        ),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Leave lines out that cannot be read, and count them."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Turn published raw outputs into result files that compare and report can read.

    Give a baseline's file and methods' files together: each method becomes a result file with the
    baseline's rows beside it. What a source does not record stays empty and is said.
    """
    from specbench.importing import Stated, plan, write
    from specbench.secrets import scrub_command

    for name, value in (("model", model), ("task", task), ("method", method), ("device", device)):
        if value is not None and not value.strip():
            raise UsageError(f"--{name} is empty", fix=f"Give --{name} a name, or leave it out.")
    stated = Stated(model, task, method, device, dtype, temperature)
    command = scrub_command(sys.argv)
    planned = plan(files, stated, format_name, baseline, skip_bad, command)
    if not dry_run:
        planned = write(planned, results_dir)
    if json:
        print_json([_plain(each) for each in planned])
        return
    headers = ["Method", "Baseline", "Samples", "Failed", "Temperature", "Task", "Model"]
    print_table(headers, [_line(each) for each in planned])
    _explain(planned)
    for each in planned:
        where = f"{each.stem}.parquet" if each.path is None else str(each.path)
        stderr().print(f"{'Would write' if dry_run else 'Wrote'} {where}")


def _line(each: Imported) -> list[str]:
    about = each.metadata
    return [
        about.method.name,
        about.baseline.name if about.baseline else "-",
        str(_samples(each)),
        str(_failed(each)),
        "unknown" if about.temperature is None else f"{about.temperature:g}",
        about.task,
        about.model,
    ]


def _samples(each: Imported) -> int:
    return len({answer.sample_id for answer in each.source.answers})


def _failed(each: Imported) -> int:
    return sum(row["error"] is not None for row in each.rows)


def _explain(planned: Sequence[Imported]) -> None:
    """Say on stderr what is odd and what is not known; what all files share is said once."""
    from rich.padding import Padding
    from rich.text import Text

    console = stderr()
    for title, key in (("Read otherwise than written", "odd"), ("Not recorded", "unknown")):
        said: dict[str, list[str]] = {}
        for each in planned:
            for sentence in each.metadata.source[key]:
                said.setdefault(sentence, []).append(each.metadata.method.name)
        if said:
            console.print(f"\n{title}:")
        for sentence, names in said.items():
            whose = "" if len(names) == len(planned) else f"{', '.join(dict.fromkeys(names))}: "
            console.print(Padding(Text(f"- {whose}{sentence}"), (0, 0, 0, 2), expand=False))
    for each in planned:
        same, both = each.same_answers
        if both:
            console.print(
                f"\n{each.metadata.method.name}: {same} of {both} answers are the baseline's, "
                "letter by letter."
            )


def _plain(each: Imported) -> dict[str, Any]:
    about = each.metadata
    return {
        "path": None if each.path is None else str(each.path),
        "method": about.method.name,
        "baseline": about.baseline.name if about.baseline else None,
        "model": about.model,
        "task": about.task,
        "device": about.device,
        "dtype": about.dtype,
        "law": about.law,
        "samples": _samples(each),
        "rows": len(each.rows),
        "failed": _failed(each),
        "same_answers": each.same_answers[0],
        "answers_compared": each.same_answers[1],
        "source": dict(about.source),
    }
