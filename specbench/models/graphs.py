"""Steps as CUDA graphs: launched by the device, not by Python.

A graph is recorded once and replays the same kernels on the same addresses. All graphs of a device
share one pool of memory: none of them reads what another has left there, and they run one after
the other on one stream. What a graph writes is copied out right behind it, before another may
use the place.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch

from specbench.models.static_cache import Outputs, Replay

_REHEARSALS = 2


class GraphCapture:
    """Records steps on one device.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Replay, rehearse: Callable[[Replay], None]) -> Replay:
        """Return what replays a step; see `static.Capture`.

        The rehearsals compile and tune kernels, and let libraries take the memory that they keep.
        """
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            for _ in range(_REHEARSALS):
                rehearse(run)
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            written = run()

        def replay() -> Outputs:
            graph.replay()
            return written.clone()

        return replay


@cache
def graphs_of(device: torch.device) -> GraphCapture:
    """Return the recorder of a device: target and draft share its memory."""
    return GraphCapture(device)
