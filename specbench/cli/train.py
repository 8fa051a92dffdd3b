"""`specbench train`: train a draft model, a head or a target by a recipe."""

from __future__ import annotations

from typing import Annotated

import typer

from specbench.cli.options import ConfigDir, Debug, note_debug


def train(
    context: typer.Context,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="The training, such as recipe=distillspec model=tiny_text recipe.steps=200 "
            "output=FOLDER.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the configuration and train nothing.")
    ] = False,
    config_dir: ConfigDir = None,
    debug: Debug = False,
) -> None:
    """Train what drafts for a target, on answers that the target writes.

    The same command again goes on where a training ended. For several devices put
    `accelerate launch -m` before it.
    """
    note_debug(context, debug)

    from specbench import hosting

    config = hosting.compose_training(
        hosting.HostRequest(tuple(overrides or ()), config_dir=config_dir)
    )
    if dry_run:
        from specbench.cli.console import print_json

        print_json(config.identity() | {"output": str(config.output)})
        return
    from specbench.training.room import train as run

    print(run(config))
