"""A stand-in for `pynvml` whose answers are given."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """What every failing call raises."""


class NVMLError_NotSupported(NVMLError):
    """What a device answers to what it does not know."""


class FakeNvml:
    """One device; `values` maps what is asked to an answer, or to an error that is raised."""

    NVMLError = NVMLError

    def __init__(self, **values: Any) -> None:
        self.values: dict[str, Any] = {
            "clocks": {1: 1980, 2: 3201},
            "max_clocks": {1: 1980, 2: 3201},
            "temperature": 45,
            "power": 350_500,
            "limit": 700_000,
            "busy": 97,
            "reasons": 0,
            "pids": (os.getpid(),),
            "slowed": 0,
            "mig": [0, 0],
            "persistence": 1,
            "ecc": 1,
            "driver": "580.95",
            "generation": 5,
            "width": 16,
            "init": None,
            **values,
        }
        self.calls = 0
        self.asked_for: list[str] = []

    def _answer(self, name: str) -> Any:
        self.calls += 1
        value = self.values[name]
        if isinstance(value, Exception):
            raise value
        return value

    def nvmlInit(self):
        self._answer("init")

    def nvmlDeviceGetHandleByUUID(self, uuid):
        self.asked_for.append(uuid)
        raise NVMLError_NotSupported("of another driver")

    def nvmlDeviceGetHandleByPciBusId(self, place):
        self.asked_for.append(place)
        return "handle"

    def nvmlDeviceGetClockInfo(self, handle, kind):
        assert handle == "handle"
        return self._answer("clocks")[kind]

    def nvmlDeviceGetMaxClockInfo(self, handle, kind):
        return self._answer("max_clocks")[kind]

    def nvmlDeviceGetTemperature(self, handle, sensor):
        assert sensor == 0
        return self._answer("temperature")

    def nvmlDeviceGetPowerUsage(self, handle):
        return self._answer("power")

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):
        return self._answer("limit")

    def nvmlDeviceGetUtilizationRates(self, handle):
        return SimpleNamespace(gpu=self._answer("busy"), memory=50)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        return self._answer("reasons")

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [SimpleNamespace(pid=pid, usedGpuMemory=1) for pid in self._answer("pids")]

    def nvmlDeviceGetViolationStatus(self, handle, policy):
        assert policy == 1
        return SimpleNamespace(referenceTime=0, violationTime=self._answer("slowed"))

    def nvmlDeviceGetMigMode(self, handle):
        return self._answer("mig")

    def nvmlDeviceGetPersistenceMode(self, handle):
        return self._answer("persistence")

    def nvmlDeviceGetCurrentEccMode(self, handle):
        return self._answer("ecc")

    def nvmlSystemGetDriverVersion(self):
        return self._answer("driver")

    def nvmlDeviceGetCurrPcieLinkGeneration(self, handle):
        return self._answer("generation")

    def nvmlDeviceGetCurrPcieLinkWidth(self, handle):
        return self._answer("width")


def unsupported() -> FakeNvml:
    """A device that answers nothing."""
    found = FakeNvml()
    error = NVMLError_NotSupported("Not Supported")
    found.values = {name: error for name in found.values} | {"init": None}
    return found
