"""What a topology answers while a draft grows level by level."""

from __future__ import annotations

from typing import Protocol


class Topology(Protocol):
    """Decides how many children the nodes of a level get."""

    def children(self, depth: int) -> int:
        """Return the number of children of each node at `depth`; the root has depth 0."""
