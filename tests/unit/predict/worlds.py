"""Devices, shapes and profiles whose every predicted value can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from specbench.predict.acceptance import Acceptance
from specbench.predict.profile import Profile, RoundCost, RoundWork
from specbench.predict.speedup import Question
from specbench.schema.hardware import Assumed, DataSheet, Hardware
from specbench.schema.result import MethodInfo
from specbench.schema.shape import Shape

IDEAL = Assumed(
    bandwidth_efficiency=1.0,
    compute_efficiency=1.0,
    memory_share=1.0,
    layer_overhead_us=0.0,
    forward_overhead_us=0.0,
    round_overhead_us=0.0,
)

# multiplied: 2 * (4 * (2*4 + 2*4) + 3*4*8) + 4*10 = 2 * 160 + 40 = 360; embedding 40 more
SMALL = Shape("small", "Small", 4, 2, 2, 2, 2, 8, 10, tied=False)


def device(
    bandwidth: float = 720.0,
    flops: float = 1e12,
    memory: float = 1e12,
    assumed: Assumed = IDEAL,
) -> Hardware:
    """A device that reads the 720 bytes of `SMALL` in bfloat16 in one second."""
    source = DataSheet("all", "none", "none")
    return Hardware("d", "Device", bandwidth, {"bfloat16": flops}, memory, assumed, (source,))


def chain(
    rate: float = 0.8,
    length: int = 4,
    tested: int = 1000,
    label: str = "token_sd",
    cost: RoundCost | None = None,
    **changes: Any,
) -> Profile:
    """A chain of fixed length whose tokens are accepted independently."""
    acceptance = Acceptance((rate,) * length, (1.0,) * length, (1.0,) * length, (tested,) * length)
    tokens = 1.0 + sum(rate**i for i in range(1, length + 1))
    values: dict[str, Any] = {
        "label": label,
        "method": MethodInfo(label),
        "model": "m",
        "target": "small",
        "draft": "small",
        "tasks": ("t",),
        "law": "greedy",
        "device": "cpu",
        "rounds": tested,
        "drafter": "model",
        "acceptance": acceptance,
        "work": RoundWork(tokens, 1.0, length + 1.0, float(length), float(length)),
        "kept": 1.0,
        "fixed": "",
        "rows": 1,
        "cost": cost,
    }
    return Profile(**{**values, **changes})


def question(hardware: Hardware | None = None, **changes: Any) -> Question:
    """A question on `SMALL` without context; keyword arguments replace fields."""
    values: dict[str, Any] = {
        "hardware": hardware or device(),
        "target": SMALL,
        "draft": SMALL,
        "dtype": "bfloat16",
        "context": 0,
        "batches": (1,),
        "lengths": tuple(range(1, 9)),
    }
    return Question(**{**values, **changes})


def rounds_of(seed: int, count: int = 400, longest: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Proposed and accepted tokens of random rounds."""
    stream = np.random.default_rng(seed)
    proposed = stream.integers(0, longest + 1, count)
    accepted = np.minimum(proposed, stream.geometric(0.4, count) - 1)
    return proposed, accepted
