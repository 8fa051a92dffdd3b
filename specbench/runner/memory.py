"""Peak memory of one measurement."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch


class Allocator(Protocol):
    """What `PeakMemory` asks of a device's allocator; tests put a simulated one here."""

    def reset_peak(self) -> None:
        """Let the peak be what is allocated now."""

    def peak_bytes(self) -> int:
        """Most bytes that tensors have held since `reset_peak`."""

    def reserved_bytes(self) -> int:
        """Bytes taken from the device, in use or kept for later."""

    def segments(self) -> Sequence[Mapping[str, Any]]:
        """Every piece of memory taken from the device, as in `torch.cuda.memory_snapshot`."""


class TorchAllocator:
    """The caching allocator of torch."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._index = torch.cuda.current_device() if device.index is None else device.index

    def reset_peak(self) -> None:
        """Forget the peak of allocated bytes."""
        torch.cuda.reset_peak_memory_stats(self._device)

    def peak_bytes(self) -> int:
        """Peak of allocated bytes."""
        return int(torch.cuda.max_memory_allocated(self._device))

    def reserved_bytes(self) -> int:
        """Reserved bytes."""
        return int(torch.cuda.memory_reserved(self._device))

    def segments(self) -> Sequence[Mapping[str, Any]]:
        """The device's segments."""
        every = torch.cuda.memory_snapshot()
        return [segment for segment in every if segment["device"] == self._index]


class PeakMemory:
    """Resets and reads the peak of host and device memory around a measurement.

    On a device it is the most that tensors held, and beside it what the private pools of captured
    graphs keep: a replayed graph computes in memory that the allocator has counted as free since
    the capture. Reserved memory is no measure: it holds what any earlier measurement needed.

    Where the kernel does not let a process reset its own peak, the host's figure is the peak
    since the process began.

    Args:
        device: The device whose allocator is watched beside the host.
        allocator: That allocator; None means torch's on CUDA, and none elsewhere.
    """

    def __init__(self, device: torch.device, allocator: Allocator | None = None) -> None:
        on_cuda = allocator is None and device.type == "cuda"
        self._allocator = TorchAllocator(device) if on_cuda else allocator
        self._pools = (-1, 0)

    def reset(self) -> None:
        """Forget earlier peaks."""
        if self._allocator is not None:
            self._allocator.reset_peak()
        try:
            with open("/proc/self/clear_refs", "w") as control:
                control.write("5")
        except OSError:
            pass

    def device_bytes(self) -> int | None:
        """Return the device's peak, or None on a CPU."""
        if self._allocator is None:
            return None
        return self._allocator.peak_bytes() + self._pool_bytes(self._allocator)

    def _pool_bytes(self, allocator: Allocator) -> int:
        """Return what private pools keep beside living tensors.

        A snapshot takes milliseconds, and pools change only where memory is taken from the device.
        """
        reserved = allocator.reserved_bytes()
        if self._pools[0] != reserved:
            kept = sum(
                segment["total_size"] - segment["allocated_size"]
                for segment in allocator.segments()
                if tuple(segment.get("segment_pool_id", (0, 0))) != (0, 0)
            )
            self._pools = (reserved, kept)
        return self._pools[1]

    def host_bytes(self) -> int:
        """Return the peak resident size of this process."""
        try:
            with open("/proc/self/status") as lines:
                for line in lines:
                    if line.startswith("VmHWM:"):
                        return int(line.split()[1]) * 1024
        except OSError:
            pass
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
