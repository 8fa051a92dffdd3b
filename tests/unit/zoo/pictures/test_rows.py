"""The task files of the world are frozen, balanced, and ask what training never drew."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import numpy as np
import pytest

from specbench.paths import tasks_dir
from specbench.schema.task import TaskConfig
from specbench.tasks.load import load_task
from specbench.zoo.pictures.detector import judge
from specbench.zoo.pictures.rows import (
    PROMPTS_PER_TASK,
    Renders,
    class_rows,
    shapes_rows,
    task_file,
    write_task_files,
)
from specbench.zoo.pictures.scene import CLASSES, HELD_OUT_TASKS, TASKS, WORDINGS, left_out

_FROZEN = {
    "shapes.jsonl": "aaed9c443a3be9eed93278c7472bbaa399349ecd4a914c077c2dbe0a8e62df52",
    "shapes_c2i.jsonl": "dafa4b707e495cccf9c35c79efd06270f6f6c3d89be2f96d93f21d704160126c",
}


@pytest.mark.parametrize("name", _FROZEN)
def test_shipped_files_are_frozen(name: str) -> None:
    assert hashlib.sha256((tasks_dir() / name).read_bytes()).hexdigest() == _FROZEN[name]


def test_written_files_have_the_frozen_digests(tmp_path) -> None:
    assert dict(write_task_files(tmp_path)) == _FROZEN


def test_tasks_take_turns_and_no_caption_is_asked_twice() -> None:
    rows = shapes_rows()
    assert Counter(row["tag"] for row in rows) == dict.fromkeys(TASKS, PROMPTS_PER_TASK)
    assert [row["tag"] for row in rows[: len(TASKS)]] == list(TASKS)
    assert len({row["prompt"] for row in rows}) == len(rows) >= 360


@pytest.mark.parametrize("task", HELD_OUT_TASKS)
def test_tasks_about_two_things_ask_held_out_combinations(task: str) -> None:
    captions = {w.caption(combination) for combination in left_out(task) for w in WORDINGS}
    assert {row["prompt"] for row in shapes_rows() if row["tag"] == task} <= captions


def test_every_class_is_asked_for() -> None:
    assert [row["prompt"] for row in class_rows()] == [f"class {i}" for i in range(len(CLASSES))]


@pytest.mark.parametrize("name", ["shapes", "shapes_c2i"])
def test_the_tasks_load(name: str) -> None:
    task = load_task(TaskConfig.named(name))
    assert len(task.samples) == {"shapes": 360, "shapes_c2i": 300}[name]
    assert len({sample.id for sample in task.samples}) == len(task.samples)
    assert all(set(sample.reference) >= {"include"} for sample in task.samples)


def test_real_pictures_of_the_prompts_are_right() -> None:
    rows = [*shapes_rows()[:60], *class_rows()]
    pictures = Renders().pictures([row["prompt"] for row in rows], seed=1)
    verdicts = [judge(row, picture) for row, picture in zip(rows, pictures, strict=True)]
    assert sum(verdict.right for verdict in verdicts) >= len(rows) - 1


def test_a_prompt_has_many_pictures() -> None:
    renders = Renders()
    first, second = renders.pictures(["a photo of a circle"] * 2)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, renders.pictures(["a photo of a circle"])[0])
    assert not np.array_equal(first, renders.pictures(["a photo of a circle"], seed=1)[0])


def test_a_file_has_one_row_a_line() -> None:
    lines = task_file(class_rows()).decode().splitlines()
    assert [json.loads(line) for line in lines] == class_rows()
