"""The audit's enumeration, under the names that the tests of decoders use."""

from __future__ import annotations

from specbench.audit.enumeration import Script, distance, output_law, scripted, true_law

__all__ = ["Script", "distance", "output_law", "scripted", "true_law"]
