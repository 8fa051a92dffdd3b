"""The comparison as JSON: every value at full precision, under keys that stay.

Keys are ids of metrics and the field names of `Comparison`, `ComparisonRow`, `Speedup` and
`Estimate`, whose docstrings define them. An absent value is null, never NaN. `format` counts
changes of the keys: a new one does not change it, a removed or redefined one does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from specbench.compare.comparison import Comparison

FORMAT = 1
"""Version of the keys."""


def render(comparison: Comparison) -> str:
    """Return the comparison as indented JSON that ends in a newline."""
    values = {"format": FORMAT, **plain(comparison)}
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Return dataclasses and named tuples as dictionaries, other tuples as lists, NaN as None.

    Keys of mappings become text.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(item) for name, item in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
