"""Every derived metric, by id.

Tables, JSON, CSV, Markdown, LaTeX, the page, `list metrics`, `compare --explain`, gates and
histories follow from these entries. What only `--explain` computes is one too, without a place in
a comparison. Metrics of pictures, which a user configures, are files of `conf/metric/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specbench.compare.arm_metrics import ARM_METRICS
from specbench.compare.definitions import DEFINITIONS
from specbench.compare.metric import NOWHERE, Metric
from specbench.compare.paired_metrics import PAIRED_METRICS
from specbench.schema import catalog

METRICS: dict[str, Metric] = {
    metric.id: metric for metric in (*PAIRED_METRICS, *ARM_METRICS, *DEFINITIONS)
}
"""Every derived metric, by id."""

PUBLISHED = tuple(metric for metric in METRICS.values() if metric.place != NOWHERE)
"""The metrics of every comparison."""


def names(folders: Sequence[Path] = ()) -> list[str]:
    """Return the sorted ids of all metrics, those of pictures included.

    Args:
        folders: Folders beside the project's own with files of metrics.
    """
    return sorted({*catalog.names("metric", folders), *(metric.id for metric in PUBLISHED)})


def about(name: str, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Return what is known of a metric, as the catalogue's entries are.

    Raises:
        ConfigError: If there is no such metric.
    """
    metric = METRICS.get(name)
    if metric is not None and metric.place != NOWHERE:
        return dict(metric.entry())
    if name not in catalog.names("metric", folders):
        raise catalog.unknown_entry("metric", name, names(folders))
    return catalog.load("metric", name, folders)
