"""Values between host and device: what they are on a CPU, and that nothing waits on a device."""

from __future__ import annotations

import pytest
import torch

from specbench import transfer
from specbench.transfer import Pending, moved, read, to_device
from tests.unit.decoding.transfers import CPU, CUDA, OnDevice, watch

VALUES = [
    ([[1, 2, 3]], None, torch.int64),
    ([0.1, 0.2], torch.float64, torch.float64),
    ([], torch.int64, torch.int64),
    (7, None, torch.int64),
]


@pytest.mark.parametrize(("values", "asked", "dtype"), VALUES)
def test_values_reach_a_cpu_as_torch_would_bring_them(values, asked, dtype):
    tensor = to_device(values, CPU, asked)
    assert tensor.dtype == dtype and tensor.tolist() == values
    assert read(tensor) == values and Pending(tensor).values() == values


@pytest.mark.parametrize(("values", "asked", "dtype"), VALUES)
def test_values_reach_a_device_without_waiting_and_come_back_in_one_look(values, asked, dtype):
    with watch() as watched:
        tensor = to_device(values, CUDA, asked)
        assert isinstance(tensor, OnDevice) and tensor.dtype == dtype
        assert not watched.uploads and not watched.reads
        assert read(tensor) == values
    assert watched.reads.total() == 1 and not watched.uploads


def test_a_table_is_moved_once_and_without_waiting():
    table = torch.eye(3, dtype=torch.bool)
    assert moved(table, CPU) is table
    with watch() as watched:
        there = moved(table, CUDA)
        assert isinstance(there, OnDevice) and moved(there, CUDA) is there
    assert not watched.uploads and not watched.reads


def test_pending_values_are_those_of_the_moment():
    with watch() as watched:
        tensor = to_device([1, 2], CUDA)
        pending = Pending(tensor)
        tensor.add_(5)
        assert not watched.reads
        assert pending.values() == [1, 2]
        assert pending.arrived().tolist() == [1, 2]
    assert watched.reads.total() == 1, "a second look at what has arrived costs nothing"


def test_events_are_used_again():
    with watch():
        transfer._EVENTS.clear()
        tensor = to_device([1], CUDA)
        for _ in range(5):
            read(tensor)
        assert [len(events) for events in transfer._EVENTS.values()] == [1]
    transfer._EVENTS.clear()
