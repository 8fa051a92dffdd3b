"""How fast a device moves memory: the limit that plain decoding is held against.

A decoding step reads every weight once and multiplies little, so that its time is bytes over
bandwidth. What a device can reach is measured by copying: large blocks, the bytes that are read
and those that are written, the best of several sizes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch

from specbench.models.checkpoint import free_memory
from specbench.runner.engine.timing import Spread, spread, stopwatch

MEBIBYTE = 2**20

CUDA_SIZES = (256 * MEBIBYTE, 1024 * MEBIBYTE, 4096 * MEBIBYTE)
"""Bytes of a block on a GPU: several times its caches, which hold some fifty megabytes."""

CPU_SIZES = (64 * MEBIBYTE, 256 * MEBIBYTE)
"""Bytes of a block on a CPU, likewise."""

READ_AT_MOST = {"cuda": 1024 * MEBIBYTE, "cpu": 128 * MEBIBYTE}
"""Bytes of the largest block that is read, by the kind of device: several times its caches."""

_COLUMNS = 1024
_SHARE_OF_FREE = 0.4
_FEWEST = 5


class Bandwidth(NamedTuple):
    """What copying a block reached.

    Attributes:
        bytes_per_second: Read and written bytes over the median time, at the best size.
        size: Bytes of the block at which it was reached.
        low: The same over the upper quartile of the times.
        high: Over the lower quartile.
    """

    bytes_per_second: float
    size: int
    low: float
    high: float


def copy_bandwidth(
    device: torch.device, seconds: float = 0.5, sizes: Sequence[int] = ()
) -> Bandwidth:
    """Measure a device's copy bandwidth.

    Args:
        device: The device.
        seconds: Roughly how long to measure, over all sizes.
        sizes: Bytes of the blocks; those that do not fit into the free memory are left out. None
            given: what the kind of device asks for.
    """
    wanted = sizes or (CUDA_SIZES if device.type == "cuda" else CPU_SIZES)
    fitting = [size for size in wanted if 2 * size <= _SHARE_OF_FREE * free_memory(device)]
    found = [
        _at(size, device, seconds / len(wanted)) for size in fitting or [min(wanted) // 16 or 1]
    ]
    return max(found, key=lambda each: each.bytes_per_second)


def read_bandwidth(device: torch.device, size: int, seconds: float = 0.2) -> float:
    """Measure how many bytes a second a device reads of a block, at best.

    A product with one vector reads like a decoding step, a sum reads with the least arithmetic;
    the faster of both counts, since nothing reads faster than the memory.

    Args:
        device: The device.
        size: Bytes of what a step reads. A larger one than `READ_AT_MOST` is read as fast as that;
            a smaller one may lie in the processor's caches, and is then read from them.
        seconds: Roughly how long to measure.
    """
    most = READ_AT_MOST["cuda" if device.type == "cuda" else "cpu"]
    rows = max(1, min(size, most) // (4 * _COLUMNS))
    block = torch.ones(rows, _COLUMNS, device=device)
    vector = torch.ones(_COLUMNS, device=device)
    watch = stopwatch(device)
    best = 0.0
    for work in (lambda: torch.mv(block, vector), lambda: block.sum()):
        watch.seconds(work)
        end = time.perf_counter() + seconds / 2
        times = [watch.seconds(work) for _ in range(_FEWEST)]
        while time.perf_counter() < end:
            times.append(watch.seconds(work))
        best = max(best, block.nbytes / min(times))
    return best


def _at(size: int, device: torch.device, seconds: float) -> Bandwidth:
    source = torch.ones(size, dtype=torch.uint8, device=device)
    sink = torch.empty_like(source)
    watch = stopwatch(device)
    for _ in range(2):
        watch.seconds(lambda: sink.copy_(source))
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < _FEWEST or time.perf_counter() < end:
        times.append(watch.seconds(lambda: sink.copy_(source)))
    taken: Spread = spread(times)
    assert statistics.median(times) == taken.median
    moved = 2 * size
    return Bandwidth(moved / taken.median, size, moved / taken.high, moved / taken.low)
