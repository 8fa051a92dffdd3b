"""The held-out prompts: drawn from seeds of their own and never trained on.

The task files are frozen. This module can write them again, byte for byte, and tells the training
data which prompts to leave out.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

from specbench.zoo.worlds import WORLDS, Sample

PROMPTS_PER_TASK = 80


def _hides_its_test(sample: Sample) -> bool:
    """Whether a function has the name of the hidden test, which would then replace it."""
    return isinstance(sample.reference, dict) and sample.reference["entry_point"] == "check"


def held_out_samples(task: str) -> list[Sample]:
    """Draw the held-out samples of one task, without a repeated first prompt."""
    samples: dict[str, Sample] = {}
    index = 0
    while len(samples) < PROMPTS_PER_TASK:
        sample = WORLDS[task].generate(random.Random(f"held-out/{task}/{index}"))
        if not _hides_its_test(sample):
            samples.setdefault(sample.turns[0], sample)
        index += 1
    return list(samples.values())


def task_file(task: str) -> bytes:
    """Return the frozen task file: one JSON object a line, UTF-8."""
    lines = []
    for index, sample in enumerate(held_out_samples(task)):
        record = {
            "id": f"{task}/{index}",
            "turns": list(sample.turns),
            "category": task,
            "reference": sample.reference,
        }
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def held_out_prompts() -> frozenset[str]:
    """Return the first prompt of every held-out conversation of every task."""
    return frozenset(sample.turns[0] for task in WORLDS for sample in held_out_samples(task))


def write_task_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Write every task file into `folder` and yield its name and its sha256."""
    for task in WORLDS:
        content = task_file(task)
        (folder / f"{task}.jsonl").write_bytes(content)
        yield f"{task}.jsonl", hashlib.sha256(content).hexdigest()
