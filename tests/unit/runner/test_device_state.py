"""What a run knows of a GPU beside its work, from a stand-in for NVML."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import pytest
import torch

from specbench import store
from specbench.compare import compare
from specbench.runner import job, nvml, run_job
from specbench.runner.device_state import (
    HOT,
    INTERVAL,
    DeviceWatch,
    doubts,
    is_state,
    joined,
    remarks,
    watch_of,
)
from specbench.runner.measure import Bench
from specbench.runner.notes import with_notes
from specbench.runner.nvml import Nvml, Reading, nvml_of
from tests.unit.compare.factory import job_rows, metadata, result_set
from tests.unit.runner import toy
from tests.unit.runner.fake_nvml import FakeNvml, NVMLError, NVMLError_NotSupported, unsupported

QUIET = Reading(1000.0, 1980, 3201, 45, 350.5, 97, (), 0, 0)
LATER = QUIET._replace(unix=1100.0)


def watch(fake, times=None):
    clock = iter(times) if times is not None else iter(float(t) for t in range(10**6))
    return DeviceWatch(Nvml(fake, "handle"), lambda: next(clock))


def test_a_reading_has_units():
    found = Nvml(FakeNvml(reasons=0x1 | 0x4 | 0x80 | 0x8000), "handle").reading()
    assert found._replace(unix=1000.0) == QUIET._replace(
        reasons=("idle", "software power cap", "power brake")
    )
    about = Nvml(FakeNvml(mig=[1, 0], driver=b"580.95"), "handle").about()
    assert about == {
        "driver": "580.95",
        "power_limit_w": 700.0,
        "max_sm_clock_mhz": 1980,
        "max_memory_clock_mhz": 3201,
        "persistence": True,
        "ecc": True,
        "mig": True,
        "pcie_generation": 5,
        "pcie_width": 16,
    }


def test_a_device_that_tells_nothing_stops_nothing():
    seen = watch(unsupported())
    assert seen.begin() == []
    seen.between()
    state = seen.state()
    assert set(state["about"].values()) == {None}
    assert {value for key, value in state["before"].items() if key != "unix"} == {None}
    assert state["during"] == {} and state["warnings"] == state["notes"] == []
    json.dumps(state)


@pytest.mark.parametrize(
    ("pids", "others"),
    [
        ((), 0),
        ((os.getpid(),), 0),
        ((os.getpid(), 1, 2), 2),
        ((999_999_999,), 0),  # a container: this one under its number outside
        ((999_999_999, 999_999_998), 1),
    ],
)
def test_our_own_process_is_no_other(pids, others):
    assert Nvml(FakeNvml(pids=pids), "handle").reading().other_processes == others


def test_an_older_package_or_driver_is_asked_by_the_older_name():
    fake = FakeNvml()
    fake.values["reasons"] = NVMLError_NotSupported("unknown function")
    fake.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: 0x40
    fake.nvmlDeviceGetTemperatureV = lambda handle, sensor: 51
    found = Nvml(fake, "handle").reading()
    assert found.reasons == ("hardware thermal slowdown",) and found.temperature_c == 51


@pytest.mark.parametrize(
    ("first", "last", "about", "words"),
    [
        ({}, {"other_processes": 1}, {}, "1 other process computed on it"),
        ({"other_processes": 2}, {}, {}, "2 other processes computed on it"),
        ({}, {"reasons": ("hardware thermal slowdown",)}, {}, "(hardware thermal slowdown)"),
        ({"reasons": ("power brake",)}, {}, {}, "slowed itself down (power brake)"),
        ({}, {"slowed_ns": 12 * 10**9}, {}, "slowed down by heat for 12% of the time"),
        ({}, {"sm_clock_mhz": 1755}, {}, "fell from 1980 to 1755 MHz"),
        ({}, {"temperature_c": HOT + 3}, {}, f"was {HOT + 3} degrees hot"),
        ({}, {}, {"mig": True}, "(MIG)"),
    ],
)
def test_each_disturbance_is_said(first, last, about, words):
    (found,) = doubts(about, [QUIET._replace(**first), LATER._replace(**last)])
    assert words in found


def test_a_device_at_rest_is_not_mentioned():
    assert doubts({"mig": False}, [QUIET, LATER]) == []
    assert doubts({}, [QUIET]) == [] and remarks({}, [QUIET, LATER]) == []
    small = {"sm_clock_mhz": 1890, "temperature_c": HOT, "slowed_ns": 10**9}
    assert doubts({}, [QUIET, LATER._replace(**small)]) == []


def test_an_idle_devices_clock_says_nothing():
    fallen = {"sm_clock_mhz": 345, "reasons": ("idle",)}
    assert doubts({}, [QUIET, LATER._replace(**fallen)]) == []
    assert doubts({}, [QUIET._replace(**fallen), LATER]) == []


def test_what_is_usual_is_a_note():
    capped = LATER._replace(reasons=("software power cap",), sm_clock_mhz=1950)
    assert doubts({}, [QUIET, capped]) == []
    assert remarks({"power_limit_w": 700.0}, [QUIET, capped]) == [
        "it ran at its power limit of 700 W",
        "its clock was not fixed: 1950 to 1980 MHz",
    ]


def test_readings_are_seconds_apart_and_begin_with_begin():
    fake = FakeNvml()
    # `begin` reads the time once, `between` once, and once more where it takes a reading
    seen = watch(fake, [0.0, INTERVAL - 1, INTERVAL, INTERVAL, INTERVAL + 1, 7.0])
    seen.between()
    assert fake.calls == 0
    seen.begin()
    calls = fake.calls
    seen.between()
    assert fake.calls == calls
    fake.values["temperature"] = 60
    seen.between()
    assert fake.calls > calls
    fake.values["temperature"] = 50
    seen.expect_end()
    seen.between()
    state = seen.state()
    assert [state[when]["temperature_c"] for when in ("before", "after")] == [45, 50]
    assert state["during"]["temperature_c"] == {"min": 60, "median": 60, "max": 60}
    assert is_state(json.loads(json.dumps(state)))


def test_news_is_told_once():
    fake = FakeNvml(pids=(os.getpid(), 1))
    seen = watch(fake)
    assert seen.begin() == ["1 other process computed on it"] and seen.news() == []
    fake.values["reasons"] = 0x40
    seen.expect_end()
    seen.between()
    assert seen.news() == ["it slowed itself down (hardware thermal slowdown)"]
    assert len(seen.state()["warnings"]) == 2


def state_of(temperatures, pids=()):
    fake = FakeNvml(pids=(os.getpid(), *pids))
    seen = watch(fake)
    for place, value in enumerate(temperatures):
        fake.values["temperature"] = value
        if place == 0:
            seen.begin()
            continue
        seen.expect_end()
        seen.between()
    return seen.state()


def test_the_states_of_several_processes_are_one():
    states = [state_of([40, 50, 52, 41]), state_of([43, 60, 44], pids=(1,))]
    one = joined(states)
    assert one["before"]["temperature_c"] == 40 and one["after"]["temperature_c"] == 44
    assert one["during"]["temperature_c"] == {"min": 50, "median": 55.5, "max": 60}
    assert one["warnings"] == ["1 other process computed on it"]


def test_the_last_note_of_a_start_stands_and_none_is_believed_blindly():
    state = state_of([40, 50, 41])
    notes = [
        {"process": 0, "started_unix": 1.0},
        {"process": 0, "started_unix": 1.0, "device_state": state},
        {"process": 0, "started_unix": 2.0, "device_state": {"during": {"power_w": 3}}},
        {"started_unix": []},
    ]
    found = with_notes({"cpu": "x", "processes": [{"process": 0, "started_unix": 0.5}]}, notes)
    assert [note.get("started_unix") for note in found["processes"]] == [0.5, 1.0, 2.0, []]
    assert found["device_state"] == joined([state]) and found["cpu"] == "x"
    assert "device_state" not in with_notes({}, notes[:1])


def test_no_device_no_watch():
    assert watch_of(torch.device("cpu")) is None and nvml_of(torch.device("cpu")) is None


def test_without_the_package_or_its_library_no_device_is_watched(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(nvml.importlib, "import_module", missing)
    assert nvml_of(torch.device("cuda")) is None
    lost = FakeNvml(init=NVMLError("NVML Shared Library Not Found"))
    assert nvml_of(torch.device("cuda"), lost) is None


def test_a_device_is_found_by_what_it_is_and_not_by_its_number(monkeypatch):
    place = {"pci_domain_id": 0, "pci_bus_id": 0xA1, "pci_device_id": 2}
    properties = SimpleNamespace(uuid="1-2", **place)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    fake = FakeNvml()
    assert nvml_of(torch.device("cuda"), fake) is not None
    assert fake.asked_for == ["GPU-1-2", "MIG-1-2", "00000000:a1:02.0"]


def test_the_real_package_has_every_function_that_is_asked_for():
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    asked = {name for name in dir(FakeNvml) if name.startswith("nvml")}
    assert asked | {"NVMLError", "nvmlDeviceGetTemperatureV"} <= set(dir(pynvml))
    assert (pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM) == (nvml._SM, nvml._MEMORY)
    assert pynvml.NVML_TEMPERATURE_GPU == nvml._CORE
    assert pynvml.NVML_PERF_POLICY_THERMAL == nvml._BY_HEAT
    bits = {
        "idle": pynvml.nvmlClocksEventReasonGpuIdle,
        "software power cap": pynvml.nvmlClocksEventReasonSwPowerCap,
        "hardware slowdown": pynvml.nvmlClocksEventReasonHwSlowdown,
        "software thermal slowdown": pynvml.nvmlClocksEventReasonSwThermalSlowdown,
        "hardware thermal slowdown": pynvml.nvmlClocksEventReasonHwThermalSlowdown,
        "power brake": pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    }
    assert {name: bit for bit, name in nvml.REASONS.items() if name in bits} == bits


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_real_device_answers():
    found = nvml_of(torch.device("cuda"))
    if found is None:
        pytest.skip("needs CUDA and NVML")
    assert found is not None and found.about()["driver"]
    assert found.reading().other_processes is not None


class Spoken:
    """A progress that keeps what it is told."""

    def __init__(self, *extent):
        self.warned = []

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def say(self, activity):
        pass

    def warn(self, line):
        self.warned.append(line)

    def note(self, line):
        pass

    def advance(self, measurements, tokens, seconds):
        pass


def test_a_job_reads_its_device_between_measurements_only(tmp_path, monkeypatch):
    fake = FakeNvml(pids=(os.getpid(), 1))
    spoken = Spoken()
    monkeypatch.setattr(job, "watch_of", lambda device: watch(fake))
    original = Bench._timed

    def timed(self, entry, request):
        calls = fake.calls
        found = original(self, entry, request)
        assert fake.calls == calls, "the device was asked while a generation was timed"
        fake.values["temperature"] = 90
        return found

    monkeypatch.setattr(Bench, "_timed", timed)
    step = job.run_process(toy.config(tmp_path), open_progress=lambda *extent: spoken)
    assert step.result is not None
    result = store.read_parquet(step.result.path)
    state = result.metadata.provenance["device_state"]
    assert is_state(state) and state["after"]["temperature_c"] == 90
    assert state["during"]["sm_clock_mhz"]["median"] == 1980
    (note,) = result.metadata.provenance["processes"]
    assert note["device_state"] == state and "machine" in note
    told = [line for line in spoken.warned if line.startswith("The device was not at rest: ")]
    assert "1 other process" in told[0] and all("\n" not in line for line in told)


def test_a_run_without_a_gpu_says_nothing_of_one(tmp_path):
    result = store.read_parquet(run_job(toy.config(tmp_path)).path)
    assert "device_state" not in result.metadata.provenance
    assert result.rows["sampling_ns"].isna().all() and result.rows["device_ns"].isna().all()


@pytest.mark.parametrize(
    "state", [None, 3, [], {}, {"warnings": 3}, {"warnings": "hot"}, {"warnings": [[1], None]}]
)
def test_any_provenance_can_be_compared(tmp_path, state):
    about = metadata(provenance={"device_state": state})
    compare([result_set(tmp_path, job_rows(3), about)])


def test_a_comparison_names_the_runs_that_were_disturbed(tmp_path):
    state = state_of([40, 99, 41])
    about = metadata(provenance={"device_state": state})
    found = compare([result_set(tmp_path, job_rows(12), about)]).warnings
    assert [line for line in found if "token_sd" in line and "99 degrees hot" in line]
    assert not [line for line in found if "was not fixed" in line]
