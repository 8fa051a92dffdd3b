"""The families that methods are listed by; apart, so that listing loads nothing else."""

from __future__ import annotations

UPPER_BOUND = "upper bound"
"""Instruments that know what they could not know: ceilings, and no methods."""

FAMILIES = (
    "baseline",
    "draft model, chain",
    "draft model, tree",
    "trained head",
    "model-free",
    "self-speculation",
    "relaxed",
    "routing and quality",
    "constrained",
    UPPER_BOUND,
    "other",
)
"""Groups of methods, in the order in which they are listed."""
