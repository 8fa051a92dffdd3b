"""What a comparison gives to GitHub Actions: two data files for charts, and a summary.

The data files are those of github-action-benchmark's tools `customBiggerIsBetter` and
`customSmallerIsBetter` (https://github.com/benchmark-action/github-action-benchmark): a JSON list
of objects with `name`, `unit` and `value`, and optionally `range` and `extra`, all text but the
value. A file has one polarity, hence two.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from specbench.compare.comparison import OVERALL, Comparison, ComparisonRow, Speedup
from specbench.report import words
from specbench.report.markdown import uncalled
from specbench.schema import catalog
from specbench.stats import Interval

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


_READ: dict[str, Callable[[ComparisonRow], float | int | Speedup | None]] = {
    "speedup_e2e": lambda row: row.speedup_e2e,
    "speedup_decode": lambda row: row.speedup_decode,
    "mal": lambda row: row.quantities.mal,
    "acceptance_rate": lambda row: row.quantities.acceptance_rate,
    "step_compression": lambda row: row.quantities.step_compression,
    "tokens_per_second": lambda row: row.quantities.tokens_per_second,
    "nfe": lambda row: row.quantities.nfe,
    "ttft_ms": lambda row: row.quantities.ttft_ms,
    "peak_memory_bytes": lambda row: row.quantities.peak_memory_bytes,
}


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
    for metric, read in _READ.items():
        value = read(row)
        if value is None:
            continue
        about = catalog.load("metric", metric)
        speedup = value if isinstance(value, Speedup) else None
        plain = value.value if isinstance(value, Speedup) else float(value)
        found.append(_entry(metric, plain, speedup.interval if speedup else None, about))
    if row.score is not None:
        about = catalog.load("metric", "score")
        found.append(_entry("score", row.score.value, row.score.interval, about))
    for metric, quality in row.quality.items():
        about = {"better": quality.better, "unit": quality.unit}
        found.append(_entry(metric, quality.value.value, quality.value.interval, about))
    for metric, corpus in row.corpus.items():
        about = {"better": corpus.better, "unit": corpus.unit}
        found.append(_entry(metric, corpus.value, None, about))
    return [entry for entry in found if entry.better in ("higher", "lower")]


def _entry(
    metric: str, value: float, interval: Interval | None, about: Mapping[str, Any]
) -> _Entry:
    return _Entry(metric, value, interval, str(about["better"]), str(about.get("unit", "")))


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
