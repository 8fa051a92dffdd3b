"""Peak memory of one measurement."""

from __future__ import annotations

import pytest
import torch

from specbench.runner.memory import PeakMemory


class SimulatedAllocator:
    """An allocator with a pool of captured graphs beside the common one."""

    def __init__(self):
        self.held = 100
        self.peak = 100
        self.reserved = 1000
        self.private = {"total_size": 64, "allocated_size": 16, "segment_pool_id": (0, 1)}
        self.snapshots = 0

    def reset_peak(self):
        self.peak = self.held

    def peak_bytes(self):
        return self.peak

    def reserved_bytes(self):
        return self.reserved

    def segments(self):
        self.snapshots += 1
        common = {"total_size": 936, "allocated_size": 84, "segment_pool_id": (0, 0)}
        return [common, self.private, {"total_size": 9, "allocated_size": 1}]


def test_the_peak_is_of_one_measurement_and_counts_what_graphs_compute_in():
    allocator = SimulatedAllocator()
    memory = PeakMemory(torch.device("cuda"), allocator)
    allocator.peak = 500
    memory.reset()
    allocator.peak = 130
    assert memory.device_bytes() == 130 + 48
    memory.reset()
    assert memory.device_bytes() == 100 + 48 and allocator.snapshots == 1
    allocator.private["total_size"] = 164
    allocator.reserved = 1100
    assert memory.device_bytes() == 100 + 148 and allocator.snapshots == 2


def test_a_cpu_has_no_device_memory():
    memory = PeakMemory(torch.device("cpu"))
    memory.reset()
    assert memory.device_bytes() is None and memory.host_bytes() > 2**20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_replayed_graph_is_counted_on_a_real_device():
    device = torch.device("cuda")
    memory = PeakMemory(device)
    x = torch.randn(1 << 20, device=device)
    memory.reset()
    before = memory.device_bytes()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = (x * 2 + 1).sum()
    memory.reset()
    graph.replay()
    after = memory.device_bytes()
    assert before is not None and after is not None
    assert after >= before + x.nbytes and y.numel() == 1
