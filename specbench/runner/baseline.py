"""How good a run's baseline is: how much of the memory's reading speed plain decoding reached.

A step of plain decoding reads every multiplied weight and the cache once (a head that is tied to
the embedding once), and cannot take less time than that. A baseline far from the bound makes every
method beside it look fast.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from specbench.compare.baseline import PLAIN
from specbench.models.base import Model
from specbench.runner.bandwidth import read_bandwidth

_CACHE_SIZE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")


def measured_bandwidth(model: Model) -> dict[str, Any] | None:
    """Measure the reading speed that bounds a model's steps; None where its shape is not known.

    Returns:
        `bytes_per_second`, the bytes of weights that a step reads, and whether they fit into the
        processor's last cache, which then sets the bound.
    """
    read = _weight_bytes(model)
    if read is None:
        return None
    speed = read_bandwidth(model.device, read)
    in_cache = model.device.type == "cpu" and read <= _last_cache()
    return {"bytes_per_second": speed, "weight_bytes": read, "in_cache": in_cache}


def roofline(
    rows: Iterable[Mapping[str, Any]], model: Model, processes: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Return which share of the bound plain decoding reached, over all its measurements.

    Args:
        rows: Of the result file.
        model: The target.
        processes: The notes of the processes, with their `bandwidth`.

    Returns:
        What `measured_bandwidth` returns, its speed the median of the processes, and the
        `fraction`; None where plain decoding or the bandwidth was not measured.
    """
    found = [note["bandwidth"] for note in processes if note.get("bandwidth")]
    sizes = model.sizes
    if not found or sizes is None:
        return None
    speed = statistics.median(each["bytes_per_second"] for each in found)
    read, nanoseconds = 0.0, 0
    for row in rows:
        if row["method"] != PLAIN or row.get("error") is not None or not row.get("decode_ns"):
            continue
        rounds = row.get("rounds") or ()
        steps = len(rounds) - len({each["turn"] for each in rounds})
        cached = row["prompt_tokens"] + row["new_tokens"] / 2
        read += steps * (found[0]["weight_bytes"] + cached * sizes.cache_bytes_per_token)
        nanoseconds += row["decode_ns"]
    if not nanoseconds or not speed:
        return None
    return {**found[0], "bytes_per_second": speed, "fraction": read / speed / (nanoseconds / 1e9)}


def _weight_bytes(model: Model) -> int | None:
    """Return the bytes of the weights that every step reads."""
    sizes = model.sizes
    if sizes is None or sizes.shape is None:
        return None
    return sizes.shape.multiplied_parameters * sizes.weight_bytes // sizes.parameters


def _last_cache() -> int:
    """Return the bytes of the processor's last cache; 0 where the system does not tell."""
    try:
        return int(_CACHE_SIZE.read_text(encoding="ascii").strip().removesuffix("K")) << 10
    except (OSError, ValueError):
        return 0
