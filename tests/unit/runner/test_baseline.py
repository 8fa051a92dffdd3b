"""The share of the bandwidth bound that plain decoding reached, by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from specbench.models.shape import Sizes
from specbench.runner import baseline
from specbench.runner.bandwidth import READ_AT_MOST, read_bandwidth
from specbench.schema.shape import Shape

SHAPE = Shape("s", "S", 8, 3, 4, 1, 2, 16, 20, tied=True)
MODEL = SimpleNamespace(sizes=Sizes.of(SHAPE, SHAPE.parameters, 4), device=torch.device("cpu"))
WEIGHTS = SHAPE.multiplied_parameters * 4


def row(**changes):
    rounds = [{"turn": 0}] * 5 + [{"turn": 1}] * 3
    fields = dict(method="ar", error=None, decode_ns=2_000, prompt_tokens=10, new_tokens=8)
    return fields | {"rounds": rounds} | changes


def note(speed):
    return {"bandwidth": {"bytes_per_second": speed, "weight_bytes": WEIGHTS, "in_cache": True}}


def test_steps_read_weights_and_cache_and_the_prefill_of_each_turn_is_none():
    found = baseline.roofline([row(), row(method="pld"), row(error="x")], MODEL, [note(1e12)])
    # 8 rounds, 2 of them prefills; 14 tokens in the cache on average, 12 numbers of 4 bytes each
    read = 6 * (WEIGHTS + 14 * 2 * 3 * 1 * 2 * 4)
    assert found["fraction"] == pytest.approx(read / 1e12 / 2e-6)
    assert found["in_cache"] is True


def test_processes_measure_the_bandwidth_apart():
    speeds = [note(1e12), note(4e12), {"started_unix": 1}, note(2e12)]
    assert baseline.roofline([row()], MODEL, speeds)["bytes_per_second"] == 2e12


@pytest.mark.parametrize("notes", [[], [{"bandwidth": None}]])
def test_nothing_is_said_without_a_bandwidth(notes):
    assert baseline.roofline([row()], MODEL, notes) is None


def test_nothing_is_said_without_plain_decoding_or_a_shape():
    assert baseline.roofline([row(method="pld")], MODEL, [note(1.0)]) is None
    bare = SimpleNamespace(sizes=None, device=torch.device("cpu"))
    assert baseline.measured_bandwidth(bare) is None


def test_the_head_of_a_tied_model_is_read_once_and_an_embedding_of_its_own_is_not():
    apart = SHAPE.__class__("s", "S", 8, 3, 4, 1, 2, 16, 20, tied=False)
    model = SimpleNamespace(sizes=Sizes.of(apart, apart.parameters, 4), device=MODEL.device)
    for each in (MODEL, model):
        assert baseline.measured_bandwidth(each)["weight_bytes"] == WEIGHTS


def test_reading_is_measured_at_the_size_of_the_model_and_no_larger_than_said():
    for size in (1 << 16, READ_AT_MOST["cpu"] * 50):
        assert read_bandwidth(torch.device("cpu"), size, seconds=0.01) > 1e7
