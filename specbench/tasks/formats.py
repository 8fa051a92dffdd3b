"""The row formats of benchmarks: one function each, from a row to a sample.

A row is what one line of the official file holds. Each function checks all that it reads, because
a missing key must stop a run before it starts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from specbench.schema.task import RowFormat
from specbench.tasks.base import Sample

Row = Mapping[str, Any]
Reading = Callable[[Row, int, str], Sample]

_CALCULATOR_NOTE = re.compile(r"<<[^<>]*>>")
_FINAL_NUMBER = re.compile(r"####\s*(-?[$]?[0-9][0-9,.]*)\s*$")

_CONVERSATION = frozenset(
    ["writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"]
)
CONVERSATION_GROUP = "multi_turn_conversation"


class RowError(Exception):
    """A row is not what its format promises."""


def specbench(row: Row, index: int, task: str) -> Sample:
    """Read the project's own format: id, turns, category and reference."""
    return Sample(
        id=_text(row, "id"),
        category=_text(row, "category"),
        turns=_turns(row),
        reference=_need(row, "reference"),
    )


def gsm8k(row: Row, index: int, task: str) -> Sample:
    """Read a GSM8K row: question, and worked answer ending in `#### n` (Cobbe et al., 2021)."""
    answer = _text(row, "answer")
    final = _FINAL_NUMBER.search(answer)
    if final is None:
        raise RowError("'answer' does not end in a line '#### number'")
    return Sample(f"{task}/{index}", task, (_text(row, "question"),), final.group(1))


def gsm8k_shot(row: Row) -> tuple[str, str]:
    """Return a GSM8K row as a worked example, without its calculator annotations."""
    return _text(row, "question"), _CALCULATOR_NOTE.sub("", _text(row, "answer"))


def humaneval(row: Row, index: int, task: str) -> Sample:
    """Read a HumanEval row (Chen et al., 2021)."""
    prompt, entry_point = _text(row, "prompt"), _text(row, "entry_point")
    test = _text(row, "test")
    if not entry_point.isidentifier():
        raise RowError(f"'entry_point' is no name: {entry_point!r}")
    if "def check(" not in test:
        raise RowError("'test' defines no check function")
    reference = {"entry_point": entry_point, "prefix": prompt, "test": test}
    return Sample(_text(row, "task_id"), task, (prompt,), reference)


def mt_bench(row: Row, index: int, task: str) -> Sample:
    """Read an MT-Bench question (Zheng et al., 2023)."""
    return Sample(
        f"{task}/{_number(row, 'question_id')}",
        _text(row, "category"),
        _turns(row),
        row.get("reference"),
    )


def spec_bench(row: Row, index: int, task: str) -> Sample:
    """Read a Spec-Bench question (Xia et al., 2024).

    Its sixth group, multi-turn conversation, is MT-Bench with that benchmark's eight categories.
    """
    sample = mt_bench(row, index, task)
    group = CONVERSATION_GROUP if sample.category in _CONVERSATION else sample.category
    return Sample(sample.id, sample.category, sample.turns, sample.reference, group=group)


def geneval(row: Row, index: int, task: str) -> Sample:
    """Read a GenEval prompt (Ghosh et al., 2023): the caption, its task and what must be seen.

    The reference is what the official evaluation reads: the objects to `include`, each with its
    class, count and, by task, colour or position, and those to `exclude`.
    """
    include, exclude = _need(row, "include"), row.get("exclude", [])
    for key, objects in (("include", include), ("exclude", exclude)):
        if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
            raise RowError(f"'{key}' must be a list of objects")
    reference = {"include": include, "exclude": exclude}
    return Sample(f"{task}/{index}", _text(row, "tag"), (_text(row, "prompt"),), reference)


def coco_captions(row: Row, index: int, task: str) -> Sample:
    """Read the captions of one COCO image (Lin et al., 2014): the one of the lowest id is asked."""
    return _coco(row, task, lambda ids, captions: min(zip(ids, captions, strict=True))[1])


def coco_longest(row: Row, index: int, task: str) -> Sample:
    """Read the captions of one COCO image: the longest is asked, the first of equals.

    As in jadohu/LANTERN, data/prompts/preprocess.py.
    """
    return _coco(row, task, lambda ids, captions: max(captions, key=len))


def _coco(row: Row, task: str, choose: Callable[[list[Any], list[str]], str]) -> Sample:
    """Read a row of `image_id`, the annotations' `ids` and their `captions`."""
    ids, captions = _need(row, "ids"), _need(row, "captions")
    if not isinstance(ids, list) or not isinstance(captions, list) or len(ids) != len(captions):
        raise RowError("'ids' and 'captions' must be lists of one length")
    if not ids or not all(isinstance(text, str) and text.strip() for text in captions):
        raise RowError("'captions' must hold texts")
    image = _number(row, "image_id")
    return Sample(f"{task}/{image}", task, (choose(ids, captions).strip(),), {"image_id": image})


def coco_images(row: Row) -> list[Row]:
    """Return a row for each image of COCO's official annotation file, by image id.

    The file is one object; its `annotations` hold `id`, `image_id` and `caption`. Any other row
    stays as it is.
    """
    annotations = row.get("annotations")
    if not isinstance(annotations, list):
        return [row]
    images: dict[int, dict[str, Any]] = {}
    for annotation in annotations:
        if not isinstance(annotation, dict):
            raise RowError("'annotations' must be a list of objects")
        image = _number(annotation, "image_id")
        own = images.setdefault(image, {"image_id": image, "ids": [], "captions": []})
        own["ids"].append(_number(annotation, "id"))
        own["captions"].append(_text(annotation, "caption"))
    return [images[image] for image in sorted(images)]


def class_id(row: Row, index: int, task: str) -> Sample:
    """Read a class of a class-conditional model: its id, as text, is the prompt."""
    number = _number(row, "class")
    return Sample(f"{task}/{number}", task, (str(number),), {"class": number})


FORMATS: dict[RowFormat, Reading] = {
    "specbench": specbench,
    "gsm8k": gsm8k,
    "humaneval": humaneval,
    "mt_bench": mt_bench,
    "spec_bench": spec_bench,
    "geneval": geneval,
    "coco_captions": coco_captions,
    "coco_longest": coco_longest,
    "class_id": class_id,
}

SHOTS: dict[str, Callable[[Row], tuple[str, str]]] = {"gsm8k": gsm8k_shot}

_COCO = ("coco_captions", "coco_longest")

SPLITS: dict[str, Callable[[Row], list[Row]]] = dict.fromkeys(_COCO, coco_images)
"""For formats whose official file is one object: how it falls into rows."""

ORDERS: dict[str, Callable[[Sample], Any]] = dict.fromkeys(
    _COCO, lambda sample: sample.reference["image_id"]
)
"""For formats that several sources hold in different orders: by what their samples are sorted."""


def _need(row: Row, key: str) -> Any:
    if key not in row:
        raise RowError(f"the key '{key}' is missing")
    return row[key]


def _text(row: Row, key: str) -> str:
    value = _need(row, key)
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"'{key}' must be a text that is not empty")
    return value


def _number(row: Row, key: str) -> int:
    value = _need(row, key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RowError(f"'{key}' must be a whole number")
    return value


def _turns(row: Row) -> tuple[str, ...]:
    turns = _need(row, "turns")
    if not isinstance(turns, list) or not turns:
        raise RowError("'turns' must be a list of texts that is not empty")
    for turn in turns:
        if not isinstance(turn, str) or not turn.strip():
            raise RowError("'turns' holds something that is not a text")
    return tuple(turns)
