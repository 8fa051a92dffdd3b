"""One metric's value and influences, cell by cell: a sample in a pass is a cell."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from specbench.compare.floor import speedup_floor
from specbench.compare.metric import COUNT, Total
from specbench.compare.subject import Arms
from specbench.schema.result import BASELINE, METHOD
from specbench.stats import FloatArray, noise_floor

_PASS = ["file", "process", "repeat"]


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


class Cells:
    """Columns of both arms as arrays of shape (samples, passes).

    Args:
        arms: The measurements.
        samples: The samples, a row of each array.
    """

    def __init__(self, arms: Arms, samples: pd.MultiIndex) -> None:
        self._arms = arms
        self.sample = samples.get_indexer(arms.samples)
        self.passes, labels = pd.MultiIndex.from_frame(arms.method[_PASS]).factorize()
        self.shape = (len(samples), len(labels))
        names = [label[:2] for label in labels]
        self.process = np.asarray(pd.MultiIndex.from_tuples(names).factorize()[0], dtype=int)

    def of(self, column: str, arm: str = METHOD) -> FloatArray:
        """Return a column of one arm, or ones for `COUNT`."""
        rows = self.rows(arm)
        array = np.full(self.shape, np.nan)
        array[self.sample, self.passes] = (
            1.0 if column == COUNT else rows[column].to_numpy(dtype=float)
        )
        return array

    def rows(self, arm: str = METHOD) -> pd.DataFrame:
        """Return the rows of one arm."""
        return self._arms.baseline if arm == BASELINE else self._arms.method

    def by_sample(self, values: pd.Series) -> FloatArray:
        """Return the mean of some values of the method's rows for each sample."""
        total = np.full(self.shape, np.nan)
        total[self.sample, self.passes] = values.to_numpy(dtype=float)
        return _row_means(total)


def floor_of(cells: Cells, raw: bool) -> float | None:
    """Return the noise floor of a time of one machine (`raw`), or of a speedup."""
    seeds = np.full(cells.shape, np.nan)
    seeds[cells.sample, cells.passes] = cells.rows()["seed"].to_numpy(dtype=float)
    plain = cells.of("total_ns", BASELINE)
    if raw:
        return noise_floor(plain, cells.process.tolist(), draws=seeds)
    return speedup_floor(plain, cells.of("total_ns"), cells.process, seeds)


def product(
    cells: Cells, totals: Sequence[Total], scale: float = 1.0, counted: bool = False
) -> Figure | None:
    """Return a product of totals; None where a divisor is 0.

    Args:
        cells: The measurements.
        totals: The factors.
        scale: Unit conversion.
        counted: Whether all passes repeat the same counts, so that only the samples move it.
    """
    arrays = [total.of(partial(cells.of, arm=total.arm)) for total in totals]
    known = np.logical_and.reduce([np.isfinite(array) for array in arrays])
    filled = [np.where(known, array, 0.0) for array in arrays]
    sums = [float(array.sum()) for array in filled]
    if any(whole <= 0 for total, whole in zip(totals, sums, strict=True) if total.power < 0):
        return None
    if min(sums) <= 0:  # an empty factor, such as nothing accepted
        return _of(0.0, np.zeros(cells.shape), cells.process, np.zeros(cells.shape[0]))
    log, value = np.zeros(cells.shape), scale
    for total, array, whole in zip(totals, filled, sums, strict=True):
        log += total.power * array / whole
        value *= whole**total.power
    process = cells.process
    if counted:
        log, process = log.sum(axis=1, keepdims=True), np.zeros(1, int)
    return _of(value, log * value, process, _fingerprint(arrays))


def overhead(
    cells: Cells, observed_totals: Sequence[Total], predicted_totals: Sequence[Total]
) -> Figure | None:
    """Return the share of a predicted speedup that was not observed."""
    observed, predicted = product(cells, observed_totals), product(cells, predicted_totals)
    if observed is None or predicted is None or predicted.value <= 0 or observed.value <= 0:
        return None
    share = observed.value / predicted.value
    moved = observed.influence / observed.value - predicted.influence / predicted.value
    return _of(1 - share, -share * moved, cells.process, observed.cells)


def time_to_first_token(cells: Cells) -> Figure | None:
    """Return the median time to the first token, which moves as the mean of logarithms does."""
    times = cells.of("ttft_ns") / 1e6
    if not np.isfinite(times).any() or not (times[np.isfinite(times)] > 0).all():
        return None
    logs = np.log(times)
    known = np.isfinite(logs)
    mean = float(logs[known].mean())
    influence = np.where(known, logs - mean, 0.0) / known.sum()
    centre = float(np.exp(mean))
    found = _of(centre, influence * centre, cells.process, _row_means(times))
    return found._replace(value=float(np.median(times[known])))


def peak_memory(cells: Cells) -> Figure | None:
    """Return the peak memory: of a device by sample, of a process by process."""
    device = cells.of("peak_device_bytes")
    if np.isfinite(device).any():
        peaks = np.where(np.isfinite(device), device, -np.inf).max(axis=1)
        found = mean_of(np.where(np.isfinite(peaks), np.log(np.maximum(peaks, 1.0)), np.nan))
        assert found is not None
        centre = float(np.exp(found.value))
        moved = found.influence * centre
        return found._replace(value=float(peaks.max()), centre=centre, influence=moved)
    resident = cells.of("peak_rss_bytes")
    if not np.isfinite(resident).any():
        return None
    names = np.unique(cells.process)
    highest = [float(np.nanmax(resident[:, cells.process == name])) for name in names]
    logs = np.log(highest)
    centre = float(np.exp(logs.mean()))
    influence = (centre * (logs - logs.mean()) / len(logs))[None, :]
    found = _of(centre, influence, names, np.full(1, np.nan))
    return found._replace(value=max(highest))


def mal_request(cells: Cells) -> Figure | None:
    """Return the mean of the measurements' own acceptance lengths."""
    emitted, rounds = (cells.of(f"verification_{name}") for name in ("emitted", "rounds"))
    with np.errstate(invalid="ignore", divide="ignore"):
        own = np.where(rounds > 0, emitted / rounds, np.nan)
    return mean_of(_row_means(own), np.isfinite(own).sum(axis=1))


def fidelity(cells: Cells) -> Figure | None:
    """Return the share of samples whose worst repeat is faithful."""
    judged = cells.rows()["fidelity"].astype(object)
    faithful = judged.isin(["identical", "tie"]).astype(float).where(judged.notna())
    array = np.full(cells.shape, np.inf)
    array[cells.sample, cells.passes] = faithful.fillna(np.inf).to_numpy(dtype=float)
    worst = array.min(axis=1)
    return mean_of(np.where(np.isfinite(worst), worst, np.nan))


def score(cells: Cells) -> Figure | None:
    """Return the mean score."""
    return scored(mean_of(cells.by_sample(cells.rows()["score"])), 1.0)


def score_difference(cells: Cells) -> Figure | None:
    """Return the mean paired difference of scores."""
    difference = cells.rows()["score"] - cells.rows(BASELINE)["score"].to_numpy()
    return scored(mean_of(cells.by_sample(difference)), 2.0)


def scored(found: Figure | None, span: float) -> Figure | None:
    """Return a mean of scores with the largest change of one of them."""
    return None if found is None else found._replace(span=span)


def mean_of(found: ArrayLike, weights: ArrayLike | None = None) -> Figure | None:
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
