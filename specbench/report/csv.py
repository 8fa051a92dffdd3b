"""The comparison as CSV: one line a row, every scalar at full precision.

Columns carry the field names of `ComparisonRow`, joined by underscores where a field has parts,
such as `speedup_e2e_interval_low`. An absent value is an empty cell. Lists (acceptance by
position) are separated by semicolons. The columns of `COLUMNS` are the same for every comparison;
metrics of pictures follow them, such as `quality_clip_score_value_value`.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from specbench.compare.comparison import PASS_AT, Comparison
from specbench.errors import printable
from specbench.report.json import plain

_ESTIMATE = ("value", "interval_low", "interval_high", "p_value", "n")
_SPEEDUP = (
    "value",
    "interval_low",
    "interval_high",
    "p_value",
    "adjusted_p_value",
    "noise_floor",
    "verdict",
    "detectable",
    "samples_needed",
    "variance_samples",
    "variance_passes",
    "variance_cells",
    "variance_sample_count",
    "variance_pass_count",
)
_PARTS: dict[str, tuple[str, ...]] = {
    "speedup_e2e": _SPEEDUP,
    "speedup_decode": _SPEEDUP,
    "speedup_mean_rate": _ESTIMATE,
    "speedup_pooled_rate": _ESTIMATE,
    "score": _ESTIMATE,
    "score_difference": _ESTIMATE,
    "pass_at_k": tuple(str(k) for k in PASS_AT),
    "quantities_round_time": ("draft", "target", "host", "sampling"),
    "quantities_fidelity": ("identical", "tie", "diverged", "wrong"),
}
_METHOD = ("name", "title", "exactness", "knob", "paper", "modality")
_ROW_START = ("section", "label")
_ROW_MIDDLE = ("is_baseline", "samples", "repeats", "processes", "failed")
_ROW_END = ("predicted_speedup", "overhead", "tokens_ratio", "score_name", "draws")
_QUANTITIES = (
    "mal",
    "mal_request",
    "accepted_per_round",
    "acceptance_rate",
    "acceptance_by_position",
    "acceptance_histogram",
    "draft_efficiency",
    "node_acceptance",
    "node_acceptance_ceiling",
    "nfe",
    "step_compression",
    "tokens_per_second",
    "tokens_per_second_decode",
    "ttft_ms",
    "host_share",
    "peak_memory_bytes",
    "mean_new_tokens",
)

COLUMNS = (
    *_ROW_START,
    *(f"method_{name}" for name in _METHOD),
    *_ROW_MIDDLE,
    *(f"{name}_{part}" for name, parts in _PARTS.items() for part in parts),
    *_ROW_END,
    *(f"quantities_{name}" for name in _QUANTITIES),
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
