"""Is the machine at rest, so that a time means something?

What other processes use is the machine's busy time less our own: over the seconds in which the
models were loaded, and over those in which the job measured. Knowing it costs nothing. Both are
recorded with every result. A run that starts on a busy machine says so, and what disturbed the
measurements themselves is said wherever their times are shown.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

_SHORTEST = 0.25  # seconds: a tick of the kernel's counters is a hundredth
_LIKELY = 0.5  # processors in use by others that slow an arm down
_WINDOW = 10.0  # seconds between two looks while a job measures
_STOLEN = 0.02  # share of a processor's time that the host of a virtual machine took
_STAT = Path("/proc/stat")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


class Rest(NamedTuple):
    """How busy the machine was before a run measured anything.

    Attributes:
        others: Processors that other processes kept busy, on average; None where unknown.
        stolen: Share of the processors' time that a virtual machine's host took; None: unknown.
        load: The load average of the last minute, this process included; None: unknown.
        governor: The policy by which the first processor's frequency changes, or empty.
        cpus: Processors of the machine.
    """

    others: float | None
    stolen: float | None
    load: float | None
    governor: str
    cpus: int

    def advice(self, threads: int) -> str:
        """Return one line of what disturbs a run and what to do, or nothing.

        Args:
            threads: How many processors the run itself keeps busy.
        """
        found = self.disturbances(threads)
        if self.governor == "powersave":
            found.append("the CPU's frequency follows the governor 'powersave'")
        if not found:
            return ""
        return (
            f"The machine is not at rest: {'; '.join(found)}. Times will vary: end what runs "
            "beside this, or judge by forwards and acceptance."
        )

    def disturbances(self, threads: int) -> list[str]:
        """Return who else used what the run needs, each as half a sentence.

        Args:
            threads: How many processors the run itself keeps busy.
        """
        found = []
        others = self.others or 0.0
        if others >= _LIKELY and others + threads > self.cpus:
            found.append(f"other processes keep {others:.1f} of {self.cpus} CPUs busy")
        if self.stolen is not None and self.stolen >= _STOLEN:
            found.append(f"the host takes {100 * self.stolen:.0f}% of this virtual machine's time")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return what the provenance keeps."""
        return {
            "others_busy_cpus": None if self.others is None else round(self.others, 3),
            "stolen_share": None if self.stolen is None else round(self.stolen, 4),
            "load_average": self.load,
            "governor": self.governor or None,
        }


class Watch:
    """Counts the machine's busy time from its making to `rest`."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._own = _own_seconds()
        self._counted = _counters()

    @property
    def age(self) -> float:
        """Seconds since its making."""
        return time.monotonic() - self._start

    def rest(self) -> Rest:
        """Return how busy the machine was since; too short a time leaves that unknown."""
        elapsed = time.monotonic() - self._start
        cpus = os.cpu_count() or 1
        now = _counters()
        others = stolen = None
        if now is not None and self._counted is not None and elapsed >= _SHORTEST:
            busy, steal = now[0] - self._counted[0], now[1] - self._counted[1]
            own = _own_seconds() - self._own
            others = max(0.0, (busy - own) / elapsed)
            stolen = max(0.0, steal / (elapsed * cpus))
        return Rest(others, stolen, _load(), _governor(), cpus)


class Neighbours:
    """Follows, between measurements, what other processes do while a job measures.

    Args:
        threads: How many processors the run itself keeps busy.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._whole = Watch()
        self._window = Watch()
        self._most: float | None = None

    def look(self) -> bool:
        """Look if the last look is some seconds ago; return whether it was taken."""
        if self._window.age < _WINDOW:
            return False
        others = self._window.rest().others
        if others is not None:
            self._most = max(others, self._most or 0.0)
        self._window = Watch()
        return True

    def state(self) -> dict[str, Any]:
        """Return what the provenance keeps of the time since the begin."""
        rest = self._whole.rest()
        return {
            **rest.to_dict(),
            "others_busy_cpus_most": None if self._most is None else round(self._most, 3),
            "warnings": rest.disturbances(self._threads),
        }


def _counters() -> tuple[float, float] | None:
    """Return the busy and the stolen seconds of all processors since the machine started."""
    try:
        with _STAT.open() as lines:
            ticks = [int(field) for field in lines.readline().split()[1:9]]
        rate = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None
    if len(ticks) < 8:
        return None
    user, nice, system, _, _, interrupts, soft_interrupts, steal = ticks
    return (user + nice + system + interrupts + soft_interrupts) / rate, steal / rate


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def _governor() -> str:
    try:
        return _GOVERNOR.read_text().strip()
    except OSError:
        return ""
