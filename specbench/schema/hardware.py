"""What a hardware entry says: the limits of one device, and what is assumed of reaching them.

The figures of the data sheet (bandwidth, dense peak rates, memory) are facts with a source. The
`assumed` group is not: which share of a limit a good kernel reaches, and what a forward costs
beside bytes and operations. It can be changed from the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from specbench.errors import ConfigError, UsageError
from specbench.schema.reading import Reader, unknown_key

RATES = ("float32", "bfloat16", "float16", "float8", "int8")
"""Number formats for which an entry may state a peak rate."""

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 1, "int8": 1}
"""Bytes of one weight in each format."""

_KEYS = (
    "name",
    "title",
    "aliases",
    "devices",
    "bandwidth",
    "flops",
    "memory_bytes",
    "assumed",
    "sources",
    "note",
)


class Source(NamedTuple):
    """Where a figure stands: which figures, in which document, at which address."""

    figures: str
    title: str
    url: str


@dataclass(frozen=True)
class Assumed:
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

    bandwidth_efficiency: float = 0.8
    compute_efficiency: float = 0.7
    memory_share: float = 0.9
    layer_overhead_us: float = 8.0
    forward_overhead_us: float = 10.0
    round_overhead_us: float = 100.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: str = "assumed") -> Assumed:
        """Validate a group of assumptions; what is absent keeps its default.

        Raises:
            ConfigError: If a key is unknown or a value is impossible.
        """
        reader = Reader(values, path, [item.name for item in fields(cls)])
        read = {}
        for item in fields(cls):
            shared = item.name.endswith(("_efficiency", "_share"))
            read[item.name] = reader.number(
                item.name,
                float(getattr(cls, item.name)),
                minimum=0,
                maximum=1.0 if shared else 1e9,
                above=shared,
            )
        return cls(**read)


@dataclass(frozen=True)
class Hardware:
    """One device.

    Attributes:
        name: Its id, the stem of its YAML file.
        title: A short human name.
        bandwidth: Bytes per second between memory and the device.
        flops: Dense peak operations per second by number format (`RATES`); a multiplication and
            an addition are two.
        memory_bytes: Bytes of memory.
        assumed: What no data sheet states.
        sources: Where the figures stand.
        aliases: Other names.
        devices: The names by which a driver reports it, as they stand in result files.
        note: What a reader should know of the figures.
    """

    name: str
    title: str
    bandwidth: float
    flops: Mapping[str, float]
    memory_bytes: float
    assumed: Assumed
    sources: tuple[Source, ...]
    aliases: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    note: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: str = "hardware") -> Hardware:
        """Validate the node of one device.

        Raises:
            ConfigError: If a key is unknown, missing or of a wrong value.
        """
        reader = Reader(values, path, _KEYS)
        rates = Reader(reader.mapping("flops"), reader.path("flops"), RATES)
        flops = {
            name: rates.number(name, minimum=0, above=True)
            for name in RATES
            if rates.get(name) is not None
        }
        if not flops:
            raise reader.error("flops", {}, f"a rate for some of {', '.join(RATES)}")
        return cls(
            name=reader.text("name"),
            title=reader.text("title"),
            bandwidth=reader.number("bandwidth", minimum=0, above=True),
            flops=flops,
            memory_bytes=reader.number("memory_bytes", minimum=0, above=True),
            assumed=Assumed.from_dict(reader.mapping("assumed"), reader.path("assumed")),
            sources=_sources(reader),
            aliases=reader.words("aliases"),
            devices=reader.words("devices"),
            note=reader.text("note", ""),
        )

    def assuming(self, changes: Mapping[str, float]) -> Hardware:
        """Return the device with some assumptions changed.

        Raises:
            UsageError: If there is no such assumption, or the value is impossible.
        """
        known = {item.name: getattr(self.assumed, item.name) for item in fields(Assumed)}
        for key in changes:
            if key not in known:
                error = unknown_key("assumed", key, list(known))
                raise UsageError(error.what, error.why, error.fix)
        try:
            assumed = Assumed.from_dict({**known, **changes})
        except ConfigError as error:
            raise UsageError(error.what, error.why, error.fix) from error
        return replace(self, assumed=assumed)

    def ridge(self, dtype: str) -> float:
        """Return the operations per byte from which this device computes longer than it reads."""
        return self.flops[dtype] / self.bandwidth


def _sources(reader: Reader) -> tuple[Source, ...]:
    entries = reader.get("sources") or []
    sources = []
    for entry in entries if isinstance(entries, (list, tuple)) else [entries]:
        one = Reader(entry, reader.path("sources"), Source._fields)
        sources.append(Source(*(one.text(name) for name in Source._fields)))
    if not sources:
        raise reader.error("sources", None, "a list of {figures, title, url}, one for each source")
    return tuple(sources)
