"""`specbench compare`: set result files side by side, or refuse to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specbench.cli.console import stdout
from specbench.errors import ResultsError, UsageError, did_you_mean

_BY = ("task", "category", "overall")


def compare(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES...", help="Result files, folders or patterns.")
    ],
    by: Annotated[
        str, typer.Option("--by", metavar="task|category|overall", help="One section for each.")
    ] = "task",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    csv: Annotated[
        str | None,
        typer.Option("--csv", metavar="PATH|-", help="Write CSV to a file, or - for stdout."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write what --json or --markdown prints to a file."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="KEY",
            help="Compare although KEY differs, with a banner; repeatable.",
        ),
    ] = None,
) -> None:
    """Compare result files: speedup with its interval and noise floor, acceptance, quality.

    Files that were measured under different rulers (task, target law, dtype, device, scorer,
    baseline, model) are refused with exit code 3, unless --allow names what may differ.
    """
    if by not in _BY:
        raise UsageError(
            f"--by cannot be '{by}'", f"it is one of {', '.join(_BY)}", did_you_mean(by, _BY)
        )
    if json + markdown + (csv is not None) > 1:
        raise UsageError("One format at a time", "--json, --markdown and --csv were given together")
    if output is not None and not (json or markdown):
        raise UsageError("--output has nothing to write", fix="Add --json or --markdown.")

    from specbench.compare import compare as compare_sets
    from specbench.report import csv as csv_report
    from specbench.report import json as json_report
    from specbench.report import markdown as markdown_report
    from specbench.report import table as table_report
    from specbench.store import read_many

    comparison = compare_sets(read_many(files), by=by, allow=set(allow or ()))
    if csv is not None:
        _emit(csv_report.render(comparison), None if csv == "-" else Path(csv))
    elif json:
        _emit(json_report.render(comparison), output)
    elif markdown:
        _emit(markdown_report.render(comparison), output)
    else:
        stdout().print(table_report.render(comparison, width=stdout().width))


def _emit(text: str, path: Path | None) -> None:
    if path is None:
        print(text, end="" if text.endswith("\n") else "\n")
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResultsError(
            f"Cannot write '{path}'", error.strerror or str(error), "Choose another file."
        ) from error
