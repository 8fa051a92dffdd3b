"""`specbench report`: one self-contained page about some result files, plots and LaTeX tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specbench.cli.console import print_json, stderr
from specbench.cli.options import SECTIONS, Allow, Files, check_choice
from specbench.errors import UsageError


def report(
    files: Files,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The page; report.html if nothing else is asked."
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="task|category|overall",
            help="How the headline is broken down; overall: not at all.",
        ),
    ] = "category",
    allow: Allow = None,
    title: Annotated[
        str, typer.Option("--title", help="The page's title; else the models and tasks.")
    ] = "",
    plots: Annotated[
        Path | None,
        typer.Option("--plots", metavar="DIR", help="Write PNG and SVG plots for papers there."),
    ] = None,
    latex: Annotated[
        Path | None,
        typer.Option("--latex", metavar="FILE", help="Write LaTeX tables (booktabs) to a file."),
    ] = None,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser afterwards.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the names of the written files as JSON.")
    ] = False,
) -> None:
    """Write a page that a person reads from top to bottom, in one file without a network.

    It holds the headline table, speedups with intervals and noise floors, acceptance, where the
    time goes, quality against speed, values by task, predicted against observed speedup, sample
    outputs side by side, and where every number comes from. With --plots or --latex alone, only
    those are written. Files under different rulers are refused as by specbench compare.
    """
    check_choice("--by", by, SECTIONS)
    if output is None and plots is None and latex is None:
        output = Path("report.html")
    if open_page and output is None:
        raise UsageError("--open has no page to open", fix="Add -o FILE.")

    from specbench.report.files import check_writable, write_bytes

    wanted = [path for path in (output, latex) if path is not None]
    if plots is not None:
        wanted.append(plots / "speedup.svg")
    for path in wanted:
        check_writable(path)

    from specbench.report import latex as latex_report
    from specbench.report import plots as plots_report
    from specbench.report.html import gather, render
    from specbench.store import read_many

    content = gather(
        read_many(files), by=by, allow=set(allow or ()), title=title, outputs=output is not None
    )
    finished = {}
    if output is not None:
        finished[output] = render(content).encode()
    if latex is not None:
        finished[latex] = latex_report.render(content.overall, content.breakdown).encode()
    if plots is not None:
        finished |= {
            plots / name: data for name, data in plots_report.draw(content.overall).items()
        }
    written = [write_bytes(path, data) for path, data in finished.items()]
    if json:
        print_json({"files": [str(path) for path in written]})
    else:
        for path in written:
            print(path)
    if open_page and output is not None and typer.launch(str(output)) != 0:
        stderr().print(f"No browser could be opened; the page is {output}.")
