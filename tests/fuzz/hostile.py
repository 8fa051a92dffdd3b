"""Values and bytes that no program wrote, for the readers of everything that comes from outside.

`mutated(valid)` grows a hostile variant out of valid data: that reaches further into a reader
than noise does, because most of it still looks right.
"""

from __future__ import annotations

import copy
import json
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FUZZ = settings(
    max_examples=int(os.environ.get("SPECBENCH_FUZZ_EXAMPLES", "50")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""Seeded by the test's own code, so that a failure is found again; CI takes 150 examples."""

PICKLE = "gASVHwAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0cnVllIWUUpQu"
DEEP = "[" * 20_000 + "]" * 20_000

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -1, 2**31, 2**63, float("inf"), float("-inf"), float("nan"), 1e308]),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        [
            "",
            "\ud800",
            "\x00",
            "__proto__",
            "../../../etc/passwd",
            "os.system",
            PICKLE,
            "x" * 70_000,
        ]
        + ["{{7*7}}", "<script>alert(1)</script>", "-1", "1e999", "NaN", "🏴" * 50]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every node of a JSON value, the root left out."""
    found: list[tuple[Any, ...]] = []
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            found.append((*path, key))
            found += paths_of(item, (*path, key))
    return found


def places_of(value: Any) -> list[tuple[Any, ...]]:
    """Return the way to every node of a JSON value, of long lists to their first two items."""
    return [path for path in paths_of(value) if not any(isinstance(k, int) and k > 1 for k in path)]


@st.composite
def mutated(draw: Any, valid: Any) -> Any:
    """Return a copy of a JSON value with one to three nodes replaced, dropped or doubled."""
    value = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        paths = paths_of(value)
        if not paths:
            return draw(VALUES)
        *way, last = draw(st.sampled_from(paths))
        node = value
        for key in way:
            node = node[key]
        action = draw(st.sampled_from(["replace", "replace", "drop", "double"]))
        if action == "drop":
            del node[last]
        elif action == "double" and isinstance(node, list):
            node.append(copy.deepcopy(node[last]))
        else:
            node[last] = draw(VALUES)
    return value


@st.composite
def damaged(draw: Any, valid: bytes) -> bytes:
    """Return bytes with some cut off, flipped, removed, inserted or repeated."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 64))
        action = draw(st.sampled_from(["cut", "flip", "remove", "insert", "repeat", "zero"]))
        if action == "cut":
            del data[place:]
        elif action == "flip" and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif action == "remove":
            del data[place : place + length]
        elif action == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=length))
        elif action == "repeat":
            data[place:place] = data[place : place + length]
        elif action == "zero":
            data[place : place + length] = bytes(min(length, len(data) - place))
    return bytes(data)


def dumped(value: Any) -> str:
    """Return JSON that may hold NaN, infinities and lone surrogates, as foreign writers' do."""
    return json.dumps(value, ensure_ascii=True)
