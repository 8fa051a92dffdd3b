"""A tree of width one."""

from __future__ import annotations


class Chain:
    """Every node has one child; the length policy alone decides where it ends."""

    def children(self, depth: int) -> int:
        """Return 1."""
        return 1
