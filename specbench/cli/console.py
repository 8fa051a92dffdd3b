"""Where the command line writes: results on stdout, everything else on stderr.

Text that a user or a file gave is never read as markup, and nothing is cut to a terminal's width
where there is no terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specbench.errors import ResultsError, SpecbenchError, printable
from specbench.secrets import scrub

if TYPE_CHECKING:
    from rich.console import Console

_UNBOUNDED = 10_000
"""Width in columns of an output that is not a terminal."""

_GAP = 3
"""Spaces between the columns of a table."""


def stdout() -> Console:
    """Return the console of results; `NO_COLOR` and pipes turn its colours off."""
    return _console(stderr=False)


def stderr() -> Console:
    """Return the console of messages."""
    return _console(stderr=True)


def _console(stderr: bool) -> Console:
    from specbench.report.terminal import Terminal

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _UNBOUNDED
    return Terminal(stderr=stderr, width=width)


def print_error(error: SpecbenchError) -> None:
    """Print an error as what happened, why, and how to fix it, its secrets hidden."""
    from rich.padding import Padding
    from rich.text import Text

    console = stderr()
    console.print(Text.assemble(("error: ", "bold red"), scrub(error.what)))
    for name, text in (("why", error.why), ("fix", error.fix)):
        if text:
            line = Text.assemble((f"{name}: ", "bold"), scrub(text))
            console.print(Padding(line, (0, 0, 0, 2), expand=False))


def print_json(values: Any) -> None:
    """Print values as indented JSON on stdout."""
    print_text(json.dumps(values, indent=2, ensure_ascii=False, default=str) + "\n")


def print_text(text: str) -> None:
    """Print a finished text on stdout; on a terminal its control characters are shown."""
    print(printable(text) if sys.stdout.isatty() else text, end="")


def emit(text: str, target: Path | str | None) -> None:
    """Write a finished text to a file; None and "-" are stdout.

    Raises:
        ResultsError: If the file cannot be written.
    """
    if target in (None, "-"):
        print_text(text if text.endswith("\n") else text + "\n")
        return
    try:
        Path(str(target)).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResultsError(
            f"Cannot write '{target}'", error.strerror or str(error), "Choose another file."
        ) from error


def print_facts(facts: Mapping[str, str]) -> None:
    """Print a line for each fact on stdout, its name first."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(name), Text(value))
    stdout().print(table)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a plain table on stdout.

    Args:
        headers: Names of the columns, the most telling first: where a terminal is too narrow,
            columns are left out from the end.
        rows: A cell for each column.
    """
    from rich.table import Table
    from rich.text import Text

    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    shown = len(headers)
    while shown > 2 and sum(widths[:shown]) + _GAP * (shown - 1) > stdout().width:
        shown -= 1
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for number, header in enumerate(headers[:shown]):
        table.add_column(header, overflow="fold", style="cyan" if number == 0 else "")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row[:shown]))
    stdout().print(table)
