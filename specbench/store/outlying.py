"""Rounds that took far longer than others alike: something else happened beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

TIMES = 5.0
"""Times the median of its kind from which a round is outlying."""

SHARE = 0.2
"""Share of its measurement's time from which it matters."""

_FEWEST_ALIKE = 8  # rounds of a kind from which a median says what is usual


def outlying(
    values: Mapping[str, NDArray[Any]], lengths: NDArray[np.int64], first: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the measurements of which one round took far longer than the file's rounds alike.

    Rounds are alike with as many nodes, target forwards and draft forwards.

    Args:
        values: Fields of all rounds, measurement after measurement.
        lengths: Rounds of each measurement.
        first: Which rounds are a turn's first; they are not looked at.

    Returns:
        The place of each measurement's outlying round, -1 for none, and how many times the median
        of its kind it took, 0 for none.
    """
    place, times = np.full(len(lengths), -1.0), np.zeros(len(lengths))
    spent = values["draft_ns"].astype(np.int64)
    for part in ("target", "host", "sampling"):
        spent += values[f"{part}_ns"]
    spent[first] = 0
    filled = np.flatnonzero(lengths > 0)
    starts = (np.cumsum(lengths) - lengths)[filled]
    if not len(filled):
        return place, times
    largest = np.maximum.reduceat(spent, starts)
    whole = np.add.reduceat(spent, starts)
    rounds = np.add.reduceat(~first, starts, dtype=np.int64)
    suspects = (largest * rounds > 2 * whole) & (largest > SHARE * whole)
    alike = [values[name] for name in ("nodes", "target_forwards", "draft_forwards")]
    for number in np.flatnonzero(suspects):
        start = starts[number]
        slowest = start + int(spent[start : start + lengths[filled[number]]].argmax())
        same = np.logical_and.reduce([kind == kind[slowest] for kind in alike]) & ~first
        if same.sum() < _FEWEST_ALIKE or not (usual := float(np.median(spent[same]))):
            continue
        if spent[slowest] >= TIMES * usual:
            place[filled[number]] = slowest - start
            times[filled[number]] = spent[slowest] / usual
    return place, times
