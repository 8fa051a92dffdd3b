"""What each device offers a run: memory, measured bandwidth, number formats, engines."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

_SECONDS = 0.4
"""How long a device's bandwidth is measured."""


class Finding(NamedTuple):
    """One finding.

    Attributes:
        name: What was looked at.
        status: "ok", "note" (works, with advice) or "bad" (a run would fail).
        found: What was found.
        advice: What to do, or empty.
    """

    name: str
    status: str
    found: str
    advice: str = ""


def device_checks() -> list[Finding]:
    """Look at the processor and at every CUDA device."""
    import torch

    checks = list(_processor())
    if not torch.cuda.is_available():
        advice = "The embedded models are made for a CPU; billions of weights are slow on it."
        return [*checks, Finding("cuda", "note", "no GPU", advice)]
    for index in range(torch.cuda.device_count()):
        checks += _gpu(torch.device("cuda", index))
    return checks


def _processor() -> Iterator[Finding]:
    import torch

    from specbench.models.checkpoint import free_memory
    from specbench.runner.provenance import cpu_name

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpu = torch.device("cpu")
    free = free_memory(cpu) / 1e9
    yield Finding(
        "cpu",
        "ok",
        f"{cpu_name()} ({platform.machine()}), {cores} cores, {torch.get_num_threads()} torch "
        f"threads, {free:.0f} GB of memory free",
    )
    if hasattr(os, "getloadavg"):
        load = os.getloadavg()[0]
        busy = load > 0.5 * (cores or 1)
        advice = "Other work runs here; times will be noisy." if busy else ""
        yield Finding("load", "note" if busy else "ok", f"{load:.1f} in the last minute", advice)
    yield _bandwidth("cpu bandwidth", cpu)
    yield tried(
        "cpu native", _native, "Runs on a CPU are eager without it: a slower baseline. Install g++."
    )
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    found = shutil.which(compiler)
    yield Finding(
        "cpu compile",
        "ok" if found else "note",
        f"execution=compile would use {compiler}" if found else f"there is no {compiler}",
        "" if found else "execution=compile needs it (or another, named by CXX); all else runs.",
    )


def _native() -> str:
    from specbench.models.native import library

    return f"execution=auto runs the step of {library.load()._name}"


def _gpu(device: torch.device) -> Iterator[Finding]:
    import torch

    from specbench.models import kernels

    name = f"{device}"
    about = torch.cuda.get_device_properties(device)
    free, whole = torch.cuda.mem_get_info(device)
    yield Finding(
        name,
        "ok",
        f"{about.name}, compute capability {about.major}.{about.minor}, {free / 1e9:.1f} of "
        f"{whole / 1e9:.1f} GB free, CUDA {torch.version.cuda}",
    )
    yield _nvml(name, device)
    yield _bandwidth(f"{name} bandwidth", device)
    yield tried(f"{name} bfloat16", lambda: _bfloat16(device), "Runs use float16 there.")
    obstacle = kernels.obstacle(device)
    yield Finding(
        f"{name} kernels",
        "note" if obstacle else "ok",
        obstacle or f"Triton {_version('triton')}; only execution=kernels runs them",
        "All other engines run without them." if obstacle else "",
    )
    advice = "execution=eager runs all the same, more slowly."
    yield tried(f"{name} graph", lambda: _graph(device), advice)
    yield tried(f"{name} compile", lambda: _compile(device), "All other engines run without it.")


def tried(name: str, trial: Callable[[], str], advice: str) -> Finding:
    """Return what a trial found; an exception is a note.

    Args:
        name: What is tried.
        trial: Does it, and says what it found; raises where it does not work.
        advice: What to do where it does not.
    """
    try:
        return Finding(name, "ok", trial())
    except Exception as error:  # whatever a driver or a compiler raises
        first, *_ = str(error).strip().splitlines() or [""]
        return Finding(name, "note", f"{type(error).__name__}: {first[:120]}", advice)


def _bandwidth(name: str, device: torch.device) -> Finding:
    from specbench.runner.bandwidth import copy_bandwidth

    def measure() -> str:
        found = copy_bandwidth(device, _SECONDS)
        return (
            f"{found.bytes_per_second / 1e9:,.0f} GB/s, copying blocks of "
            f"{found.size / 2**20:,.0f} MiB ({found.low / 1e9:,.0f} to {found.high / 1e9:,.0f})"
        )

    return tried(name, measure, "Its memory is too full to measure.")


def _nvml(name: str, device: torch.device) -> Finding:
    from specbench.runner.device_state import doubts
    from specbench.runner.nvml import nvml_of

    nvml = nvml_of(device)
    if nvml is None:
        return Finding(
            f"{name} state",
            "note",
            "NVML does not answer",
            "Clocks, temperature and foreign processes stay unknown; install nvidia-ml-py.",
        )
    about, reading = nvml.about(), nvml.reading()
    facts = (
        ("driver", about.get("driver"), ""),
        ("", reading.sm_clock_mhz, " MHz"),
        ("", reading.temperature_c, " °C"),
        ("", None if reading.power_w is None else f"{reading.power_w:.0f}", " W"),
    )
    text = ", ".join(
        f"{title} {value}{unit}".strip() for title, value, unit in facts if value is not None
    )
    found = doubts(about, [reading])
    return Finding(f"{name} state", "note" if found else "ok", text, "; ".join(found))


def _bfloat16(device: torch.device) -> str:
    import torch

    if not torch.cuda.is_bf16_supported(including_emulation=False):
        raise RuntimeError("the device computes no bfloat16")
    ones = torch.ones(64, 64, dtype=torch.bfloat16, device=device)
    if not bool(((ones @ ones) == 64).all()):
        raise RuntimeError("a product of ones is wrong")
    return "computes it"


def _graph(device: torch.device) -> str:
    """Capture a small graph, replay it on other values, and look at the result."""
    import torch

    with torch.cuda.device(device):
        values = torch.zeros(8, device=device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            doubled = values * 2
        values.fill_(3.0)
        graph.replay()
        if doubled.tolist() != [6.0] * 8:
            raise RuntimeError("a replayed graph gives wrong numbers")
    return "captured and replayed"


def _compile(device: torch.device) -> str:
    """Compile a small function and look at what it computes."""
    import torch

    from specbench.models.compiled import missing_compiler

    missing = missing_compiler(device)
    if missing is not None:
        raise RuntimeError(missing)
    values = torch.arange(8.0, device=device)
    compiled = torch.compile(lambda x: (x + 1).square(), fullgraph=True, dynamic=False)
    if not torch.equal(compiled(values), (values + 1).square()):
        raise RuntimeError("a compiled function gives wrong numbers")
    return "compiled and run"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"
