"""A GPU at one moment, as NVML tells it through the package `nvidia-ml-py`.

Whatever a device, a driver or a container does not tell is None.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

REASONS = {
    0x001: "idle",
    0x002: "applications clocks",
    0x004: "software power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "power brake",
    0x100: "display clock",
}
"""Why clocks are not higher, by the bit of NVML's clocks event reasons (NVML API reference)."""

_SM, _MEMORY = 1, 2  # NVML_CLOCK_SM, NVML_CLOCK_MEM
_CORE = 0  # NVML_TEMPERATURE_GPU
_BY_HEAT = 1  # NVML_PERF_POLICY_THERMAL


class Reading(NamedTuple):
    """A device at one moment.

    Attributes:
        unix: Seconds since 1970.
        sm_clock_mhz: Clock of the multiprocessors.
        memory_clock_mhz: Clock of the memory.
        temperature_c: Of the chip.
        power_w: Power draw.
        utilisation_percent: Share of the last sample period with a kernel running.
        reasons: Why clocks are not higher; names of `REASONS`.
        other_processes: Processes that compute on it beside this one.
        slowed_ns: Time that it has spent slowed down by heat since its driver was loaded.
    """

    unix: float
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    temperature_c: int | None
    power_w: float | None
    utilisation_percent: int | None
    reasons: tuple[str, ...] | None
    other_processes: int | None
    slowed_ns: int | None


class Nvml:
    """One device as NVML sees it."""

    def __init__(self, module: Any, handle: Any) -> None:
        self._module = module
        self._handle = handle

    def reading(self) -> Reading:
        """Read what changes."""
        power = self._ask("nvmlDeviceGetPowerUsage")
        rates = self._ask("nvmlDeviceGetUtilizationRates")
        slowed = self._ask("nvmlDeviceGetViolationStatus", _BY_HEAT)
        return Reading(
            unix=time.time(),
            sm_clock_mhz=self._ask("nvmlDeviceGetClockInfo", _SM),
            memory_clock_mhz=self._ask("nvmlDeviceGetClockInfo", _MEMORY),
            temperature_c=self._first(
                ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"), _CORE
            ),
            power_w=None if power is None else power / 1000,
            utilisation_percent=None if rates is None else int(rates.gpu),
            reasons=self._reasons(),
            other_processes=self._others(),
            slowed_ns=None if slowed is None else int(slowed.violationTime),
        )

    def about(self) -> dict[str, Any]:
        """Return what does not change while a job runs."""
        limit = self._ask("nvmlDeviceGetEnforcedPowerLimit")
        mig = self._ask("nvmlDeviceGetMigMode")
        persistence = self._ask("nvmlDeviceGetPersistenceMode")
        ecc = self._ask("nvmlDeviceGetCurrentEccMode")
        return {
            "driver": _text(self._ask_system("nvmlSystemGetDriverVersion")),
            "power_limit_w": None if limit is None else limit / 1000,
            "max_sm_clock_mhz": self._ask("nvmlDeviceGetMaxClockInfo", _SM),
            "max_memory_clock_mhz": self._ask("nvmlDeviceGetMaxClockInfo", _MEMORY),
            "persistence": None if persistence is None else bool(persistence),
            "ecc": None if ecc is None else bool(ecc),
            "mig": None if mig is None else bool(mig[0]),
            "pcie_generation": self._ask("nvmlDeviceGetCurrPcieLinkGeneration"),
            "pcie_width": self._ask("nvmlDeviceGetCurrPcieLinkWidth"),
        }

    def _reasons(self) -> tuple[str, ...] | None:
        names = (
            "nvmlDeviceGetCurrentClocksEventReasons",
            "nvmlDeviceGetCurrentClocksThrottleReasons",
        )
        bits = self._first(names)
        if bits is None:
            return None
        return tuple(name for bit, name in REASONS.items() if bits & bit)

    def _others(self) -> int | None:
        """Count the other processes that compute.

        In a container NVML may number processes as the host does. This one is then none of its
        numbers, although it computes: one of the processes is taken for it.
        """
        found = self._ask("nvmlDeviceGetComputeRunningProcesses")
        if found is None:
            return None
        pids = {process.pid for process in found}
        return len(pids - {os.getpid()}) if os.getpid() in pids else max(0, len(pids) - 1)

    def _first(self, names: Sequence[str], *arguments: int) -> Any:
        """Ask by the newest name that package and driver know."""
        for name in names:
            found = self._ask(name, *arguments)
            if found is not None:
                return found
        return None

    def _ask(self, name: str, *arguments: int) -> Any:
        return self._ask_system(name, self._handle, *arguments)

    def _ask_system(self, name: str, *arguments: Any) -> Any:
        function = getattr(self._module, name, None)
        if function is None:
            return None
        try:
            return function(*arguments)
        except (self._module.NVMLError, TypeError):
            return None  # not supported, not permitted, or another signature in this version


def nvml_of(device: torch.device, module: Any = None) -> Nvml | None:
    """Return NVML's view of a CUDA device; None where there is none."""
    if device.type != "cuda":
        return None
    module = _initialised(module)
    if module is None:
        return None
    properties = torch.cuda.get_device_properties(device)
    for find, name in _names_of(properties):
        try:
            return Nvml(module, getattr(module, find)(name))
        except (AttributeError, module.NVMLError):
            continue
    return None


def _initialised(module: Any = None) -> Any:
    if module is None:
        try:
            module = importlib.import_module("pynvml")
        except ImportError:
            return None
    try:
        module.nvmlInit()
    except module.NVMLError:
        return None
    return module


def _names_of(properties: Any) -> list[tuple[str, str]]:
    """Return NVML's look-ups of a device that torch knows by these properties, surest first.

    CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER renumber devices, so that indices say nothing.
    """
    names = []
    if hasattr(properties, "uuid"):
        names = [
            ("nvmlDeviceGetHandleByUUID", f"{kind}-{properties.uuid}") for kind in ("GPU", "MIG")
        ]
    if hasattr(properties, "pci_bus_id"):
        place = (properties.pci_domain_id, properties.pci_bus_id, properties.pci_device_id)
        names.append(("nvmlDeviceGetHandleByPciBusId", "{:08x}:{:02x}:{:02x}.0".format(*place)))
    return names


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return value.decode() if isinstance(value, bytes) else str(value)
