"""What a GPU was doing beside our work: clocks, temperature, power, throttling, other processes.

A device is read (`specbench.runner.nvml`) after the warm-up, between measurements every few
seconds, and after the last one, always directly behind a generation, so that its clocks are those
of a device at work; never inside a timed one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch

from specbench.runner.nvml import Nvml, Reading, nvml_of
from specbench.runner.progress import Progress

INTERVAL = 5.0
"""Seconds between two readings of a running job; one takes milliseconds."""

HOT = 85
"""Degrees Celsius above which data-centre devices begin to slow down or are about to."""

FALLEN = 0.05
"""Share by which a clock may fall between the first and the last reading."""

SLOWED = 0.01
"""Share of the time that a device may have spent slowed down by heat."""

_THROTTLED = (
    "hardware slowdown",
    "software thermal slowdown",
    "hardware thermal slowdown",
    "power brake",
)
_CAPPED = "software power cap"
_IDLE = "idle"
_MEASURED = (
    "sm_clock_mhz",
    "memory_clock_mhz",
    "temperature_c",
    "power_w",
    "utilisation_percent",
    "other_processes",
)


class DeviceWatch:
    """Follows a device through one process of a job."""

    def __init__(self, nvml: Nvml, now: Callable[[], float] = time.monotonic) -> None:
        self._nvml = nvml
        self._now = now
        self._readings: list[Reading] = []
        self._next = 0.0
        self._about: dict[str, Any] = {}
        self._told: list[str] = []
        self._stated = 0

    def begin(self) -> list[str]:
        """Take the first reading; return what is doubtful already."""
        self._about = self._nvml.about()
        self._readings = []
        self._take()
        return self.news()

    def between(self) -> None:
        """Take a reading if the last one is some seconds old; nothing before `begin`."""
        if self._readings and self._now() >= self._next:
            self._take()

    def expect_end(self) -> None:
        """Take a reading at the next call of `between`, whatever time it is."""
        self._next = 0.0

    def news(self) -> list[str]:
        """Return what has become doubtful since the last call."""
        found = [line for line in doubts(self._about, self._readings) if line not in self._told]
        self._told += found
        return found

    def changed(self) -> bool:
        """Return whether the device was read since the last call of `state`."""
        return len(self._readings) > self._stated

    def state(self) -> dict[str, Any]:
        """Return what is known so far, as plain values."""
        self._stated = len(self._readings)
        first, last = self._readings[0], self._readings[-1]
        return {
            "about": self._about,
            "before": _plain(first),
            "during": _during(self._readings[1:-1]),
            "after": _plain(last),
            "warnings": doubts(self._about, self._readings),
            "notes": remarks(self._about, self._readings),
        }

    def _take(self) -> None:
        self._readings.append(self._nvml.reading())
        self._next = self._now() + INTERVAL


def watch_of(device: torch.device) -> DeviceWatch | None:
    """Return a watch over a CUDA device that NVML knows, None for any other."""
    nvml = nvml_of(device)
    return None if nvml is None else DeviceWatch(nvml)


def doubts(about: Mapping[str, Any], readings: Sequence[Reading]) -> list[str]:
    """Return what makes times on a device doubtful, each as half a sentence."""
    first, last = readings[0], readings[-1]
    found = []
    if about.get("mig"):
        found.append("it is one part of a GPU that is divided (MIG)")
    others = max((reading.other_processes or 0 for reading in readings), default=0)
    if others:
        found.append(f"{others} other {'process' if others == 1 else 'processes'} computed on it")
    seen = {reason for reading in readings for reason in reading.reasons or ()}
    slowed = [reason for reason in _THROTTLED if reason in seen]
    share = _slowed_share(first, last)
    if slowed:
        found.append(f"it slowed itself down ({', '.join(slowed)})")
    elif share is not None and share > SLOWED:
        found.append(f"it was slowed down by heat for {100 * share:.0f}% of the time")
    at_work = not any(_IDLE in (reading.reasons or ()) for reading in (first, last))
    before, after = first.sm_clock_mhz, last.sm_clock_mhz
    if at_work and before and after is not None and after < (1 - FALLEN) * before:
        found.append(f"its clock fell from {before} to {after} MHz")
    hottest = max((reading.temperature_c or 0 for reading in readings), default=0)
    if hottest > HOT:
        found.append(f"it was {hottest} degrees hot")
    return found


def remarks(about: Mapping[str, Any], readings: Sequence[Reading]) -> list[str]:
    """Return what is worth knowing of a device and makes no time doubtful."""
    found = []
    if any(_CAPPED in (reading.reasons or ()) for reading in readings):
        limit = about.get("power_limit_w")
        found.append("it ran at its power limit" + (f" of {limit:.0f} W" if limit else ""))
    clocks = [reading.sm_clock_mhz for reading in readings if reading.sm_clock_mhz is not None]
    if len(set(clocks)) > 1:
        found.append(f"its clock was not fixed: {min(clocks)} to {max(clocks)} MHz")
    return found


def tell(progress: Progress, found: Sequence[str]) -> None:
    """Print one line of what makes times doubtful and what to do, where anything does."""
    if found:
        progress.warn(
            f"The device was not at rest: {'; '.join(found)}. Times are doubtful: end what runs "
            "beside this, cool it or fix its clocks, and measure again."
        )


def is_state(value: Any) -> bool:
    """Return whether a value from a journal is what `DeviceWatch.state` returns."""
    if not isinstance(value, Mapping) or not isinstance(value.get("during"), Mapping):
        return False
    kinds = {"about": Mapping, "before": Mapping, "after": Mapping, "warnings": list, "notes": list}
    if not all(isinstance(value.get(name), kind) for name, kind in kinds.items()):
        return False
    parts = [value["during"][name] for name in _MEASURED if name in value["during"]]
    return all(
        isinstance(part, Mapping)
        and all(isinstance(part.get(end), (int, float)) for end in ("min", "median", "max"))
        for part in parts
    )


def joined(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the states of a job's processes, in order, as one."""
    during: dict[str, Any] = {}
    for name in _MEASURED:
        parts = [state["during"][name] for state in states if name in state["during"]]
        if parts:
            during[name] = {
                "min": min(part["min"] for part in parts),
                "median": median(part["median"] for part in parts),
                "max": max(part["max"] for part in parts),
            }
    return {
        "about": states[0]["about"],
        "before": states[0]["before"],
        "during": during,
        "after": states[-1]["after"],
        **{
            kind: list(dict.fromkeys(str(line) for state in states for line in state[kind]))
            for kind in ("warnings", "notes")
        },
    }


def _during(readings: Sequence[Reading]) -> dict[str, Any]:
    found = {}
    for name in _MEASURED:
        values = [value for each in readings if (value := getattr(each, name)) is not None]
        if values:
            found[name] = {"min": min(values), "median": median(values), "max": max(values)}
    return found


def _slowed_share(first: Reading, last: Reading) -> float | None:
    elapsed = last.unix - first.unix
    if first.slowed_ns is None or last.slowed_ns is None or elapsed <= 0:
        return None
    return (last.slowed_ns - first.slowed_ns) / 1e9 / elapsed


def _plain(reading: Reading) -> dict[str, Any]:
    values = reading._asdict()
    values["reasons"] = None if reading.reasons is None else list(reading.reasons)
    return values
