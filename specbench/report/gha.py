"""What a comparison gives to GitHub Actions: two data files for charts, and a summary.

The data files are those of github-action-benchmark's tools `customBiggerIsBetter` and
`customSmallerIsBetter` (https://github.com/benchmark-action/github-action-benchmark): a JSON list
of objects with `name`, `unit` and `value`, and optionally `range` and `extra`, all text but the
value. A file has one polarity, hence two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from specbench.compare.comparison import OVERALL, Comparison, ComparisonRow, Speedup
from specbench.compare.registry import PUBLISHED
from specbench.report import words
from specbench.report.markdown import uncalled
from specbench.stats import Estimate, Interval

BIGGER = "bigger_is_better.json"
SMALLER = "smaller_is_better.json"
SUMMARY = "summary.md"
"""Names of the files."""


class _Entry(NamedTuple):
    """One point of a chart."""

    metric: str
    value: float
    interval: Interval | None
    better: str
    unit: str


def files(comparison: Comparison) -> dict[str, str]:
    """Return the data files of a comparison by name, as JSON.

    Each task has a point for each method and quantity; the baseline has its rate and its times.
    Where there are several tasks, all of them together have one too.
    """
    entries: dict[str, list[dict[str, Any]]] = {BIGGER: [], SMALLER: []}
    for row in comparison.rows:
        for entry in _entries(row):
            name = SMALLER if entry.better == "lower" else BIGGER
            entries[name].append(_point(row, entry, comparison))
    return {name: _json(points) for name, points in entries.items()}


def _entries(row: ComparisonRow) -> list[_Entry]:
    found = []
    for metric in sorted(PUBLISHED, key=lambda metric: metric.graded):
        value = row.value(metric.id)
        if value is None or not metric.charted:
            continue
        whole = isinstance(value, (Speedup, Estimate))
        number, interval = (value.value, value.interval) if whole else (float(value), None)
        found.append(_Entry(metric.id, number, interval, metric.better, metric.unit))
    for name, quality in row.quality.items():
        mean = quality.value
        found.append(_Entry(name, mean.value, mean.interval, quality.better, quality.unit))
    for name, corpus in row.corpus.items():
        found.append(_Entry(name, corpus.value, None, corpus.better, corpus.unit))
    return [entry for entry in found if entry.better in ("higher", "lower")]


def _point(row: ComparisonRow, entry: _Entry, comparison: Comparison) -> dict[str, Any]:
    section = "all tasks" if row.section == OVERALL else row.section
    point: dict[str, Any] = {
        "name": uncalled(f"{section} / {row.label} / {entry.metric}").replace("`", "'"),
        "unit": uncalled(entry.unit),
        "value": entry.value,
    }
    if entry.interval is not None:
        low, high = entry.interval
        point["range"] = f"± {(high - low) / 2:.3g}"
    lines = [words.heading(comparison), f"n={row.samples}, {row.repeats} repeats"]
    if entry.metric.startswith("speedup") and row.speedup_e2e is not None:
        lines.append(f"noise floor {words.floor(row.speedup_e2e)}")
    point["extra"] = "\n".join(map(uncalled, lines))
    return point


def _json(points: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(points, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
