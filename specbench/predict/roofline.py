"""What a forward costs on a device: the longer of reading and computing, and what starts it.

Model. A forward over B sequences of n new tokens each, with c tokens in every cache, does two
kinds of work, one after the other:

- linear: reads all multiplied weights W once and does 2 W B n operations;
- attention: reads B c cache entries and does 4 B n c operations for every layer, head and
  element of a head.

Each kind takes the longer of its bytes over the bandwidth and its operations over the peak rate
(the roofline of Williams, Waterman, Patterson, 2009), both scaled by the efficiencies that the
hardware entry assumes. Layers and the start of a forward add a constant. The two kinds are kept
apart because they change sides at different batch sizes: weights are shared by a batch, caches
are not (Chen et al., "MagicDec", 2024, section 3). Activations, norms and the rows of the
embedding are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from specbench.errors import UsageError
from specbench.schema.hardware import BYTES, Hardware
from specbench.schema.shape import Shape

_CACHE_BYTES_AT_LEAST = 2
"""Caches of 8-bit models are taken to stay in 16 bits."""


class Forward(NamedTuple):
    """Seconds of one forward by what bounds them.

    Attributes:
        weights: Reading weights, where that takes longer than multiplying with them.
        cache: Reading the cache, where that takes longer than attending to it.
        compute: Computing, where that takes longer than reading.
        overhead: Starting the forward and its layers.
    """

    weights: float
    cache: float
    compute: float
    overhead: float

    @property
    def seconds(self) -> float:
        """The whole forward."""
        return self.weights + self.cache + self.compute + self.overhead

    def scaled(self, factor: float) -> Forward:
        """Return the cost of `factor` such forwards."""
        return Forward(*(value * factor for value in self))


@dataclass(frozen=True)
class Roofline:
    """The cost of forwards of some models on one device.

    Attributes:
        hardware: The device.
        dtype: Number format of weights and arithmetic.
        context: Tokens in the cache of every sequence.
        rows: Sequences that each request computes.
    """

    hardware: Hardware
    dtype: str
    context: int
    rows: int = 1

    def __post_init__(self) -> None:
        if self.dtype not in self.hardware.flops:
            known = ", ".join(self.hardware.flops)
            raise UsageError(
                f"'{self.hardware.name}' has no rate for {self.dtype}",
                f"its entry states: {known}",
                f"Choose --dtype among {known}.",
            )

    @property
    def weight_bytes(self) -> int:
        """Bytes of one weight."""
        return BYTES[self.dtype]

    @property
    def cache_bytes(self) -> int:
        """Bytes of one number in the cache."""
        return max(BYTES[self.dtype], _CACHE_BYTES_AT_LEAST)

    def forward(self, shape: Shape, batch: float, tokens: float) -> Forward:
        """Return the cost of one forward."""
        device, assumed = self.hardware, self.hardware.assumed
        bandwidth = device.bandwidth * assumed.bandwidth_efficiency
        rate = device.flops[self.dtype] * assumed.compute_efficiency
        sequences = batch * self.rows
        read = shape.multiplied_parameters * self.weight_bytes / bandwidth
        multiply = 2.0 * shape.multiplied_parameters * sequences * tokens / rate
        entries = sequences * (self.context + tokens)
        cache = entries * shape.cache_values * self.cache_bytes / bandwidth
        width = shape.layers * shape.heads * shape.head_size
        attend = 4.0 * width * sequences * tokens * (self.context + tokens) / rate
        return Forward(
            weights=read if read >= multiply else 0.0,
            cache=cache if cache >= attend else 0.0,
            compute=(multiply if multiply > read else 0.0) + (attend if attend > cache else 0.0),
            overhead=1e-6
            * (assumed.forward_overhead_us + assumed.layer_overhead_us * shape.layers),
        )

    def memory(self, shape: Shape, batch: float) -> float:
        """Return the bytes of a model's weights and of its caches for a batch."""
        weights = shape.parameters * self.weight_bytes
        cache = batch * self.rows * self.context * shape.cache_values * self.cache_bytes
        return float(weights + cache)

    def usable_memory(self) -> float:
        """Return the bytes that weights and caches may fill."""
        return self.hardware.memory_bytes * self.hardware.assumed.memory_share


def roofline_fraction(
    measured: Mapping[str, float], target_bytes: float, bandwidth: float, draft_bytes: float = 0.0
) -> float | None:
    """Return which share of the memory-bandwidth limit some measurements reached.

    Forwards times the bytes that each must read at least, over the bandwidth, over the measured
    time: 1 is a program that does nothing but read weights at full speed. The cache is not
    counted, so that the share is a lower bound, and a tight one for short contexts.

    Args:
        measured: Sums over rows of `target_forwards`, `draft_forwards` and `total_ns`.
        target_bytes: Bytes of the target's multiplied weights.
        bandwidth: Bytes per second of the device.
        draft_bytes: The same of the draft; 0 where none runs or its size is unknown.

    Returns:
        None where no time was measured.
    """
    seconds = float(measured["total_ns"]) / 1e9
    if seconds <= 0 or bandwidth <= 0:
        return None
    read = measured["target_forwards"] * target_bytes + measured["draft_forwards"] * draft_bytes
    return float(read) / bandwidth / seconds
