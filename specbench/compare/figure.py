"""One quantity of one method, with how each sample and each pass moves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from specbench.compare.floor import speedup_floor
from specbench.compare.quality import BY_CATEGORY
from specbench.compare.quantities import COUNT, OVERHEAD_PARTS, QUANTITIES, Quantity, Total
from specbench.compare.subject import SAMPLE, Arms, Subject
from specbench.schema.result import BASELINE, METHOD
from specbench.stats import FloatArray, noise_floor
from specbench.store import ResultSet

_PASS = ["file", "process", "repeat"]
_FURTHER_PICTURE = r"#\d+$"


class Figure(NamedTuple):
    """A quantity of one method.

    Attributes:
        value: The published value.
        centre: The value that changes are taken of; it is another one where the published value
            is a median or a greatest value, which do not move smoothly.
        influence: How much each cell moves `centre`, shape (samples, passes); 0 where a cell was
            not measured. Rows are the samples that were asked for, in their order.
        process: Process of each pass.
        floor: Noise floor of a time as a ratio above 1; None where none was measured.
        timing: Whether a clock measured it.
        exact: Whether it repeats exactly where law, samples and machine are the same.
        cells: Value of each sample, for counting those that differ.
        span: Largest change of one sample's value, for a mean of scores; 0 for others. It says
            what samples that all agree may hide (`specbench.stats.paired_difference`).
    """

    value: float
    centre: float
    influence: FloatArray
    process: NDArray[np.int_]
    floor: float | None
    timing: bool
    exact: bool
    cells: FloatArray
    span: float = 0.0


def figure(subject: Subject, metric: str, samples: pd.MultiIndex) -> Figure | None:
    """Return one quantity of a subject over some samples; None where it has no value.

    Metrics of single pictures are included; those of whole sets are not (`specbench.compare.gate`
    compares these), and `identical` needs a second subject (`identical`).

    Args:
        subject: The method.
        metric: Id of the quantity.
        samples: Samples (task, sample id) that the subject measured; all others are left out.
    """
    arms = subject.arms.of(samples)
    if metric not in QUANTITIES:
        return _picture_metric(arms, subject.pool.metrics.get(metric), metric, samples)
    quantity = QUANTITIES[metric]
    lost = subject.settles_late or (metric in _LENGTHS and not subject.verifies)
    if quantity.late and lost:
        return None
    paired = subject.paired
    needs = [total.arm for total in quantity.totals] + [BASELINE] * (metric in _PAIRED)
    if BASELINE in needs and not paired:
        return None
    cells = _Cells(arms, samples)
    if metric == "overhead":
        found = _overhead(cells)
    elif quantity.totals:
        found = _product(cells, quantity.totals, quantity)
    else:
        found = _MEANS[metric](cells)
    if found is None:
        return None
    floor = _floor(cells, quantity.raw) if quantity.timing and paired else None
    return found._replace(timing=quantity.timing, exact=quantity.counted, floor=floor)


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
    found = _mean(shares)
    assert found is not None
    whole = _mean(shares.where(shares.isna(), 1.0))
    assert whole is not None
    return whole._replace(exact=True), found._replace(exact=True)


class _Cells:
    """Columns of both arms as arrays of shape (samples, passes)."""

    def __init__(self, arms: Arms, samples: pd.MultiIndex) -> None:
        self._arms = arms
        self.sample = samples.get_indexer(arms.samples)
        self.passes, labels = pd.MultiIndex.from_frame(arms.method[_PASS]).factorize()
        self.shape = (len(samples), len(labels))
        names = [label[:2] for label in labels]
        self.process = np.asarray(pd.MultiIndex.from_tuples(names).factorize()[0], dtype=int)

    def of(self, columns: Sequence[str], arm: str = METHOD) -> FloatArray:
        rows = self.rows(arm)
        if COUNT in columns:
            values = np.ones(len(rows))
        else:
            values = sum(rows[name].to_numpy(dtype=float) for name in columns)  # type: ignore[assignment]
        array = np.full(self.shape, np.nan)
        array[self.sample, self.passes] = values
        return array

    def rows(self, arm: str = METHOD) -> pd.DataFrame:
        return self._arms.baseline if arm == BASELINE else self._arms.method

    def by_sample(self, values: pd.Series) -> FloatArray:
        """Return the mean of some values of the method's rows for each sample."""
        total = np.full(self.shape, np.nan)
        total[self.sample, self.passes] = values.to_numpy(dtype=float)
        return _row_means(total)


def _product(cells: _Cells, totals: Sequence[Total], quantity: Quantity) -> Figure | None:
    arrays = [cells.of(total.columns, total.arm) for total in totals]
    known = np.logical_and.reduce([np.isfinite(array) for array in arrays])
    filled = [np.where(known, array, 0.0) for array in arrays]
    sums = [float(array.sum()) for array in filled]
    if any(whole <= 0 for total, whole in zip(totals, sums, strict=True) if total.power < 0):
        return None
    if min(sums) <= 0:
        return _zero(cells.shape, cells.process)
    log, value = np.zeros(cells.shape), quantity.scale
    for total, array, whole in zip(totals, filled, sums, strict=True):
        log += total.power * array / whole
        value *= whole**total.power
    process = cells.process
    if quantity.counted:  # passes repeat the same counts: only the samples can move them
        log, process = log.sum(axis=1, keepdims=True), np.zeros(1, int)
    return _of(value, log * value, process, _fingerprint(arrays))


def _zero(shape: tuple[int, int], process: NDArray[np.int_]) -> Figure:
    """Return the figure of a product with an empty factor, such as nothing accepted."""
    return _of(0.0, np.zeros(shape), process, np.zeros(shape[0]))


def _overhead(cells: _Cells) -> Figure | None:
    observed, predicted = (_product(cells, part, Quantity()) for part in OVERHEAD_PARTS)
    if observed is None or predicted is None or predicted.value <= 0 or observed.value <= 0:
        return None
    share = observed.value / predicted.value
    moved = observed.influence / observed.value - predicted.influence / predicted.value
    return _of(1 - share, -share * moved, cells.process, observed.cells)


def _time_to_first_token(cells: _Cells) -> Figure | None:
    times = cells.of(("ttft_ns",)) / 1e6
    if not np.isfinite(times).any() or not (times[np.isfinite(times)] > 0).all():
        return None
    logs = np.log(times)
    known = np.isfinite(logs)
    mean = float(logs[known].mean())
    influence = np.where(known, logs - mean, 0.0) / known.sum()
    centre = float(np.exp(mean))
    found = _of(centre, influence * centre, cells.process, _row_means(times))
    return found._replace(value=float(np.median(times[known])))


def _peak_memory(cells: _Cells) -> Figure | None:
    """Return the peak memory: of a device by sample, of a process by process."""
    device = cells.of(("peak_device_bytes",))
    if np.isfinite(device).any():
        peaks = np.where(np.isfinite(device), device, -np.inf).max(axis=1)
        found = _mean(np.where(np.isfinite(peaks), np.log(np.maximum(peaks, 1.0)), np.nan))
        assert found is not None
        centre = float(np.exp(found.value))
        moved = found.influence * centre
        return found._replace(value=float(peaks.max()), centre=centre, influence=moved)
    resident = cells.of(("peak_rss_bytes",))
    if not np.isfinite(resident).any():
        return None
    names = np.unique(cells.process)
    highest = [float(np.nanmax(resident[:, cells.process == name])) for name in names]
    logs = np.log(highest)
    centre = float(np.exp(logs.mean()))
    influence = (centre * (logs - logs.mean()) / len(logs))[None, :]
    found = _of(centre, influence, names, np.full(1, np.nan))
    return found._replace(value=max(highest))


def _mal_request(cells: _Cells) -> Figure | None:
    emitted, rounds = (cells.of((f"verification_{name}",)) for name in ("emitted", "rounds"))
    with np.errstate(invalid="ignore", divide="ignore"):
        own = np.where(rounds > 0, emitted / rounds, np.nan)
    return _mean(_row_means(own), np.isfinite(own).sum(axis=1))


def _fidelity(cells: _Cells) -> Figure | None:
    judged = cells.rows()["fidelity"].astype(object)
    faithful = judged.isin(["identical", "tie"]).astype(float).where(judged.notna())
    array = np.full(cells.shape, np.inf)
    array[cells.sample, cells.passes] = faithful.fillna(np.inf).to_numpy(dtype=float)
    worst = array.min(axis=1)
    return _mean(np.where(np.isfinite(worst), worst, np.nan))


def _score(cells: _Cells) -> Figure | None:
    return _scored(_mean(cells.by_sample(cells.rows()["score"])), 1.0)


def _score_difference(cells: _Cells) -> Figure | None:
    difference = cells.rows()["score"] - cells.rows(BASELINE)["score"].to_numpy()
    return _scored(_mean(cells.by_sample(difference)), 2.0)


def _prompts(samples: pd.MultiIndex) -> pd.MultiIndex:
    """Return the prompt of each sample: further pictures of one are named id#1, id#2, ..."""
    ids = samples.get_level_values(1).str.replace(_FURTHER_PICTURE, "", regex=True)
    return pd.MultiIndex.from_arrays([samples.get_level_values(0), ids], names=SAMPLE)


def _scored(found: Figure | None, span: float) -> Figure | None:
    return None if found is None else found._replace(span=span)


_LENGTHS = ("mal", "mal_request")
"""Quantities of methods whose rounds verify."""

_PAIRED = ("score_difference", "overhead")
"""Quantities without totals that need a baseline."""

_MEANS = {
    "mal_request": _mal_request,
    "fidelity": _fidelity,
    "score": _score,
    "score_difference": _score_difference,
    "ttft_ms": _time_to_first_token,
    "peak_memory_bytes": _peak_memory,
}


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
        return _scored(_mean(table["value"]), span)
    found = _scored(_mean(table["value"], 1.0 / sizes), span)
    if found is None or sizes.min() < 2:
        return found
    means = table[known].groupby("category")["value"].transform("mean").reindex(table.index)
    share = 1.0 / (sizes * table.loc[known, "category"].nunique())
    influence = (share * (table["value"] - means)).fillna(0.0).to_numpy(dtype=float)
    return found._replace(influence=influence[:, None])


def _mean(found: ArrayLike, weights: ArrayLike | None = None) -> Figure | None:
    """Return the (weighted) mean of one value a sample, NaN where there is none."""
    values = np.asarray(found, dtype=float)
    known = np.isfinite(values)
    if not known.any():
        return None
    weight = np.where(known, np.asarray(1.0 if weights is None else weights, dtype=float), 0.0)
    weight = weight / weight.sum()
    filled = np.where(known, values, 0.0)
    mean = float((weight * filled).sum())
    influence = np.where(known, weight * (filled - mean), 0.0)
    return _of(mean, influence[:, None], np.zeros(1, int), values)


def _of(
    value: float, influence: FloatArray, process: NDArray[np.int_], cells: FloatArray
) -> Figure:
    return Figure(value, value, influence, process, None, False, False, cells)


def _row_means(array: FloatArray) -> FloatArray:
    known = np.isfinite(array)
    count = known.sum(axis=1)
    total = np.where(known, array, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _fingerprint(arrays: Sequence[FloatArray]) -> FloatArray:
    """Return one number a sample that differs where any of its factors does."""
    means = [_row_means(array) for array in arrays]
    return np.asarray(sum(mean * (1.0 + 0.618 * place) for place, mean in enumerate(means)))


def _floor(cells: _Cells, raw: bool) -> float | None:
    seeds = np.full(cells.shape, np.nan)
    seeds[cells.sample, cells.passes] = cells.rows()["seed"].to_numpy(dtype=float)
    plain = cells.of(("total_ns",), BASELINE)
    if raw:
        return noise_floor(plain, cells.process.tolist(), draws=seeds)
    return speedup_floor(plain, cells.of(("total_ns",)), cells.process, seeds)


def _outputs(subject: Subject) -> pd.Series:
    """Return what each sample of each draw was answered with, as plain lists of ids."""
    frames = []
    for file in subject.files:
        own = file.outputs
        own = own[(own["arm"] == METHOD) & own["error"].isna() & own["output_ids"].notna()]
        frames.append(own.sort_values("repeat").assign(seed=_seed(file)))
    joined = pd.concat(frames).drop_duplicates([*SAMPLE, "seed"])
    ids = [tuple(tuple(turn) for turn in turns) for turns in joined["output_ids"]]
    index = pd.MultiIndex.from_arrays([joined[name] for name in (*SAMPLE, "seed")])
    return pd.Series(ids, index=index, dtype=object)


def _seed(file: ResultSet) -> int:
    sampling = file.metadata.config.get("sampling")
    if file.metadata.temperature == 0 or not isinstance(sampling, Mapping):
        return 0
    return int(sampling.get("seed") or 0)
