"""Measurements beside which something else happened: far slower than the same one at other times.

A process that was stopped, swapped out or starved inside of a timed region shows in one
measurement, and often in one of its rounds. The noise floor grows by it and does not say why.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from specbench.compare.measurements import Measurements
from specbench.compare.pool import Pool
from specbench.schema.result import BASELINE, METHOD

_FEWEST = 3
_STALLED = 3.0
"""Times a sample's median time for a token from which a measurement of it is named."""
_MOST_NAMED = 3


def stall_warnings(pools: Sequence[Pool]) -> list[str]:
    """Return a warning for each method of which measurements took several times their usual."""
    warnings = []
    for pool in pools:
        found: list[tuple[float, str]] = []
        for arm in (BASELINE, METHOD):
            measured = pool.arm(arm)
            slower = _times_the_median(measured)
            rounds, outlying = measured.values("outlying_round"), measured.values("outlying_times")
            stalled = np.flatnonzero((slower > _STALLED) | (rounds >= 0))
            ids, repeats = measured.raw("sample_id")[stalled], measured.raw("repeat")[stalled]
            names = measured.table.names["sample_id"]
            for place, sample, repeat in zip(stalled, ids, repeats, strict=True):
                which, times = f"{names[sample]}, {arm}, repeat {int(repeat)}", slower[place]
                if rounds[place] >= 0:
                    which, times = f"{which}, round {int(rounds[place])}", outlying[place]
                found.append((times, f"{which} ({times:.1f}x)"))
        if found:
            found.sort(reverse=True)
            listed = "; ".join(name for _, name in found[:_MOST_NAMED])
            more = f"; and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
            warnings.append(
                f"{pool.label}: held up while timed, against the median of the sample's repeats or "
                f"of rounds alike: {listed}{more}. Measure again (--fresh) on a machine at rest."
            )
    return warnings


def _times_the_median(measured: Measurements) -> NDArray[np.float64]:
    """Return each measurement's time for a token over its sample's lower median; 0 for few."""
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = measured.values("total_ns") / measured.values("new_tokens")
    samples = measured.samples
    counts = np.bincount(samples, minlength=measured.sample_count)
    order = np.lexsort((rates, samples))
    starts = np.concatenate([[0], counts.cumsum()[:-1]]).astype(np.int64)
    medians = rates[order][starts + (counts - 1) // 2] if len(rates) else rates
    with np.errstate(invalid="ignore", divide="ignore"):
        slower = rates / medians[samples]
    return np.where((counts[samples] >= _FEWEST) & np.isfinite(slower), slower, 0.0)
