"""The frozen task files of the world: `python -m specbench.zoo.pictures.rows [FOLDER]`.

A row has the keys of GenEval's official metadata (`tag`, `prompt`, `include`, `exclude`), so that
one row format and one judgement serve the world and the benchmark.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specbench.paths import tasks_dir
from specbench.zoo.pictures.render import render_batch
from specbench.zoo.pictures.scene import (
    CLASSES,
    TASKS,
    WORDINGS,
    Combination,
    class_caption,
    class_wanted,
    combinations,
    left_out,
    scene_of,
)

PROMPTS_PER_TASK = 60
"""Prompts of each of the six tasks in `shapes.jsonl`."""

Row = dict[str, Any]


def shapes_rows() -> list[Row]:
    """Draw the prompts of `shapes`: the six tasks in turn, no caption twice.

    Tasks about two things ask held-out combinations only; the others have too few to hold any out.
    """
    by_task = [_task_rows(task) for task in TASKS]
    return [row for rows in zip(*by_task, strict=True) for row in rows]


def class_rows() -> list[Row]:
    """The prompts of `shapes_c2i`: every class once, by id."""
    return [
        {"tag": "class", "prompt": class_caption(class_id), **class_wanted(class_id)}
        for class_id in range(len(CLASSES))
    ]


def _task_rows(task: str) -> list[Row]:
    """Spread the prompts evenly over the combinations, and each combination over the wordings."""
    source = random.Random(f"shapes/{task}")
    asked = list(left_out(task) or combinations(task))
    source.shuffle(asked)
    wordings = {combination: source.sample(WORDINGS, len(WORDINGS)) for combination in asked}
    rows = []
    for index in range(PROMPTS_PER_TASK):
        turn, place = divmod(index, len(asked))
        combination: Combination = asked[place]
        caption = wordings[combination][turn].caption(combination)
        rows.append({"tag": task, "prompt": caption, **combination.wanted})
    return rows


class Renders:
    """Real pictures of prompts: the world draws what the captions ask for."""

    def pictures(self, prompts: Sequence[str], seed: int = 0) -> NDArray[np.uint8]:
        """Draw one picture for each prompt; a repeated prompt gets another one.

        Args:
            prompts: Captions of the world, classes included.
            seed: Chooses among the pictures of a prompt.

        Returns:
            RGB, (prompts, SIZE, SIZE, 3).

        Raises:
            KeyError: If the world has no such caption.
        """
        asked: Counter[str] = Counter()
        scenes, seeds = [], []
        for prompt in prompts:
            source = random.Random(f"renders/{seed}/{asked[prompt]}/{prompt}")
            asked[prompt] += 1
            scenes.append(scene_of(source, prompt))
            seeds.append(source.getrandbits(63))
        return render_batch(scenes, seeds)


def task_file(rows: Sequence[Row]) -> bytes:
    """Return a task file: one JSON object a line, UTF-8."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_task_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Write both task files into `folder` and yield their names and their sha256."""
    for name, rows in (("shapes.jsonl", shapes_rows()), ("shapes_c2i.jsonl", class_rows())):
        content = task_file(rows)
        (folder / name).write_bytes(content)
        yield name, hashlib.sha256(content).hexdigest()


def main() -> None:
    """Write the task files and print their sha256, in the format of `sha256sum`."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else tasks_dir()
    folder.mkdir(parents=True, exist_ok=True)
    for name, digest in write_task_files(folder):
        print(f"{digest}  {name}")


if __name__ == "__main__":
    main()
