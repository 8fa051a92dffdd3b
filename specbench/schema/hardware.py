"""What a hardware entry says: the limits of one device, and what is assumed of reaching them.

The figures of the data sheet (bandwidth, dense peak rates, memory) are facts with a source. The
`assumed` group is not: which share of a limit a good kernel reaches, and what a forward costs
beside bytes and operations. It can be changed from the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Annotated, Any, Self

from pydantic import Field, StrictStr, model_validator
from pydantic.dataclasses import dataclass

from specbench.errors import ConfigError, UsageError
from specbench.schema.group import Group, Number, Text, Words, problem, refused, unknown_key

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 1, "int8": 1}
"""Bytes of one weight in each number format for which an entry may state a peak rate."""

Positive = Annotated[Number, Field(gt=0.0)]
Share = Annotated[Number, Field(gt=0.0, le=1.0)]
Microseconds = Annotated[Number, Field(ge=0.0, le=1e9)]


@dataclass(frozen=True)
class DataSheet(Group):
    """Where a figure stands: which figures, in which document, at which address."""

    figures: Text
    title: Text
    url: Text


@dataclass(frozen=True)
class Assumed(Group):
    """What no data sheet states.

    Attributes:
        bandwidth_efficiency: Share of the bandwidth that reading weights and cache reaches.
        compute_efficiency: Share of the dense peak rate that matrix products reach.
        memory_share: Share of the memory that weights and cache may fill.
        layer_overhead_us: Microseconds of a layer beside bytes and operations: small kernels and
            the gaps between them.
        forward_overhead_us: Microseconds to start one forward.
        round_overhead_us: Microseconds of host work in one verification round that plain decoding
            does not have: walking the draft, and waiting for the device once more.
    """

    key_path = "assumed"

    key_path = "assumed"

    bandwidth_efficiency: Share = 0.8
    compute_efficiency: Share = 0.7
    memory_share: Share = 0.9
    layer_overhead_us: Microseconds = 8.0
    forward_overhead_us: Microseconds = 10.0
    round_overhead_us: Microseconds = 100.0


@dataclass(frozen=True)
class Hardware(Group):
    """One device.

    Attributes:
        name: Its id, the stem of its YAML file.
        title: A short human name.
        bandwidth: Bytes per second between memory and the device.
        flops: Dense peak operations per second by number format (`BYTES`); a multiplication and
            an addition are two.
        memory_bytes: Bytes of memory.
        assumed: What no data sheet states.
        sources: Where the figures stand.
        aliases: Other names.
        devices: The names by which a driver reports it, as they stand in result files.
        note: What a reader should know of the figures.
    """

    key_path = "hardware"

    name: Text
    title: Text
    bandwidth: Positive
    flops: dict[str, Positive]
    memory_bytes: Positive
    assumed: Assumed = Assumed()
    sources: tuple[DataSheet, ...] = ()
    aliases: Words = ()
    devices: Words = ()
    note: StrictStr = ""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.flops:
            raise refused("flops", {}, f"a rate for some of {', '.join(BYTES)}")
        if not self.sources:
            allowed = "a list of {figures, title, url}, one for each source"
            raise refused("sources", None, allowed)
        return self

    @classmethod
    def prepared(cls, values: dict[Any, Any]) -> dict[Any, Any]:
        """Leave out the rates that are null."""
        rates = values.get("flops")
        if isinstance(rates, Mapping):
            for name in rates:
                if name not in BYTES:
                    error = unknown_key("{path}.flops", str(name), BYTES)
                    raise problem(error.what, error.why, error.fix)
            values["flops"] = {name: rate for name, rate in rates.items() if rate is not None}
        return values

    def assuming(self, changes: Mapping[str, float]) -> Hardware:
        """Return the device with some assumptions changed.

        Raises:
            UsageError: If there is no such assumption, or the value is impossible.
        """
        try:
            assumed = Assumed.from_dict({**asdict(self.assumed), **changes})
        except ConfigError as error:
            raise UsageError(error.what, error.why, error.fix) from error
        return replace(self, assumed=assumed)

    def ridge(self, dtype: str) -> float:
        """Return the operations per byte from which this device computes longer than it reads."""
        return self.flops[dtype] / self.bandwidth
