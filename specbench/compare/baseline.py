"""How good the baselines of result files were, as their files say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from specbench.store import ResultSet

PLAIN = "ar"
"""The method that decodes one token after the other."""

SLOW = 0.6
"""Share of the memory's reading speed below which a baseline is said to be slow."""


class Share(NamedTuple):
    """What plain decoding reached in one file.

    Attributes:
        fraction: Bytes that its steps had to read, over the measured reading speed, over their
            time.
        in_cache: Whether the weights fit into the processor's last cache, whose speed then counts.
    """

    fraction: float
    in_cache: bool


def share_of(result: ResultSet) -> Share | None:
    """Return what plain decoding reached; None where a file does not tell."""
    found = result.metadata.provenance.get("roofline")
    if not isinstance(found, Mapping):
        return None
    fraction = found.get("fraction")
    if not isinstance(fraction, float) or not math.isfinite(fraction) or fraction <= 0:
        return None
    return Share(fraction, found.get("in_cache") is True)


def shares_of(results: Sequence[ResultSet]) -> list[Share]:
    """Return what is known of some files, the slowest first."""
    return sorted(share for result in results if (share := share_of(result)) is not None)


def in_words(results: Sequence[ResultSet]) -> str:
    """Return the shares for a heading, such as "ar at 53% of the memory bandwidth"."""
    shares = shares_of(results)
    if not shares:
        return ""
    low, high = f"{shares[0].fraction:.0%}", f"{shares[-1].fraction:.0%}"
    ends = low if low == high else f"{low} to {high}"
    where = "cache bandwidth" if all(share.in_cache for share in shares) else "memory bandwidth"
    return f"{PLAIN} at {ends} of the {where}"


def slow_warnings(results: Sequence[ResultSet]) -> list[str]:
    """Return a warning where plain decoding is far from what the device can read."""
    shares = shares_of(results)
    if not shares or shares[0].fraction >= SLOW:
        return []
    return [
        f"plain decoding reached {shares[0].fraction:.0%} of the bandwidth bound: speedups over "
        "this baseline are optimistic."
    ]
