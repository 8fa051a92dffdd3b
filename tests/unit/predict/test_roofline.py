"""The cost of a forward on paper."""

from __future__ import annotations

from dataclasses import replace

import pytest

from specbench.errors import UsageError
from specbench.predict.roofline import Roofline, roofline_fraction
from specbench.schema.hardware import Assumed
from specbench.schema.shape import Shape
from tests.unit.predict.worlds import IDEAL, SMALL, device

GROUPED = Shape("grouped", "Grouped", 8, 3, 4, 1, 2, 16, 20, tied=True)


def test_weights_of_a_shape_by_hand() -> None:
    assert SMALL.multiplied_parameters == 360
    assert SMALL.parameters == 400
    # q and o: 8 x 8 each; k and v: 8 x 2 each; feed-forward: 3 x 8 x 16; head: 8 x 20
    assert GROUPED.multiplied_parameters == 3 * (2 * 64 + 2 * 16 + 384) + 160
    assert GROUPED.parameters == GROUPED.multiplied_parameters
    assert GROUPED.cache_values == 2 * 3 * 1 * 2


def test_a_forward_that_waits_for_memory() -> None:
    forward = Roofline(device(), "bfloat16", 0).forward(SMALL, 1, 1)
    assert forward.weights == pytest.approx(1.0)  # 720 bytes at 720 a second
    # one token of 2 layers x 2 heads x 2, keys and values, 2 bytes each
    assert forward.cache == pytest.approx(2 * 2 * 2 * 2 * 2 / 720)
    assert forward.compute == 0
    assert forward.seconds == pytest.approx(forward.weights + forward.cache)


def test_a_forward_that_computes() -> None:
    forward = Roofline(device(bandwidth=1e12, flops=720.0), "bfloat16", 0).forward(SMALL, 3, 2)
    # 2 operations x 360 weights x 6 tokens; attention: 4 x (2 layers x 2 heads x 2) x 6 x 2
    assert forward.compute == pytest.approx(6 + 4 * 8 * 6 * 2 / 720)
    assert forward.weights == forward.cache == 0


def test_weights_are_read_once_a_batch_and_caches_once_a_request() -> None:
    one, many = (Roofline(device(), "bfloat16", 99).forward(SMALL, n, 1) for n in (1, 5))
    assert many.weights == one.weights
    assert many.cache == pytest.approx(5 * one.cache)
    assert one.cache == pytest.approx(100 * 32 / 720)


def test_guidance_doubles_what_a_request_computes_and_holds() -> None:
    plain, guided = (Roofline(device(), "bfloat16", 9, rows=n) for n in (1, 2))
    assert guided.forward(SMALL, 3, 4) == plain.forward(SMALL, 6, 4)
    assert guided.memory(SMALL, 3) == plain.memory(SMALL, 6)


def test_efficiencies_and_overheads_are_applied() -> None:
    assumed = replace(
        IDEAL, bandwidth_efficiency=0.5, layer_overhead_us=3.0, forward_overhead_us=4.0
    )
    forward = Roofline(device(assumed=assumed), "bfloat16", 0).forward(SMALL, 1, 1)
    assert forward.weights == pytest.approx(2.0)
    assert forward.overhead == pytest.approx(10e-6)
    slow = replace(IDEAL, compute_efficiency=0.25)
    fast = Roofline(device(1e12, 720.0), "bfloat16", 0).forward(SMALL, 1, 9)
    assert Roofline(device(1e12, 720.0, assumed=slow), "bfloat16", 0).forward(
        SMALL, 1, 9
    ).compute == pytest.approx(4 * fast.compute)


@pytest.mark.parametrize("batch", [1, 7, 200])
@pytest.mark.parametrize("tokens", [1, 5, 64])
def test_a_better_device_is_never_slower(batch: int, tokens: int) -> None:
    base = Roofline(device(1e3, 1e4, assumed=Assumed()), "bfloat16", 50)
    cost = base.forward(SMALL, batch, tokens).seconds
    for bandwidth, flops in ((2e3, 1e4), (1e3, 3e4)):
        better = Roofline(device(bandwidth, flops, assumed=Assumed()), "bfloat16", 50)
        assert better.forward(SMALL, batch, tokens).seconds <= cost
    assert base.forward(SMALL, batch + 1, tokens).seconds >= cost
    assert base.forward(SMALL, batch, tokens + 1).seconds >= cost


def test_memory_counts_weights_and_caches() -> None:
    roofline = Roofline(device(), "bfloat16", 10)
    assert roofline.memory(SMALL, 0) == 800
    assert roofline.memory(SMALL, 3) == 800 + 3 * 10 * 32


def test_eight_bit_weights_keep_a_cache_of_16_bits() -> None:
    hardware = replace(device(), flops={"int8": 1e12})
    roofline = Roofline(hardware, "int8", 10)
    assert roofline.memory(SMALL, 1) == 400 + 10 * 32


def test_a_format_without_a_rate_is_refused() -> None:
    with pytest.raises(UsageError, match="no rate for float8"):
        Roofline(device(), "float8", 0)


def test_roofline_fraction_by_hand() -> None:
    measured = {"target_forwards": 10.0, "draft_forwards": 40.0, "total_ns": 2e9}
    assert roofline_fraction(measured, 100.0, 1000.0) == pytest.approx(0.5)
    assert roofline_fraction(measured, 100.0, 1000.0, draft_bytes=5.0) == pytest.approx(0.6)
    assert roofline_fraction({**measured, "total_ns": 0.0}, 100.0, 1000.0) is None
