"""Tasks of pictures: GenEval's file, COCO's captions, class ids, and several pictures a prompt."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from specbench.errors import ConfigError, TaskError
from specbench.schema import catalog
from specbench.tasks import Task, TaskConfig, load_task
from specbench.tasks.sources import Rows

TASKS = {
    "single_object": 80,
    "two_object": 99,
    "counting": 80,
    "colors": 94,
    "position": 100,
    "color_attr": 100,
}


def load(name: str, **changes: Any) -> Task:
    return load_task(TaskConfig.from_dict({**catalog.load("task", name), **changes}))


def coco_file(path: Path) -> str:
    captions = [(9, 30, "Later."), (9, 20, " First of nine. "), (4, 10, "Four."), (4, 11, "No.")]
    annotations = [{"image_id": i, "id": n, "caption": text} for i, n, text in captions]
    path.write_text(json.dumps({"info": {}, "images": [], "annotations": annotations}))
    return str(path)


def test_geneval_has_its_553_prompts_and_four_pictures_of_each(shared_data: Path) -> None:
    path = str(shared_data / "geneval_metadata.jsonl")
    task = load("geneval", path=path)
    assert len(task.samples) == 4 * 553
    first = task.samples[:553]
    assert Counter(sample.category for sample in first) == TASKS
    assert first[0].id == "geneval/0" and first[0].turns == ("a photo of a bench",)
    assert first[0].reference == {"include": [{"class": "bench", "count": 1}], "exclude": []}
    assert sum(bool(sample.reference["exclude"]) for sample in first) == 80
    assert task.samples[553 + 17].id == "geneval/17#1" and task.samples[-1].id == "geneval/552#3"
    assert {s.turns for s in task.samples[553:]} == {s.turns for s in first}
    assert task.max_new_tokens is None


def test_the_pinned_file_is_the_official_one(shared_data: Path) -> None:
    import hashlib

    data = (shared_data / "geneval_metadata.jsonl").read_bytes()
    assert catalog.load("task", "geneval")["source"]["sha256"] == hashlib.sha256(data).hexdigest()


def test_the_number_of_pictures_leaves_the_digest_and_the_first_ids(shared_data: Path) -> None:
    path = str(shared_data / "geneval_metadata.jsonl")
    four, one = load("geneval", path=path), load("geneval", path=path, images=1)
    assert four.digest == one.digest
    assert four.samples[: len(one.samples)] == one.samples
    few = load("geneval", path=path, limit=560)
    assert few.samples == four.samples[:560] and few.digest == four.digest


def test_one_task_of_geneval_can_be_chosen(shared_data: Path) -> None:
    path = str(shared_data / "geneval_metadata.jsonl")
    counting = load("geneval", path=path, category="counting", images=2)
    assert len(counting.samples) == 160
    assert {sample.category for sample in counting.samples} == {"counting"}


def test_coco_takes_the_caption_of_the_lowest_id_by_image(tmp_path: Path) -> None:
    task = load("coco_captions", path=coco_file(tmp_path / "captions_val2017.json"))
    assert [(sample.id, sample.turns) for sample in task.samples] == [
        ("coco_captions/4", ("Four.",)),
        ("coco_captions/9", ("First of nine.",)),
    ]
    assert task.samples[1].reference == {"image_id": 9}


def test_lanterns_captions_are_the_longest_the_first_of_equals(tmp_path: Path) -> None:
    captions = [
        (9, 30, "Later, and longer."),
        (9, 20, "First."),
        (4, 11, "Four."),
        (4, 10, "Fore."),
    ]
    annotations = [{"image_id": i, "id": n, "caption": text} for i, n, text in captions]
    path = tmp_path / "captions_val2017.json"
    path.write_text(json.dumps({"annotations": annotations}))
    task = load("coco_longest", path=str(path))
    assert [sample.turns[0] for sample in task.samples] == ["Four.", "Later, and longer."]
    assert [sample.id for sample in task.samples] == ["coco_longest/4", "coco_longest/9"]
    assert task.digest != load("coco_captions", path=str(path)).digest


def test_cocos_official_file_and_the_hubs_rows_are_one_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from specbench.tasks import load as loading

    official = load("coco_captions", path=coco_file(tmp_path / "captions_val2017.json"))
    rows = [
        {"image_id": 9, "ids": [30, 20], "captions": ["Later.", " First of nine. "]},
        {"image_id": 4, "ids": [10, 11], "captions": ["Four.", "No."]},
    ]
    found = Rows([(f"row {number}", row) for number, row in enumerate(rows)], "hub")
    monkeypatch.setattr(loading, "read_rows", lambda *arguments: found)
    assert load("coco_captions").digest == official.digest


def test_every_class_comes_once_before_any_comes_twice() -> None:
    task = load("imagenet_c2i", images=3, limit=2500)
    assert [sample.turns[0] for sample in task.samples[:1000]] == [str(n) for n in range(1000)]
    assert len({sample.id for sample in task.samples}) == 2500
    assert task.samples[1000].id == "imagenet_c2i/0#1"
    assert task.samples[2499].reference == {"class": 499}
    assert load("imagenet_c2i", limit=1).digest == task.digest


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("geneval", {"tag": "t", "prompt": "p"}, "include"),
        ("geneval", {"tag": "t", "prompt": "p", "include": ["cat"]}, "include"),
        ("coco_captions", {"image_id": 1, "ids": [1, 2], "captions": ["a"]}, "one length"),
        ("coco_captions", {"image_id": 1, "ids": [1], "captions": [" "]}, "texts"),
        ("coco_captions", {"annotations": [{"id": 1, "caption": "a"}]}, "image_id"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, name: str, row: Any, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(TaskError, match="line 1") as caught:
        load(name, path=str(path))
    assert message in caught.value.why


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 2}, "task.images"),
        ({"metrics": ["fid"]}, "task.metrics"),
        ({"max_new_tokens": None}, "task.max_new_tokens"),
        ({"modality": "sound"}, "task.modality"),
        ({"source": {"kind": "classes", "format": "class_id", "classes": 0}}, "classes"),
    ],
)
def test_what_only_pictures_have_is_refused_for_text(change: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TaskConfig.from_dict({**catalog.load("task", "tiny_math"), **change})
