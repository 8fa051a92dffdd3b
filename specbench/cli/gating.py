"""What `specbench compare` does with --fail-on and --gha."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from specbench.cli.console import stderr, stdout
from specbench.errors import GateFailed, ResultsError, UsageError

if TYPE_CHECKING:
    from specbench.compare.comparison import Comparison
    from specbench.compare.gate import Gate

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
"""Variable in which GitHub Actions names the file that a step's summary is appended to."""


def sides(files: Sequence[Path], base: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the sources of BASE and of NEW.

    Args:
        files: The arguments: NEW where `base` is given, else BASE and NEW.
        base: What --base names.

    Raises:
        UsageError: If it is not clear which is which.
    """
    if base:
        return list(base), list(files)
    if len(files) != 2:
        raise UsageError(
            "A gate compares two sources, BASE and NEW",
            f"{len(files)} were given, and a pattern that the shell expands is many",
            'Give two folders or quoted patterns, such as "base/*.parquet" "new/*.parquet", or '
            "name BASE with --base (repeatable): every other source is then NEW.",
        )
    return [files[0]], [files[1]]


def run(
    sources: tuple[Sequence[Path], Sequence[Path]],
    rules: Iterable[str],
    allow: Iterable[str],
    gha_dir: Path | None,
    *,
    strict: bool,
    markdown: bool,
    json: bool,
) -> tuple[str | None, Callable[[], None]]:
    """Hold NEW against BASE and print the table, unless another form is asked for.

    Args:
        sources: Of BASE and of NEW; see `sides`.
        rules: What --fail-on says.
        allow: What may differ.
        gha_dir: Where the files for GitHub Actions go, or None.
        strict: Whether an inconclusive rule fails the gate.
        markdown: Whether to return Markdown in the place of printing.
        json: Whether to return JSON.

    Returns:
        The text to emit, if any, and what ends the command: it raises `GateFailed` where the
        gate failed, after everything is written.
    """
    from specbench.compare.gate import gate
    from specbench.report import gate as report
    from specbench.store import read_many

    old, new = (read_many(source) for source in sources)
    found = gate(old, new, rules, allow, strict)
    if gha_dir is not None:
        from specbench.compare import compare

        write_for_actions(gha_dir, compare(new), found)
    if json or markdown:
        return (report.to_json if json else report.markdown)(found), lambda: _finish(found)
    console = stdout()
    console.print(report.render(found, width=console.width))
    return None, lambda: _finish(found)


def _finish(gate: Gate) -> None:
    if gate.failed:
        names = [f"{c.label} {c.rule.metric}" for c in gate.checks if c.verdict == "fail"]
        fix = "Mend what became worse or, where the change is meant, measure BASE anew."
        if gate.strict:
            unsure = [c for c in gate.checks if c.verdict == "inconclusive"]
            if not names and not gate.missing:
                fix = "Measure more, as the lines above say, or leave --strict out."
            names += [f"{c.label} {c.rule.metric} (inconclusive)" for c in unsure]
        raise GateFailed(
            "The gate failed",
            "; ".join([*names, *(sentence.removesuffix(".") for sentence in gate.missing)]),
            fix,
        )


def write_for_actions(folder: Path, comparison: Comparison, gate: Gate | None) -> None:
    """Write the data files for charts, and the summary of the step.

    The summary is appended to the file that GitHub Actions names; elsewhere it stands beside the
    data files.

    Raises:
        ResultsError: If the folder or the summary cannot be written.
    """
    from specbench.report import gha
    from specbench.report import markdown as tables
    from specbench.report.gate import markdown

    texts = gha.files(comparison)
    summary = f"{markdown(gate)}\n" if gate is not None else ""
    summary += tables.render(comparison)
    named = os.environ.get(STEP_SUMMARY)
    target = Path(named) if named else folder / gha.SUMMARY
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        with target.open("a" if named else "w", encoding="utf-8") as file:
            file.write(summary)
    except OSError as error:
        raise ResultsError(
            f"Cannot write '{error.filename or folder}'",
            error.strerror or str(error),
            "Choose another folder with --gha-dir.",
        ) from error
    stderr().print(f"Wrote {', '.join(str(folder / name) for name in texts)} and {target}.")
