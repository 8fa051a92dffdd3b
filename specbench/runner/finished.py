"""What a job that goes on takes from a result file that it finished earlier."""

from __future__ import annotations

from typing import Any

from specbench import store
from specbench.store import Journal, ResultSet


def identities(written: ResultSet) -> list[dict[str, Any]]:
    """Return what tells the rows of a finished file apart, and whether they failed."""
    columns = ["arm", "sample_id", "repeat", "process", "started_unix", "error"]
    return [
        {str(name): value for name, value in row.items()}
        for row in written.rows[columns].to_dict("records")
    ]


def taken_up(written: ResultSet, journal: Journal) -> bool:
    """Bring a finished file's rows into the journal of a job that shall have more processes.

    Returns:
        Whether the journal goes on with the file. A journal that holds other measurements of the
        same keys belongs to a repetition (`--fresh`) that was stopped, and becomes a file of its
        own.
    """
    held = {store.key_of(row): row["started_unix"] for row in journal.rows}
    for row in identities(written):
        started = held.get(store.key_of(row), row["started_unix"])
        if not isinstance(row["error"], str) and started != row["started_unix"]:
            return False
    rows = written.table.to_pylist(maps_as_pydicts="strict")
    journal.append_many([row for row in rows if store.key_of(row) not in held])
    return True
