"""Sample outputs side by side: what every method wrote or drew for one request.

Outputs that are the same are shown once with the names of all methods that gave them. A text is
held against the baseline of its own file, and the place where it leaves it is marked. Of each
category, the samples on which most methods differ come first; what does not fit the page is
counted.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from specbench.errors import ResultsError
from specbench.schema.result import BASELINE, METHOD
from specbench.store import ResultSet

MOST_SAMPLES = 24
"""Samples on a page."""

MOST_CHARACTERS = 2_400
"""Characters of one output that are shown around the place where it leaves the baseline."""

MOST_BYTES = 3_000_000
"""Bytes of all outputs together, so that a page stays under 5 MB."""

LONGEST_SIDE = 256
"""Pixels of a picture's longer side at most; larger ones are reduced."""

_BEFORE = 800
"""Characters of a long output that are shown before the place where it leaves the baseline."""

_CANDIDATES = 60
"""Samples of each category of a file among which those to show are chosen."""

_KEY = ["task", "category", "sample_id"]
_KEY_COLUMNS = ["arm", *_KEY, "repeat", "process", "error"]
_OUTPUT_COLUMNS = ["output_ids", "output_text", "picture", "score"]

_Key = tuple[str, str, str]
"""Task, category and id of a sample."""


class Wrote(NamedTuple):
    """One distinct output.

    Attributes:
        labels: Methods that gave it, by the labels of the comparison's rows.
        is_baseline: Whether the baseline gave it.
        same: The text up to the place where it leaves the baseline's; all of it where it does not.
        differing: The text from there on.
        token: Number of the first differing token, from 1; None where there is none.
        left_out: Characters that are not shown, before and after.
        picture: The PNG as a data URI; empty for text.
        score: Score of the output; None without one.
    """

    labels: tuple[str, ...]
    is_baseline: bool
    same: str
    differing: str
    token: int | None
    left_out: tuple[int, int]
    picture: str
    score: float | None


class SampleOutputs(NamedTuple):
    """One sample and its distinct outputs, the baseline's first.

    Attributes:
        task: The task's id.
        category: Its category.
        sample: Its id.
        outputs: What was generated.
        differing: How many methods gave another output than the baseline.
        methods: How many methods gave one.
    """

    task: str
    category: str
    sample: str
    outputs: tuple[Wrote, ...]
    differing: int
    methods: int


@dataclass(frozen=True)
class Outputs:
    """The outputs of a page.

    Attributes:
        samples: What is shown.
        available: Samples that the files hold.
        missing_pictures: Pictures that the files name and that were not found beside them.
    """

    samples: tuple[SampleOutputs, ...] = ()
    available: int = 0
    missing_pictures: int = 0


class Failure(NamedTuple):
    """One failed measurement, or several with one error."""

    label: str
    task: str
    error: str
    samples: tuple[str, ...]


@dataclass(frozen=True)
class _Raw:
    """One arm's output of a sample in one file."""

    label: str
    ids: tuple[tuple[int, ...], ...]
    text: str
    picture: Path | None
    score: float | None

    @property
    def content(self) -> tuple[object, ...]:
        return (self.ids, self.text)


class _Couple(NamedTuple):
    """A method's output with its own file's baseline."""

    own: _Raw
    baseline: _Raw | None


def collect(results: Sequence[ResultSet], labels: Mapping[Path, str]) -> Outputs:
    """Choose samples and return what was generated for them.

    Args:
        results: The files.
        labels: How the comparison names each file's method.
    """
    found: dict[_Key, list[_Couple]] = {}
    available: set[_Key] = set()
    for result in results:
        keys = result.read(_KEY_COLUMNS).to_pandas()
        available.update(keys[_KEY].drop_duplicates().itertuples(index=False, name=None))
        label = labels.get(result.path, result.metadata.method.name)
        for key, couple in _couples(result, keys, label):
            found.setdefault(key, []).append(couple)
    samples: list[SampleOutputs] = []
    size = missing = 0
    for key in _chosen(found):
        sample, absent = _sample(key, found[key])
        missing += absent
        weight = sum(
            len(wrote.same) + len(wrote.differing) + len(wrote.picture) for wrote in sample.outputs
        )
        if not sample.outputs or (samples and size + weight > MOST_BYTES):
            continue
        size += weight
        samples.append(sample)
    return Outputs(tuple(samples), len(available), missing)


def failures(results: Sequence[ResultSet], labels: Mapping[Path, str]) -> tuple[Failure, ...]:
    """Return the failed measurements, those with one error and method together."""
    groups: dict[tuple[str, str, str], dict[str, None]] = {}
    for result in results:
        rows = result.read(["arm", "task", "sample_id", "error"]).to_pandas()
        failed = rows[rows["error"].notna()]
        label = labels.get(result.path, result.metadata.method.name)
        for row in failed.itertuples(index=False):
            baseline = result.metadata.baseline
            name = label if row.arm == METHOD or baseline is None else baseline.name
            key = (name, str(row.task), str(row.error))
            groups.setdefault(key, {})[str(row.sample_id)] = None
    return tuple(Failure(*key, tuple(samples)) for key, samples in groups.items())


def _couples(result: ResultSet, keys: pd.DataFrame, label: str) -> Iterable[tuple[_Key, _Couple]]:
    """Yield each sample's outputs of the first pass over it, the baseline's beside the method's.

    Args:
        result: The file.
        keys: Its rows, columns of `_KEY_COLUMNS`.
        label: How the comparison names its method.
    """
    first = keys[keys["error"].isna()].sort_values(["repeat", "process"], kind="stable")
    first = first.drop_duplicates(["arm", *_KEY])
    first = first[first.groupby(["arm", *_KEY[:2]], sort=False).cumcount() < _CANDIDATES]
    first = first.sort_index()
    outputs = result.read(_OUTPUT_COLUMNS).take(first.index.to_numpy()).to_pylist()
    arms: dict[str, dict[_Key, _Raw]] = {BASELINE: {}, METHOD: {}}
    baseline = result.metadata.baseline
    names = {BASELINE: baseline.name if baseline else "", METHOD: label}
    for row, output in zip(first.itertuples(index=False), outputs, strict=True):
        key = (str(row.task), str(row.category), str(row.sample_id))
        arms[str(row.arm)][key] = _raw(output, result.path, names[str(row.arm)])
    for key, own in arms[METHOD].items():
        yield key, _Couple(own, arms[BASELINE].get(key))


def _raw(output: Mapping[str, Any], file: Path, label: str) -> _Raw:
    texts = [str(turn) for turn in output["output_text"] or ()]
    if len(texts) > 1:
        texts = [f"[turn {number}]\n{text}" for number, text in enumerate(texts, 1)]
    ids = tuple(tuple(turn or ()) for turn in output["output_ids"] or ())
    picture = output["picture"]
    path = _beside(file, str(picture)) if picture else None
    return _Raw(label, ids, "\n".join(texts), path, output["score"])


def _beside(file: Path, name: str) -> Path | None:
    """Return the picture's path if it lies under the result file's folder, as all of ours do."""
    folder = os.path.realpath(file.parent)
    path = os.path.realpath(os.path.join(folder, name))
    return Path(path) if os.path.commonpath([folder, path]) == folder else None


def _chosen(
    found: Mapping[_Key, Sequence[_Couple]],
) -> list[_Key]:
    """Return the samples to show: the same number of each category, most differing first."""
    categories: dict[tuple[str, str], list[_Key]] = {}
    for key in found:
        categories.setdefault(key[:2], []).append(key)
    for keys in categories.values():
        keys.sort(key=lambda key: -_count_differing(found[key]))
    chosen: set[_Key] = set()
    place = 0
    while len(chosen) < MOST_SAMPLES and any(place < len(keys) for keys in categories.values()):
        turn = [keys[place] for keys in categories.values() if place < len(keys)]
        chosen.update(turn[: MOST_SAMPLES - len(chosen)])
        place += 1
    return [key for keys in categories.values() for key in keys if key in chosen]


def _count_differing(couples: Sequence[_Couple]) -> int:
    return sum(
        couple.baseline is not None and couple.own.content != couple.baseline.content
        for couple in couples
    )


def _sample(key: _Key, couples: Sequence[_Couple]) -> tuple[SampleOutputs, int]:
    """Return one sample's distinct outputs and how many pictures are missing."""
    groups: dict[tuple[object, ...], list[_Couple]] = {}
    for couple in couples:
        baseline = couple.baseline
        if baseline is not None:
            content: tuple[object, ...] = ("baseline", baseline.content)
            groups.setdefault(content, []).append(_Couple(baseline, baseline))
    for couple in couples:
        baseline = couple.baseline
        if baseline is not None and couple.own.content == baseline.content:
            content = ("baseline", baseline.content)
        else:
            content = ("own", couple.own.content, baseline and baseline.content)
        groups.setdefault(content, []).append(couple)
    outputs = []
    missing = 0
    for members in groups.values():
        wrote, absent = _wrote(members)
        missing += absent
        if wrote is not None:
            outputs.append(wrote)
    sample = SampleOutputs(*key, tuple(outputs), _count_differing(couples), len(couples))
    return sample, missing


def _wrote(members: Sequence[_Couple]) -> tuple[Wrote | None, int]:
    own, baseline = members[0]
    labels = tuple(dict.fromkeys(member.own.label for member in members))
    is_baseline = own is baseline
    picture, absent = _first_picture([member.own for member in members])
    if not picture and not own.text and own.picture is None and not own.ids:
        return None, absent
    if absent and not picture:
        return None, 1
    place = _first_difference(own.text, baseline.text) if baseline is not None else len(own.text)
    start = max(0, place - _BEFORE) if len(own.text) > MOST_CHARACTERS else 0
    end = min(len(own.text), start + MOST_CHARACTERS)
    return (
        Wrote(
            labels=labels,
            is_baseline=is_baseline,
            same=own.text[start:place],
            differing=own.text[place:end],
            token=None if baseline is None else _first_token(own.ids, baseline.ids),
            left_out=(start, len(own.text) - end),
            picture=picture,
            score=own.score,
        ),
        0,
    )


def _first_difference(one: str, other: str) -> int:
    """Return the number of characters that two texts share from the beginning."""
    return len(os.path.commonprefix([one, other])) if one != other else len(one)


def _first_token(
    one: tuple[tuple[int, ...], ...], other: tuple[tuple[int, ...], ...]
) -> int | None:
    """Return the first differing token over all turns, counted from 1."""
    if one == other:
        return None
    left = [token for turn in one for token in turn]
    right = [token for turn in other for token in turn]
    for place, (first, second) in enumerate(zip(left, right, strict=False), 1):
        if first != second:
            return place
    return min(len(left), len(right)) + 1


def _first_picture(raws: Sequence[_Raw]) -> tuple[str, int]:
    """Return the first picture that can be read as a data URI, and 1 where none can."""
    paths = [raw.picture for raw in raws if raw.picture is not None]
    for path in paths:
        uri = picture_uri(path)
        if uri:
            return uri, 0
    return "", 1 if paths else 0


def picture_uri(path: Path) -> str:
    """Return a picture as a PNG data URI, reduced where it is large; empty if there is none."""
    from PIL import Image

    from specbench.store.png import read_png

    try:
        pixels = read_png(path)
    except ResultsError:
        return ""
    image = Image.fromarray(pixels)
    longer = max(image.size)
    if longer > LONGEST_SIDE:
        size = tuple(max(1, round(side * LONGEST_SIDE / longer)) for side in image.size)
        image = image.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
