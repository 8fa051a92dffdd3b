"""What a task asks: its first samples in words, and for pictures real ones of the same prompts."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specbench.cli.console import print_json, print_text

if TYPE_CHECKING:
    from specbench.schema.task import TaskConfig
    from specbench.tasks.base import Sample

_LINES = 12
"""Lines of a turn or a reference that are printed."""

_WIDTH = 100


def show_samples(
    entry: Mapping[str, Any], count: int, output: Path | None, as_json: bool = False
) -> None:
    """Print the first samples of a task, and draw references where the task can.

    Args:
        entry: The task's YAML file as plain values.
        count: How many samples.
        output: File for the drawn references; None: under results/samples/.
        as_json: Whether to print JSON.

    Raises:
        SpecbenchError: If the samples cannot be read or the file cannot be written.
    """
    from specbench.schema.task import TaskConfig
    from specbench.tasks.load import load_task

    config = TaskConfig.from_dict(entry)
    samples = load_task(config, limit=count).samples
    drawn = _draw(config, samples, output or Path("results/samples") / f"{config.name}.png")
    if as_json:
        values = [
            {"id": s.id, "category": s.category, "turns": list(s.turns), "reference": s.reference}
            for s in samples
        ]
        print_json({"samples": values, "picture": str(drawn) if drawn else None})
        return
    for sample in samples:
        print_text(f"{sample.id}  {sample.category}\n")
        for turn in sample.turns:
            print_text(f"{_block(turn)}\n")
        if sample.reference is not None:
            print_text(_block(f"reference: {_text(sample.reference)}") + "\n")
    if drawn is not None:
        print(drawn)


def _draw(config: TaskConfig, samples: Sequence[Sample], path: Path) -> Path | None:
    """Write a sheet of real pictures of the prompts; None where the task has none."""
    if config.references is None:
        return None
    from specbench.report.contact_sheet import Entry, contact_sheet
    from specbench.schema.build import instantiate
    from specbench.store.png import save_png

    prompts = [sample.turns[0] for sample in samples]
    pictures = instantiate(config.references).pictures(prompts)
    entries = [Entry(prompt, (pixels,)) for prompt, pixels in zip(prompts, pictures, strict=True)]
    save_png(path, contact_sheet(entries, ["reference"], f"{config.title}: real pictures"))
    return path


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _block(text: str) -> str:
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, _WIDTH - 2) or [""]]
    if len(lines) > _LINES:
        lines = [*lines[:_LINES], "..."]
    return textwrap.indent("\n".join(lines), "  ")
