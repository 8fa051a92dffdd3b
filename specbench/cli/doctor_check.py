"""What `specbench doctor` reports of one thing."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """One finding.

    Attributes:
        name: What was looked at.
        status: "ok", "note" (works, with advice) or "bad" (a run would fail).
        found: What was found.
        advice: What to do, or empty.
    """

    name: str
    status: str
    found: str
    advice: str = ""
