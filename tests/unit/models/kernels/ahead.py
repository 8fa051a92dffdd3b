"""Compiling kernels for a GPU that is not there, with the very launches that would run on it.

The functions that launch kernels are called with ordinary CPU tensors, under a driver that
claims to be a GPU; every launch compiles its kernel to machine code and goes no further. So the
specialisations (alignment, constants) are those of a real launch.

Triton imported under its interpreter cannot compile; these tests run in the ordinary process.
"""

from __future__ import annotations

import re
import subprocess
from contextlib import contextmanager
from typing import NamedTuple

from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from specbench.models.kernels import attention, matmul

SHARED_BYTES = {80: 166_912, 90: 232_448}
"""Shared memory that a program may have on an A100 and on an H100 or H200 (CUDA programming
guide, table of technical specifications per compute capability: 163 KB and 227 KB)."""

MULTIPROCESSORS = {80: 108, 90: 132}


class Compiled(NamedTuple):
    """A kernel as it was compiled for one launch.

    Attributes:
        name: Of the kernel.
        registers: Of a thread.
        local_bytes: Of a thread's stack, where registers are spilled to.
        shared_bytes: Of a program.
        assembly: Its PTX.
    """

    name: str
    registers: int
    local_bytes: int
    shared_bytes: int
    assembly: str


class _Device:
    """What Triton's launcher asks of a driver before it compiles."""

    def __init__(self, arch: int) -> None:
        self._arch = arch

    def get_current_target(self):
        return GPUTarget("cuda", self._arch, 32)

    def get_current_device(self):
        return self._arch  # kernels remember the target of a device's number

    def get_current_stream(self, device):
        return 0


@contextmanager
def device_of(arch: int, monkeypatch, tmp_path):
    """Yield a list that collects what is compiled for a GPU of compute capability `arch` / 10."""
    compiled: list[Compiled] = []
    run = JITFunction.run

    def compile_only(kernel, *args, grid, warmup, **options):
        assert all(1 <= size < 2**31 for size in grid[:1])
        assert all(1 <= size < 2**16 for size in grid[1:])
        compiled.append(_read(run(kernel, *args, grid=grid, warmup=True, **options), tmp_path))

    monkeypatch.setattr(JITFunction, "run", compile_only)
    for module in (attention, matmul):
        monkeypatch.setattr(module, "multiprocessors", lambda device: MULTIPROCESSORS[arch])
    monkeypatch.setattr(driver, "_active", _Device(arch))
    yield compiled


def _read(kernel, tmp_path) -> Compiled:
    """Read the compiler's resource report out of a kernel's machine code."""
    path = tmp_path / "kernel.cubin"
    path.write_bytes(kernel.asm["cubin"])
    words = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path)]
    report = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    figures = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", report)}
    return Compiled(
        kernel.metadata.name,
        figures["REG"],
        figures["STACK"] + figures["LOCAL"],
        kernel.metadata.shared,
        kernel.asm["ptx"],
    )
