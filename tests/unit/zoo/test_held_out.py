"""The held-out prompts are frozen and never trained on."""

from __future__ import annotations

import hashlib
import itertools
import json
import random

import pytest

from specbench.paths import tasks_dir
from specbench.zoo.held_out import (
    PROMPTS_PER_TASK,
    held_out_prompts,
    held_out_samples,
    task_file,
    training_samples,
    write_task_files,
)
from specbench.zoo.worlds import WORLDS

_FROZEN = {
    "tiny_math.jsonl": "2f2f7c8b67908aeb5bc338dee20695c499df94b2b98682cb9c32127343e8dbc7",
    "tiny_code.jsonl": "b0ed9fb5b52a8dc3465e2ebd676d69ea2dea3f847e4652b4611f9adc981af3b7",
    "tiny_chat.jsonl": "f695b0f649451d883a7fc645b88bdb0adf79f00576c6045b7d68a9c4aec383e1",
    "tiny_rewrite.jsonl": "f426a7a89947e0c013d5f9b5b2a7d1fa9af5d6b08d84b6315a39608194638fdf",
    "tiny_qa.jsonl": "1536923822c0d7398effd6423271d77e0857be1ad6fa3d2896ae55192a108c93",
    "tiny_translate.jsonl": "63a08be04763b122951c1e22246d1c39cb994a33bbdc93e7dc21114e8053516b",
}


@pytest.mark.parametrize("task", WORLDS)
def test_task_files_are_frozen(task: str) -> None:
    shipped = (tasks_dir() / f"{task}.jsonl").read_bytes()
    assert hashlib.sha256(shipped).hexdigest() == _FROZEN[f"{task}.jsonl"]
    assert task_file(task) == shipped


def test_written_files_have_the_frozen_digests(tmp_path) -> None:
    assert dict(write_task_files(tmp_path)) == _FROZEN
    assert {path.name for path in tmp_path.iterdir()} == set(_FROZEN)


@pytest.mark.parametrize("task", WORLDS)
def test_records_have_the_shape_that_tasks_read(task: str) -> None:
    records = [json.loads(line) for line in task_file(task).splitlines()]
    assert [record["id"] for record in records] == [f"{task}/{i}" for i in range(PROMPTS_PER_TASK)]
    for record in records:
        assert set(record) == {"id", "turns", "category", "reference"}
        assert record["category"] == task
        if task == "tiny_code":
            assert set(record["reference"]) == {"entry_point", "prefix", "test"}


def test_reference_bodies_pass_the_frozen_tests() -> None:
    for sample in held_out_samples("tiny_code"):
        reference = sample.reference
        assert isinstance(reference, dict)
        program = f"{reference['prefix']}{sample.answers[0]}\n{reference['test']}\n"
        exec(program + f"check({reference['entry_point']})\n", {})


@pytest.mark.slow
def test_no_held_out_prompt_is_trained_on() -> None:
    held_out = held_out_prompts()
    assert len(held_out) == PROMPTS_PER_TASK * len(WORLDS)
    trained = itertools.islice(training_samples(0, held_out), 20_000)
    assert held_out.isdisjoint(sample.turns[0] for sample in trained)


def test_an_excluded_prompt_is_left_out() -> None:
    first = next(training_samples(0, frozenset()))
    later = itertools.islice(training_samples(0, frozenset({first.turns[0]})), 100)
    assert first.turns[0] not in {sample.turns[0] for sample in later}


def test_training_and_held_out_seeds_differ() -> None:
    generate = WORLDS["tiny_math"].generate
    assert generate(random.Random("held-out/tiny_math/0")) != generate(random.Random("train/0/0"))
