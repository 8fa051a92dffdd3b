"""Measures of a job's pictures: built before anything is measured, asked when all is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from specbench.metrics.base import CorpusMetric, PictureMetric
from specbench.report.contact_sheet import SHEET_SAMPLES, Entry, contact_sheet
from specbench.runner.pictures import Album
from specbench.schema.build import instantiate
from specbench.schema.config import RunConfig
from specbench.schema.metric import MetricConfig
from specbench.schema.result import FileMetadata
from specbench.store.png import save_png
from specbench.tasks.base import Sample, Task

Rows = list[dict[str, Any]]


class Judged(NamedTuple):
    """Rows and metadata with what was said about their pictures."""

    rows: Rows
    metadata: FileMetadata


@dataclass(frozen=True)
class Measure:
    """One metric of a run, ready to measure.

    Attributes:
        config: What its file says.
        metric: A `PictureMetric`, a `CorpusMetric`, or both.
    """

    config: MetricConfig
    metric: Any

    def describe(self) -> dict[str, Any]:
        """Return what a result file records of it; equal for equal measures."""
        return {
            "title": self.config.title,
            "unit": self.metric.unit,
            "better": self.metric.better,
            "average": self.config.average,
            "version": self.metric.version,
            "protocol": self.metric.protocol,
            "node": _plain(self.config.metric),
            "kind": "picture" if isinstance(self.metric, PictureMetric) else "corpus",
        }


def build_measures(config: RunConfig) -> tuple[Measure, ...]:
    """Build and prepare the metrics of a run; none where pictures or scores are switched off.

    Raises:
        SpecbenchError: If a metric is not set up right, or lacks a file that it needs.
    """
    if not (config.pictures and config.score and config.model.modality == "image"):
        return ()
    measures = tuple(Measure(entry, instantiate(entry.metric)) for entry in config.metric)
    for measure in measures:
        measure.metric.prepare()
    return measures


def judge_pictures(
    album: Album, measures: Sequence[Measure], task: Task, rows: Rows, metadata: FileMetadata
) -> Judged:
    """Draw what is missing, measure what has not been measured, and write the contact sheet.

    Args:
        album: Where the pictures stand.
        measures: What to measure. What the metadata holds by an equal measure stays.
        task: The samples.
        rows: Every measurement.
        metadata: What the result file says beside them.

    Returns:
        The rows of the first pass with their pictures and values, and the metadata with the
        values of each arm.
    """
    drawn = [row for row in rows if is_first_pass(row) and row.get("error") is None]
    album.complete(drawn)
    samples = {sample.id: sample for sample in task.samples}
    metrics = dict(metadata.metrics)
    corpus = {arm: dict(values) for arm, values in metadata.corpus.items()}
    arms = list(dict.fromkeys(row["arm"] for row in drawn))
    own = {arm: {row["sample_id"] for row in drawn if row["arm"] == arm} for arm in arms}
    paired = [sample for sample in task.samples if all(sample.id in own[arm] for arm in arms)]
    quality = {_key(row): dict(row.get("quality") or {}) for row in drawn}
    for measure in measures:
        name, about = measure.config.name, measure.describe()
        if metrics.get(name) == about:
            continue
        metrics[name] = about
        for arm in arms:
            if isinstance(measure.metric, PictureMetric):
                asked = [sample for sample in task.samples if sample.id in own[arm]]
                scores = measure.metric.score(album.gallery(asked, arm))
                for sample, score in zip(asked, scores, strict=True):
                    values = quality[arm, sample.id]
                    values.pop(name, None)
                    if score is not None:
                        values[name] = float(score)
            if isinstance(measure.metric, CorpusMetric) and paired:
                value = measure.metric.measure(album.gallery(paired, arm))
                about_value = {"protocol": about["protocol"], "version": about["version"]}
                corpus.setdefault(arm, {})[name] = _plain(value._asdict()) | about_value
    judged = [
        {
            **row,
            "picture": album.relative(row["sample_id"], row["arm"]),
            "quality": quality[_key(row)] or None,
        }
        if is_first_pass(row) and row.get("error") is None
        else row
        for row in rows
    ]
    shown = [samples[name] for name in dict.fromkeys(row["sample_id"] for row in drawn)]
    _write_sheet(album, shown[:SHEET_SAMPLES], arms, own, metadata)
    return Judged(judged, replace(metadata, metrics=metrics, corpus=corpus))


def is_first_pass(row: Mapping[str, Any]) -> bool:
    """Return whether a row is of repeat 0 in process 0, whose pictures are drawn and judged."""
    return row["repeat"] == 0 and not row.get("process")


def wanted(measures: Sequence[Measure], metadata: FileMetadata) -> bool:
    """Return whether a finished file lacks any of these measures."""
    return any(metadata.metrics.get(m.config.name) != m.describe() for m in measures)


def _write_sheet(
    album: Album,
    samples: Sequence[Sample],
    arms: Sequence[str],
    own: Mapping[str, set[str]],
    metadata: FileMetadata,
) -> None:
    if not samples:
        return
    entries = []
    for sample in samples:
        there = [album.gallery([sample], arm) if sample.id in own[arm] else None for arm in arms]
        pictures = tuple(None if found is None else found[0].pixels for found in there)
        entries.append(Entry(sample.turns[0], pictures))
    methods = {"baseline": metadata.baseline, "method": metadata.method}
    labels = [about.name if (about := methods.get(arm)) else arm for arm in arms]
    title = f"{metadata.method.name} on {metadata.task} with {metadata.model}: {metadata.law}"
    save_png(album.folder / "contact_sheet.png", contact_sheet(entries, labels, title))


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["arm"], row["sample_id"]


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: numpy's scalars as Python's, tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value
