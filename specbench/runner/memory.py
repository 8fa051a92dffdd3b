"""Peak memory of one measurement."""

from __future__ import annotations

import resource
import sys

import torch


class PeakMemory:
    """Resets and reads the peak of host and device memory around a measurement.

    Where the kernel does not let a process reset its own peak, the host's figure is the peak
    since the process began.

    Args:
        device: The device whose allocator is watched beside the host.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def reset(self) -> None:
        """Forget earlier peaks."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        try:
            with open("/proc/self/clear_refs", "w") as control:
                control.write("5")
        except OSError:
            pass

    def device_bytes(self) -> int | None:
        """Return the device's peak, or None on a CPU."""
        if self._device.type != "cuda":
            return None
        return int(torch.cuda.max_memory_allocated(self._device))

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
