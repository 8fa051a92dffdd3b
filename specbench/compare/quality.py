"""What the pictures of an arm are worth: values of single pictures, and of whole sets.

A metric of single pictures gives a mean with an interval and a paired difference to the baseline;
the independent unit is the prompt, over whose pictures (`id`, `id#1`, ...) it averages first. Some
benchmarks (GenEval) publish the mean of their categories' means. A metric of a whole set (a
Frechet distance) gives one value a file, computed when the file was written.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from specbench.compare.measurements import Measurements
from specbench.stats import (
    CONFIDENCE,
    Estimate,
    Interval,
    mean_interval,
    paired_difference,
    student_quantile,
    student_tail,
)

BY_CATEGORY = "categories"
"""Value of a metric's `average` where the mean of the categories' means is its number."""

FURTHER_PICTURE = r"#\d+$"
"""How further pictures of a prompt are named: id#1, id#2, ..."""


class QualityFigure(NamedTuple):
    """A metric of single pictures in one arm.

    Attributes:
        value: Mean over prompts, or mean of the categories' means.
        difference: Paired difference to the baseline, of the same kind of mean; None for the
            baseline and without one.
        categories: Mean of each category.
        pictures: Number of pictures with a value.
        unit: Unit of the values.
        better: "higher" or "lower".
    """

    value: Estimate
    difference: Estimate | None
    categories: Mapping[str, float]
    pictures: int
    unit: str
    better: str


class CorpusFigure(NamedTuple):
    """A metric of a whole set of pictures in one arm; a mean where there are several files.

    Attributes:
        value: The value.
        n: Pictures in a set.
        floor: The value of n real pictures; None where the metric has none.
        error: Standard error of the value where it is known.
        difference: Difference to the baseline's sets; None for the baseline and without one.
        files: Number of sets.
        unit: Unit of the value.
        better: "higher" or "lower".
    """

    value: float
    n: int
    floor: float | None
    error: float | None
    difference: float | None
    files: int
    unit: str
    better: str


class CorpusRecord(NamedTuple):
    """What one file says about one arm's set of pictures.

    Attributes:
        task: The file's task.
        arm: "baseline" or "method".
        metric: Id of the metric.
        values: Value, n, floor, error and more; see `schema.result.FileMetadata.corpus`.
    """

    task: str
    arm: str
    metric: str
    values: Mapping[str, Any]


Abouts = Mapping[str, Mapping[str, Any]]
"""What each metric is, by id; see `schema.result.FileMetadata.metrics`."""


def quality_figures(
    measured: Measurements, abouts: Abouts, baseline: Measurements | None = None
) -> dict[str, QualityFigure]:
    """Return the metrics of single pictures of one arm, in the order of `abouts`.

    Args:
        measured: The arm's measurements.
        abouts: What the metrics are.
        baseline: The baseline's measurements of the same samples, or None.
    """
    figures = {}
    for metric, about in abouts.items():
        own = _by_prompt(measured, metric)
        if not len(own):
            continue
        by_category = about.get("average") == BY_CATEGORY
        value = category_mean(own["value"], own["category"]) if by_category else None
        difference = None
        if baseline is not None:
            difference = _difference(own, _by_prompt(baseline, metric), by_category)
        means = own.groupby("category", sort=False)["value"].mean()
        found = value or mean_interval(own["value"].to_numpy())
        assert found is not None
        figures[metric] = QualityFigure(
            value=found,
            difference=difference,
            categories={str(name): float(mean) for name, mean in means.items()},
            pictures=int(own["pictures"].sum()),
            unit=str(about.get("unit", "")),
            better=str(about.get("better", "higher")),
        )
    return figures


def corpus_figures(
    records: Sequence[CorpusRecord], abouts: Abouts, baseline: Sequence[CorpusRecord] = ()
) -> dict[str, CorpusFigure]:
    """Return the metrics of whole sets of one arm, in the order of `abouts`.

    Sets of different tasks are not pooled: there is no figure then.

    Args:
        records: The arm's records.
        abouts: What the metrics are.
        baseline: The baseline's records, where there is one.
    """
    figures = {}
    for metric, about in abouts.items():
        having = [r for r in records if r.metric == metric and _has_value(r)]
        own = [record.values for record in having]
        if not own or len({record.task for record in having}) > 1:
            continue
        values = [float(entry["value"]) for entry in own]
        value = float(np.mean(values))
        others = [
            float(r.values["value"]) for r in baseline if r.metric == metric and _has_value(r)
        ]
        error = own[0].get("error")
        if len(values) > 1:
            error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
        floors = [float(entry["floor"]) for entry in own if entry.get("floor") is not None]
        figures[metric] = CorpusFigure(
            value=value,
            n=min(int(entry.get("n") or 0) for entry in own),
            floor=float(np.mean(floors)) if floors else None,
            error=None if error is None else float(error),
            difference=value - float(np.mean(others)) if others else None,
            files=len(own),
            unit=str(about.get("unit", "")),
            better=str(about.get("better", "lower")),
        )
    return figures


def _has_value(record: CorpusRecord) -> bool:
    value = record.values.get("value")
    return value is not None and math.isfinite(value)


def category_mean(values: Iterable[float], categories: Iterable[str]) -> Estimate | None:
    """Return the mean of the categories' means with its 95% interval.

    The error is that of a stratified sample: every category's own variance over its own number.
    Where that has no width, or a category has one value, weighted values stand in for them.

    Args:
        values: One value for each prompt, NaN where there is none.
        categories: The category of each.

    Returns:
        The estimate, None without a value.
    """
    table = pd.DataFrame({"value": list(values), "category": list(categories)}).dropna()
    if not len(table):
        return None
    groups = table.groupby("category")["value"]
    sizes, count = groups.size(), groups.ngroups
    weights = len(table) / (count * table["category"].map(sizes).to_numpy())
    weighted = weights * table["value"].to_numpy()
    if sizes.min() < 2:
        return mean_interval(weighted)
    value = float(groups.mean().mean())
    error = math.sqrt(float((groups.var(ddof=1) / sizes).sum())) / count
    if error <= 1e-12 * max(1.0, abs(value)):
        return mean_interval(table["value"].to_numpy())._replace(value=value)  # type: ignore[union-attr]
    degrees = len(table) - count
    reach = student_quantile(0.5 + CONFIDENCE / 2, degrees) * error
    p_value = student_tail(value / error, degrees)
    return Estimate(value, Interval(value - reach, value + reach), p_value, len(table))


def _difference(own: pd.DataFrame, other: pd.DataFrame, by_category: bool) -> Estimate | None:
    """Return the paired difference over the prompts that both arms have."""
    both = own.join(other["value"].rename("baseline"), how="inner")
    if not len(both):
        return None
    differences = both["value"] - both["baseline"]
    if by_category and differences.std() > 0:
        return category_mean(differences, both["category"])
    everything = np.concatenate([both["value"].to_numpy(), both["baseline"].to_numpy()])
    span = float(np.ptp(everything)) or 1.0
    return paired_difference(both["baseline"].to_numpy(), both["value"].to_numpy(), span)


def _by_prompt(measured: Measurements, metric: str) -> pd.DataFrame:
    """Return value, category and number of pictures of each prompt."""
    has = [
        isinstance(found, dict)
        and math.isfinite(found.get(metric, math.nan) or 0.0)
        and found.get(metric) is not None
        for found in measured.rows["quality"]
    ]
    rows = measured.rows[np.array(has, dtype=bool)]
    table = pd.DataFrame(
        {
            "task": rows["task"],
            "prompt": rows["sample_id"].str.replace(FURTHER_PICTURE, "", regex=True),
            "category": rows["category"],
            "value": [float(found[metric]) for found in rows["quality"]],
        }
    )
    grouped = table.groupby(["task", "prompt"], sort=False)
    return grouped.agg(
        value=("value", "mean"), category=("category", "first"), pictures=("value", "size")
    )
