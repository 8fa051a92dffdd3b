"""The tables of docs/reference.md and docs/reference_pictures.md, from the reference results.

    python -m benchmarks.reference_page > tables.md

One table for each law: what was accepted, what it cost, how much faster it was and how good, and
how long it held up the processor outside of both models.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from specbench.compare import compare
from specbench.compare.comparison import OVERALL, ComparisonRow
from specbench.report import words
from specbench.store import read_many

FOLDER = Path(__file__).resolve().parents[1] / "results" / "reference"

GATE = "gate"
"""What changes of the project are held against; it has few samples."""

COLUMNS: tuple[tuple[str, Callable[[ComparisonRow], str]], ...] = (
    ("method", lambda row: f"`{row.label}`"),
    ("class", words.exactness),
    ("forwards", lambda row: words.number(row.quantities.nfe, 1)),
    ("tokens per round", lambda row: words.number(row.quantities.mal)),
    ("draft efficiency", lambda row: words.percent(row.quantities.draft_efficiency)),
    ("node of ceiling", words.node_acceptance),
    ("speedup end to end", lambda row: words.speedup(row, row.speedup_e2e)),
    ("floor", lambda row: words.floor(row.speedup_e2e)),
    ("tok/s decode", lambda row: words.rate(row.quantities.tokens_per_second_decode)),
    ("score", words.score),
    ("same tokens", words.fidelity),
    ("host", lambda row: words.percent(row.quantities.host_share)),
)


def main() -> None:
    """Print a table for each law."""
    for folder in sorted(path for path in FOLDER.iterdir() if path.is_dir()):
        if folder.name == GATE:
            continue
        comparison = compare(read_many(sorted(folder.glob("*.parquet"))))
        rows = comparison.section(OVERALL) or comparison.rows
        measured = words.metrics_of(rows)
        columns = [*COLUMNS, *((name, partial(words.metric, name=name)) for name in measured)]
        shown = [
            (title, read)
            for title, read in columns
            if any(read(row) != words.NOTHING for row in rows) and (title != "forwards" or measured)
        ]
        print(f"### {words.heading(comparison)}\n")
        print(f"| {' | '.join(title for title, _ in shown)} |")
        print(f"|{'---|' * len(shown)}")
        for row in rows:
            print(f"| {' | '.join(read(row) for _, read in shown)} |")
        print()


if __name__ == "__main__":
    main()
