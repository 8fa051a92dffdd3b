"""Task files from anywhere: read whole, or refused with a sentence that names the line."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specbench.errors import SpecbenchError
from specbench.tasks import TaskConfig, load_task
from tests.fuzz.hostile import DEEP, FUZZ, VALUES, damaged, dumped, mutated, paths_of

VALID: dict[str, list[dict[str, Any]]] = {
    "specbench": [{"id": "a", "turns": ["x", "y"], "category": "c", "reference": {"k": 1}}],
    "gsm8k": [{"question": "How many?", "answer": "Two and two.\n#### 4"}],
    "humaneval": [
        {
            "task_id": "HumanEval/0",
            "prompt": "def f():\n",
            "entry_point": "f",
            "canonical_solution": "    return 1\n",
            "test": "def check(f):\n    assert f() == 1\n",
        }
    ],
    "mt_bench": [{"question_id": 81, "category": "writing", "turns": ["a", "b"]}],
    "spec_bench": [{"question_id": 81, "category": "writing", "turns": ["a"]}],
    "geneval": [
        {
            "tag": "counting",
            "include": [{"class": "dog", "count": 2, "color": "red"}],
            "exclude": [{"class": "dog", "count": 3}],
            "prompt": "a photo of two dogs",
        }
    ],
    "coco_longest": [{"image_id": 1, "ids": [1, 2], "captions": ["a", "a dog"]}],
    "coco_captions": [
        {
            "images": [{"id": 1, "file_name": "1.jpg"}],
            "annotations": [{"id": 1, "image_id": 1, "caption": "a dog"}],
        }
    ],
}


def load(path: Path, row_format: str) -> None:
    """Load a task file; whatever is wrong with it is said in one clear error."""
    config = TaskConfig.from_dict(
        {
            "name": "mine",
            "title": "Mine",
            "version": 1,
            "licence": "MIT",
            "source": {"kind": "file", "file": "none.jsonl", "format": row_format},
            "path": str(path),
            "max_new_tokens": 8,
        }
    )
    try:
        task = load_task(config)
    except SpecbenchError as error:
        assert error.what and "\n" not in error.what
        return
    assert task.samples and len(task.digest) == 64
    for sample in task.samples:
        sample.id.encode(), sample.category.encode(), [turn.encode() for turn in sample.turns]


def test_the_seeds_of_the_fuzzer_are_valid(tmp_path):
    for name, rows in VALID.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(dumped(row) + "\n" for row in rows))
        config = {"name": "m", "title": "M", "version": 1, "licence": "x", "max_new_tokens": 8}
        source = {"kind": "file", "file": "none.jsonl", "format": name}
        node = TaskConfig.from_dict({**config, "source": source, "path": str(path)})
        assert load_task(node).samples


@pytest.mark.parametrize("row_format", sorted(VALID))
@FUZZ
@given(data=st.data())
def test_rows_with_hostile_values(tmp_path, row_format, data):
    path = tmp_path / "task.jsonl"
    rows = data.draw(mutated(VALID[row_format]))
    rows = rows if isinstance(rows, list) else [rows]
    path.write_text("".join(dumped(row) + "\n" for row in rows))
    load(path, row_format)


@FUZZ
@given(data=st.data())
def test_damaged_bytes(tmp_path, data):
    path = tmp_path / "task.jsonl"
    valid = "".join(json.dumps(row) + "\n" for row in VALID["specbench"] * 1).encode()
    path.write_bytes(data.draw(damaged(valid)))
    load(path, "specbench")


@FUZZ
@given(data=st.data())
def test_damaged_gzip(tmp_path, data):
    path = tmp_path / "task.jsonl.gz"
    valid = gzip.compress(json.dumps(VALID["specbench"][0]).encode(), mtime=0)
    path.write_bytes(data.draw(damaged(valid)))
    load(path, "specbench")


@FUZZ
@given(value=VALUES)
def test_any_json(tmp_path, value):
    path = tmp_path / "task.jsonl"
    path.write_text(dumped(value))
    for row_format in VALID:
        load(path, row_format)


def test_an_official_file_without_a_sample(tmp_path):
    path = tmp_path / "task.json"
    path.write_text('{"images": [], "annotations": []}')
    load(path, "coco_captions")


@pytest.mark.parametrize("row_format", ["specbench", "mt_bench", "gsm8k"])
def test_half_a_character_in_every_text(tmp_path, row_format):
    """JSON can spell a lone surrogate, which no encoding of text can write."""
    path = tmp_path / "task.jsonl"
    for way in paths_of(VALID[row_format]):
        rows = json.loads(json.dumps(VALID[row_format]))
        *parents, last = way
        node: Any = rows
        for key in parents:
            node = node[key]
        if isinstance(node[last], str):
            node[last] += "\ud800"
            path.write_text("".join(dumped(row) + "\n" for row in rows))
            load(path, row_format)


@pytest.mark.parametrize("text", [DEEP, '{"id": ' + DEEP + "}", "[" * 100_000, "9" * 10_000])
def test_deep_and_long_json(tmp_path, text):
    path = tmp_path / "task.jsonl"
    path.write_text(text)
    load(path, "specbench")


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(tmp_path, monkeypatch):
    from specbench.tasks import sources

    monkeypatch.setattr(sources, "LARGEST_FILE", 1 << 20)
    path = tmp_path / "task.jsonl.gz"
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    path.write_bytes(
        b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(64)), packer.flush()])
    )
    assert path.stat().st_size < 1 << 17
    with pytest.raises(SpecbenchError, match=r"larger than 1 MiB"):
        sources.read_file(path)
    plain = tmp_path / "task.jsonl"
    plain.write_bytes(bytes(2 << 20))
    with pytest.raises(SpecbenchError, match=r"larger than 1 MiB"):
        sources.read_file(plain)
