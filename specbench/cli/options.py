"""Options that several commands have, and what is said of a value that they do not take."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from specbench.errors import UsageError, did_you_mean

Files = Annotated[
    list[Path], typer.Argument(metavar="FILES...", help="Result files, folders or patterns.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")]
Csv = Annotated[
    str | None,
    typer.Option("--csv", metavar="PATH|-", help="Write CSV to a file, or - for stdout."),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write what --json or --markdown prints to a file."),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow", metavar="KEY", help="Compare although KEY differs, with a banner; repeatable."
    ),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option("--config-dir", help="Another folder with method/, model/ or other groups."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

SECTIONS = ("task", "category", "overall")
"""How results are broken down."""


def check_choice(option: str, value: str, allowed: Collection[str]) -> None:
    """Refuse a word that an option does not take.

    Raises:
        UsageError: If it is none of those allowed; names the nearest.
    """
    if value not in allowed:
        raise UsageError(
            f"{option} cannot be '{value}'",
            f"it is one of {', '.join(allowed)}",
            did_you_mean(value, allowed),
        )


def check_formats(json: bool, markdown: bool, csv: bool, output: Path | None) -> None:
    """Refuse two forms of output at once, and a file for none.

    Raises:
        UsageError: If the options contradict each other.
    """
    given = [name for name, on in (("json", json), ("markdown", markdown), ("csv", csv)) if on]
    if len(given) > 1:
        together = " and ".join(f"--{name}" for name in given)
        raise UsageError("One format at a time", f"{together} were given together")
    if output is not None and not (json or markdown):
        raise UsageError("--output has nothing to write", fix="Add --json or --markdown.")


def note_debug(context: typer.Context, debug: bool) -> bool:
    """Let `--debug` behind a command do what it does before one; return whether it is on."""
    root = context.find_root()
    root.params["debug"] = bool(root.params.get("debug") or debug)
    return bool(root.params["debug"])
