"""Steps compiled by `torch.compile`, and on CUDA captured as graphs behind that.

Each step is compiled for its own sizes, without a dynamic one: a forward of five tokens is another
program than one of six, so a method that uses many token counts compiles as many programs.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch

from specbench.models.graphs import graphs_of
from specbench.models.static_cache import Replay

MOST_PROGRAMS = 1024
"""Programs of one function; torch's own limit of eight is meant for sizes that change by chance."""


class CompiledCapture:
    """Compiles steps of a model on one device.

    Args:
        device: Where it computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, run: Replay, rehearse: Callable[[Replay], None]) -> Replay:
        """Return what replays a step; see `static.Capture`."""
        compiled: Replay = torch.compile(
            run, fullgraph=True, dynamic=False, recompile_limit=MOST_PROGRAMS
        )
        if self._device.type != "cuda":
            rehearse(compiled)
            return compiled
        return graphs_of(self._device)(compiled, rehearse)


def missing_compiler(device: torch.device) -> str | None:
    """Say why steps cannot be compiled for a device; None where they can.

    On CUDA the compiler writes Triton kernels, whose launchers need a C compiler too.
    """
    if device.type == "cuda" and find_spec("triton") is None:
        return "torch.compile writes Triton kernels for a GPU, and Triton is not installed"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "torch.compile needs a C++ compiler, and none was found"
    return None
