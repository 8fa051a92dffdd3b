"""One quantity of one method, with how each sample and each pass moves it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from specbench.compare.cells import Cells, Figure, floor_of, mean_of, product, scored
from specbench.compare.pool import seed_of
from specbench.compare.quality import BY_CATEGORY, FURTHER_PICTURE
from specbench.compare.registry import METRICS
from specbench.compare.subject import SAMPLE, Arms, Subject
from specbench.schema.result import METHOD


def figure(subject: Subject, name: str, samples: pd.MultiIndex) -> Figure | None:
    """Return one quantity of a subject over some samples; None where it has no value.

    Metrics of single pictures are included; those of whole sets are not (`specbench.compare.gate`
    compares these), and `identical` needs a second subject (`identical`).

    Args:
        subject: The method.
        name: Id of the metric.
        samples: Samples (task, sample id) that the subject measured; all others are left out.
    """
    arms = subject.arms.of(samples)
    metric = METRICS.get(name)
    if metric is None:
        return _picture_metric(arms, subject.pool.metrics.get(name), name, samples)
    if not metric.gated or not metric.defined(subject.measured):
        return None
    if metric.needs_baseline and not subject.paired:
        return None
    cells = Cells(arms, samples)
    if metric.moves is not None:
        found = metric.moves(cells)
    else:
        found = product(cells, metric.totals, metric.scale, metric.counted)
    if found is None:
        return None
    floor = floor_of(cells, metric.raw) if metric.timing and subject.paired else None
    return found._replace(timing=metric.timing, exact=metric.counted, floor=floor)


def identical(base: Subject, new: Subject, samples: pd.MultiIndex) -> tuple[Figure, Figure] | None:
    """Return the share of samples whose tokens are those of BASE: of BASE, which is 1, and of NEW.

    Outputs are compared within a draw: a sample counts if the tokens are equal for every seed
    that both measured. None where no draw is common.
    """
    one, other = _outputs(base), _outputs(new)
    common = one.index.intersection(other.index)
    if not len(common):
        return None
    same = pd.Series([one[key] == other[key] for key in common], index=common)
    shares = same.groupby(level=SAMPLE).min().astype(float).reindex(samples)
    found = mean_of(shares)
    assert found is not None
    whole = mean_of(shares.where(shares.isna(), 1.0))
    assert whole is not None
    return whole._replace(exact=True), found._replace(exact=True)


def _prompts(samples: pd.MultiIndex) -> pd.MultiIndex:
    """Return the prompt of each sample: further pictures of one are named id#1, id#2, ..."""
    ids = samples.get_level_values(1).str.replace(FURTHER_PICTURE, "", regex=True)
    return pd.MultiIndex.from_arrays([samples.get_level_values(0), ids], names=SAMPLE)


def _picture_metric(
    arms: Arms, about: Mapping[str, Any] | None, metric: str, samples: pd.MultiIndex
) -> Figure | None:
    """Return a metric of single pictures; the independent unit is the prompt."""
    has = [isinstance(found, Mapping) and metric in found for found in arms.method["quality"]]
    rows = arms.method[np.array(has, dtype=bool)]
    if about is None or not len(rows):
        return None
    values = pd.DataFrame(
        {
            "value": [float(found[metric]) for found in rows["quality"]],
            "category": rows["category"].astype(str).to_numpy(dtype=object),
        },
        index=_prompts(arms.samples[np.array(has, dtype=bool)]),
    )
    table = values.groupby(level=SAMPLE).agg({"value": "mean", "category": "first"})
    table = table.reindex(_prompts(samples).unique())
    known = table["value"].notna()
    sizes = table[known].groupby("category")["value"].transform("size").reindex(table.index)
    span = float(np.ptp(table["value"].dropna())) or 1.0
    if about.get("average") != BY_CATEGORY:
        return scored(mean_of(table["value"]), span)
    found = scored(mean_of(table["value"], 1.0 / sizes), span)
    if found is None or sizes.min() < 2:
        return found
    means = table[known].groupby("category")["value"].transform("mean").reindex(table.index)
    share = 1.0 / (sizes * table.loc[known, "category"].nunique())
    influence = (share * (table["value"] - means)).fillna(0.0).to_numpy(dtype=float)
    return found._replace(influence=influence[:, None])


def _outputs(subject: Subject) -> pd.Series:
    """Return what each sample of each draw was answered with, as plain lists of ids."""
    frames = []
    for file in subject.files:
        own = file.outputs
        own = own[(own["arm"] == METHOD) & own["error"].isna() & own["output_ids"].notna()]
        frames.append(own.sort_values("repeat").assign(seed=seed_of(file)))
    joined = pd.concat(frames).drop_duplicates([*SAMPLE, "seed"])
    ids = [tuple(tuple(turn) for turn in turns) for turns in joined["output_ids"]]
    index = pd.MultiIndex.from_arrays([joined[name] for name in (*SAMPLE, "seed")])
    return pd.Series(ids, index=index, dtype=object)
