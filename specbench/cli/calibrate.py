"""`specbench calibrate`: measure once what a method must know of a model pair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specbench.cli.options import ConfigDir, Debug, note_debug


def calibrate(
    context: typer.Context,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="The run to calibrate for, such as method=sequoia model=tiny_text task=tiny "
            "sampling.temperature=1.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            min=1,
            help="Samples to measure on, from the end of the task; at most half of it, and no more "
            "than task.limit.",
        ),
    ] = 48,
    minutes: Annotated[
        float, typer.Option(min=0, help="Refuse what would take longer; 0 lifts the limit.")
    ] = 60.0,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Where to write; by default where runs look: calibration/ in the results folder."
        ),
    ] = None,
    config_dir: ConfigDir = None,
    debug: Debug = False,
) -> None:
    """Fit a method to a model pair, target law and machine.

    A calibration holds for one pair of checkpoints and one target law; a run under another one
    is refused and names the command that makes it.
    """
    note_debug(context, debug)

    from specbench import hosting
    from specbench.cli.console import stderr

    ((_, config),) = hosting.compose_jobs(
        hosting.HostRequest(tuple(overrides or ()), config_dir=config_dir)
    )
    from specbench.runner.calibrate import calibrate as measure

    console = stderr()
    for path in measure(config, samples, folder, minutes or None, console.print):
        print(path)
