"""Why two papers' numbers for the same runs differ: every published definition, side by side.

One name stands for many numbers. Each definition here is computed from the same rounds and the
same pairs as the comparison's own, so that what is left between two of them is the definition.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from specbench.compare.build import sections_of
from specbench.compare.comparability import check_allow, check_comparable
from specbench.compare.metric import Metric
from specbench.compare.pool import pair, pools_of
from specbench.compare.registry import METRICS
from specbench.errors import ResultsError, UsageError, did_you_mean
from specbench.schema.result import METHOD
from specbench.store import ResultSet

TOPICS = ("mal", "speedup")
"""What can be explained."""


class Definition(NamedTuple):
    """One published definition.

    Attributes:
        name: Its key in JSON; the id of specbench's own metric where it is one.
        title: What tables call it.
        formula: How it is computed, in words.
        users: Who publishes it, one sentence.
    """

    name: str
    title: str
    formula: str
    users: str


class ExplainedRow(NamedTuple):
    """One method's value of every definition.

    Attributes:
        section: A task, "task / category", or "overall".
        label: How tables name the method.
        values: One value for each definition, None where it is not defined or not recorded.
    """

    section: str
    label: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Explanation:
    """Every definition of one name, for every method.

    Attributes:
        topic: "mal" or "speedup".
        definitions: The definitions, specbench's own first.
        rows: The methods of each section.
        banners: One sentence for each difference that the user allowed.
    """

    topic: str
    definitions: tuple[Definition, ...]
    rows: tuple[ExplainedRow, ...]
    banners: tuple[str, ...]


def explain(
    results: Sequence[ResultSet], topic: str, by: str = "task", allow: Iterable[str] = ()
) -> Explanation:
    """Compute every published definition of a name from the same measurements.

    Args:
        results: The files.
        topic: One of `TOPICS`.
        by: As for `compare`.
        allow: As for `compare`.

    Raises:
        UsageError: If there is no such topic, grouping or allowance.
        NotComparable: If the files were measured under different rulers.
        ResultsError: If there is no file.
    """
    if topic not in TOPICS:
        raise UsageError(
            f"Cannot explain '{topic}'",
            f"what can be explained: {', '.join(TOPICS)}",
            did_you_mean(topic, TOPICS),
        )
    if not results:
        raise ResultsError("There is nothing to explain", "no result file was given")
    differing, banners = check_comparable(results, check_allow(allow))
    pools = pools_of(results, differing)
    metrics = [m for m in METRICS.values() if m.explained and m.explained.topic == topic]
    metrics.sort(key=lambda metric: metric.explained.place if metric.explained else 0)
    rows = []
    for section, chosen in sections_of(pools, by):
        for pool in chosen:
            pairs = pair(pool) if pool.baseline is not None else None
            measured = pairs.method if pairs else pool.arm(METHOD)
            values = tuple(metric.value(measured, pairs) for metric in metrics)
            rows.append(ExplainedRow(section, pool.label, values))
    return Explanation(topic, tuple(map(_definition, metrics)), tuple(rows), banners)


def _definition(metric: Metric) -> Definition:
    assert metric.explained is not None
    about = metric.explained
    return Definition(metric.id, about.title, about.formula, about.users)
