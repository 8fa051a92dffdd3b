"""The samples of the worlds: those to learn from, and those that are held out.

Held-out prompts are drawn from seeds of their own and never trained on. The task files are frozen:
`python -m specbench.zoo.held_out [FOLDER]` writes them again, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from specbench.paths import tasks_dir
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


def training_samples(seed: int, excluded: frozenset[str]) -> Iterator[Sample]:
    """Yield samples of all worlds in their shares, leaving out excluded first prompts."""
    names = list(WORLDS)
    shares = [WORLDS[name].share for name in names]
    index = 0
    while True:
        source = random.Random(f"train/{seed}/{index}")
        name = source.choices(names, weights=shares)[0]
        sample = WORLDS[name].generate(source)
        if sample.turns[0] not in excluded:
            yield sample
        index += 1


def write_task_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Write every task file into `folder` and yield its name and its sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in WORLDS:
        content = task_file(task)
        (folder / f"{task}.jsonl").write_bytes(content)
        yield f"{task}.jsonl", hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    for name, digest in write_task_files(Path(sys.argv[1]) if sys.argv[1:] else tasks_dir()):
        print(f"{digest}  {name}")
