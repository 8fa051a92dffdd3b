"""`docs/models.md` says of every tested architecture what the code does with it, and no more."""

from __future__ import annotations

import os
from pathlib import Path

from specbench.models.base import Capability
from tests.unit.models.architectures import CASES, Case, engine_of

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
START, END = "<!-- architectures -->\n", "<!-- end -->\n"
HEAD = (
    "| `model_type` | with | engine | trees | hidden states, layers left out |\n"
    "|---|---|---|---|---|\n"
)


def row(case: Case) -> str:
    """Return a case's line of the table."""
    engine = engine_of(case)
    able = engine.able(case.config) if engine.engine == "transformers" else engine.capabilities
    trees = "yes" if Capability.TREE_MASK in able else "no"
    inside = "yes" if {Capability.LAYER_SKIP, Capability.HIDDEN_STATES} <= able else "no"
    return f"| `{case.kind}` | {case.about} | {engine.engine} | {trees} | {inside} |\n"


def test_the_table_is_what_was_tested():
    """Written anew with SPECBENCH_WRITE_GOLDEN=1."""
    expected = HEAD + "".join(sorted(row(case) for case in CASES.values()))
    before, rest = PAGE.read_text().split(START)
    found, after = rest.split(END)
    if os.environ.get("SPECBENCH_WRITE_GOLDEN"):
        PAGE.write_text(before + START + expected + END + after)
        return
    assert found == expected
