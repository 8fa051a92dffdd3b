"""Where a number came from: versions, revision, machine and command line."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from specbench.runner.code import software
from specbench.runner.nvml import nvml_of
from specbench.secrets import scrub_command

_PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "numpy", "hydra-core")


def provenance(device: torch.device) -> dict[str, Any]:
    """Return everything about software and machine that may move a number."""
    return {
        **software(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(terse=True),
        "device": device_name(device),
        "device_details": _device(device),
        "cpu": cpu_name(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "command": command_line(sys.argv),
    }


def command_line(words: Sequence[str]) -> list[str]:
    """Return the words of a command without secrets and without what a sweep adds to them.

    While Hydra reads a run's words, the program's name holds the subcommand, which Hydra would
    take for an override (`specbench.hosting`).
    """
    program = words[0].split() if words and words[0].startswith("specbench ") else words[:1]
    if program and os.path.basename(program[0]) in ("specbench", "__main__.py"):
        program = ["specbench", *program[1:]]  # wherever it is installed
    typed = [word for word in words[1:] if not word.startswith("hydra.sweep.dir=")]
    return scrub_command([*program, *typed])


def device_name(device: torch.device) -> str:
    """Return the name of the hardware that computes."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{cpu_name()}, {torch.get_num_threads()} threads"


def cpu_name() -> str:
    """Return the processor's model name."""
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"capability": torch.backends.cpu.get_cpu_capability()}
    properties = torch.cuda.get_device_properties(device)
    details: dict[str, Any] = {
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "capability": f"{properties.major}.{properties.minor}",
    }
    nvml = nvml_of(device)
    return details if nvml is None else details | nvml.about()
