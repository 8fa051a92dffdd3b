"""`specbench compare`: set result files side by side, or refuse to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from specbench.cli import gating
from specbench.cli.console import emit, stdout
from specbench.cli.options import (
    SECTIONS,
    Allow,
    Csv,
    Files,
    Json,
    Markdown,
    Output,
    check_choice,
    check_formats,
)
from specbench.errors import UsageError


def compare(
    files: Files,
    by: Annotated[
        str, typer.Option("--by", metavar="task|category|overall", help="One section for each.")
    ] = "task",
    json: Json = False,
    markdown: Markdown = False,
    csv: Csv = None,
    output: Output = None,
    allow: Allow = None,
    explain: Annotated[
        str | None,
        typer.Option(
            "--explain",
            metavar="mal|speedup",
            help="Print every published definition of acceptance length, or of speedup, from the "
            "same measurements, and who uses which.",
        ),
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-on",
            metavar="METRIC:TOLERANCE",
            help="Gate: FILES are BASE and NEW; exit 1 where NEW is worse by more than this, such "
            "as nfe:1%, speedup_e2e:3%, fid:+0.5; repeatable.",
        ),
    ] = None,
    base: Annotated[
        list[Path] | None,
        typer.Option("--base", help="With --fail-on: a source of BASE; FILES are then all NEW."),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="With --fail-on: a rule that could see nothing fails too."),
    ] = False,
    gha: Annotated[
        bool, typer.Option("--gha", help="Write chart data and a step summary for GitHub Actions.")
    ] = False,
    gha_dir: Annotated[
        Path, typer.Option("--gha-dir", metavar="DIR", help="Where --gha writes its data files.")
    ] = Path("gha"),
) -> None:
    """Compare result files: speedup with its interval and noise floor, acceptance, quality.

    Files that were measured under different rulers (task, target law, dtype, device, scorer,
    baseline, model) are refused with exit code 3, unless --allow names what may differ. With
    --fail-on the two sources BASE and NEW are held against each other: exit 1 on a regression.
    """
    check_choice("--by", by, SECTIONS)
    check_formats(json, markdown, csv is not None, output)
    if strict and not fail_on:
        raise UsageError(
            "--strict has nothing to do", fix="Add a rule: --fail-on METRIC:TOLERANCE."
        )
    if base and not fail_on:
        raise UsageError("--base has nothing to do", fix="Add a rule: --fail-on METRIC:TOLERANCE.")
    if fail_on and (csv is not None or by != "task"):
        unfit = "--csv" if csv is not None else "--by"
        raise UsageError(f"{unfit} does not go with --fail-on", "a gate prints its own table")
    if explain and (csv is not None or fail_on or gha):
        raise UsageError("--explain stands alone", "it goes with --json, --markdown, --by, --allow")
    if fail_on:
        text, ending = gating.run(
            gating.sides(files, base or ()),
            fail_on,
            allow or (),
            gha_dir if gha else None,
            strict=strict,
            markdown=markdown,
            json=json,
        )
        if text is not None:
            emit(text, output)
        ending()
        return

    from specbench.compare import compare as compare_sets
    from specbench.report import csv as csv_report
    from specbench.report import json as json_report
    from specbench.report import markdown as markdown_report
    from specbench.report import table as table_report
    from specbench.store import read_many

    if explain:
        _explain(files, explain, by, allow or (), json, markdown, output)
        return
    comparison = compare_sets(read_many(files), by=by, allow=set(allow or ()))
    if csv is not None:
        emit(csv_report.render(comparison), csv)
    elif json:
        emit(json_report.render(comparison), output)
    elif markdown:
        emit(markdown_report.render(comparison), output)
    else:
        stdout().print(table_report.render(comparison, width=stdout().width))
    if gha:
        gating.write_for_actions(gha_dir, comparison, None)


def _explain(
    files: list[Path],
    topic: str,
    by: str,
    allow: Iterable[str],
    json: bool,
    markdown: bool,
    output: Path | None,
) -> None:
    from specbench.compare.explain import explain
    from specbench.report import explain as report
    from specbench.store import read_many

    explanation = explain(read_many(files), topic, by=by, allow=set(allow))
    if json:
        emit(report.as_json(explanation), output)
    elif markdown:
        emit(report.markdown(explanation), output)
    else:
        stdout().print(report.render(explanation, width=stdout().width))
