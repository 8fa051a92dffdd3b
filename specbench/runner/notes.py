"""What a result's provenance tells of the processes that measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from specbench.runner.device_state import is_state, joined


def with_notes(provenance: Mapping[str, Any], notes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a provenance with the notes of its processes.

    Args:
        provenance: Of the job, as it began.
        notes: What the journal holds. Each holds all that the ones before it of the same start of
            a process do, so that the last of them is kept.

    Returns:
        The provenance with `processes`, the kept notes, and, where a GPU was watched,
        `device_state` of all of them (`device_state.joined`).
    """
    every = [*provenance.get("processes", []), *notes]
    starts = [repr((note.get("process"), note.get("started_unix"))) for note in every]
    kept = list(dict(zip(starts, every, strict=True)).values())
    states = [note["device_state"] for note in kept if is_state(note.get("device_state"))]
    found = {**provenance, "processes": kept}
    return found | {"device_state": joined(states)} if states else found
