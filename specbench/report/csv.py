"""The comparison as CSV: one line a row, every scalar at full precision.

Columns carry the field names of `ComparisonRow`, joined by underscores where a field has parts,
such as `speedup_e2e_interval_low`. An absent value is an empty cell. Lists (acceptance by
position) are separated by semicolons. The columns of `COLUMNS` are the same for every comparison;
metrics of pictures follow them, such as `quality_clip_score_value_value`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

from specbench.compare.comparison import PASS_AT, Comparison, Speedup
from specbench.compare.derive import FidelityCounts, RoundTime
from specbench.compare.metric import ARM, ROW
from specbench.compare.registry import METRICS, PUBLISHED
from specbench.errors import printable
from specbench.report.json import plain
from specbench.schema.result import MethodInfo
from specbench.stats import Estimate

_PARTS: dict[str, type | tuple[str, ...]] = {
    "speedup_e2e": Speedup,
    "speedup_decode": Speedup,
    "speedup_mean_rate": Estimate,
    "speedup_pooled_rate": Estimate,
    "score": Estimate,
    "score_difference": Estimate,
    "pass_at_k": tuple(str(k) for k in PASS_AT),
    "round_time": RoundTime,
    "fidelity": FidelityCounts,
}
"""Metrics of several numbers."""


def _leaves(kind: Any) -> list[str]:
    """Return the names of a value's numbers: fields, those of nested values joined to theirs."""
    if isinstance(kind, tuple):
        return list(kind)
    found = []
    for name, hint in get_type_hints(kind).items():
        nested = [part for part in (hint, *get_args(hint)) if hasattr(part, "_fields")]
        inner = _leaves(nested[0]) if nested else []
        found += [f"{name}_{leaf}" for leaf in inner] or [name]
    return found


def _names(place: str) -> Iterator[str]:
    """Yield the columns of the metrics with one number at a place."""
    prefix = "quantities_" if place == ARM else ""
    yield from (f"{prefix}{m.id}" for m in PUBLISHED if m.place == place and m.id not in _PARTS)


COLUMNS = (
    *("section", "label"),
    *(f"method_{name}" for name in _leaves(MethodInfo)),
    *("is_baseline", "samples", "repeats", "processes", "failed"),
    *(
        f"{'quantities_' if METRICS[name].place == ARM else ''}{name}_{leaf}"
        for name, kind in _PARTS.items()
        for leaf in _leaves(kind)
    ),
    *(*_names(ROW), "score_name", "draws"),
    *_names(ARM),
)
"""Header of the file."""


def render(comparison: Comparison) -> str:
    """Return the comparison as CSV with a header line."""
    stream = io.StringIO()
    lines = [_flat(plain(row)) for row in comparison.rows]
    further = dict.fromkeys(
        name for line in lines for name in line if name.startswith(("quality_", "corpus_"))
    )
    header = (*COLUMNS, *further)
    writer = csv.DictWriter(stream, header, restval="", lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: cell(line.get(name, "")) for name in header})
    return stream.getvalue()


def cell(value: Any) -> Any:
    """Return what a cell may hold: text that no table calculator takes for a formula.

    Text that begins as a formula does gets an apostrophe before it, which such programs take away
    again. Numbers stay numbers.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return (
        f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@", "\uff1d", "\uff0b")) else text
    )


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        flat: dict[str, Any] = {}
        for key, item in value.items():
            flat.update(_flat(item, f"{name}_{key}" if name else key))
        return flat
    if isinstance(value, list):
        return {name: ";".join(str(item) for item in value)}
    return {name: "" if value is None else value}
