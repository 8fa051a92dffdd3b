"""How each published quantity of a method is made of its measurements' cells.

A comparison needs the values; a gate and a history need to know how each value would move with
other samples, repeats or processes. Nearly every quantity is a product of totals, so that the
share of one cell (one sample in one pass) in each total is its influence on the logarithm of the
value, and the spread of these shares is the value's error. `specbench.compare.derive` has the
definitions; a test holds both equal.
"""

from __future__ import annotations

from typing import NamedTuple

from specbench.schema.result import BASELINE, METHOD

COUNT = "count"
"""Stands for the number of measurements in the place of a column."""


class Total(NamedTuple):
    """One factor of a quantity.

    Attributes:
        columns: Columns of the rows that are added up, or `COUNT`.
        power: +1 for a factor, -1 for a divisor.
        arm: Whose rows.
    """

    columns: tuple[str, ...]
    power: int
    arm: str = METHOD


class Quantity(NamedTuple):
    """How a quantity is made.

    Attributes:
        totals: Its factors; empty for one that is a mean, a median or a greatest value.
        scale: Unit conversion.
        timing: Whether a clock measured it, so that it has a noise floor.
        raw: Whether it is a time of one machine, not a ratio of two arms on it.
        counted: Whether it is counted in tokens and forwards, which repeat exactly.
        derived: Name of the function of `specbench.compare.derive` that defines it; empty where
            another module does.
        late: Whether a method that settles its tokens only at the end has no value of it.
    """

    totals: tuple[Total, ...] = ()
    scale: float = 1.0
    timing: bool = False
    raw: bool = False
    counted: bool = False
    derived: str = ""
    late: bool = False


def _ratio(
    over: str | tuple[str, ...],
    under: str | tuple[str, ...],
    *,
    scale: float = 1.0,
    timing: bool = False,
    late: bool = False,
    derived: str = "",
) -> Quantity:
    """Return a quantity of the method's arm that is one total over another."""
    columns = [(part,) if isinstance(part, str) else part for part in (over, under)]
    return Quantity(
        (Total(columns[0], 1), Total(columns[1], -1)),
        scale=scale,
        timing=timing,
        raw=timing,
        counted=not timing,
        late=late,
        derived=derived,
    )


_MODEL_TIME = ("verification_draft_ns", "verification_target_ns", "verification_sampling_ns")
_ROUND_TIME = (*_MODEL_TIME, "verification_host_ns")
_PREDICTED = (
    Total(_MODEL_TIME, 1, BASELINE),
    Total(("verification_emitted",), -1, BASELINE),
    Total(_MODEL_TIME, -1),
    Total(("verification_emitted",), 1),
)
_DECODE = (Total(("decode_ns",), 1, BASELINE), Total(("decode_ns",), -1))

QUANTITIES: dict[str, Quantity] = {
    "mal": _ratio("verification_emitted", "verification_rounds", late=True, derived="mal"),
    "mal_request": Quantity(counted=True, late=True, derived="mal_request"),
    "accepted_per_round": _ratio(
        "verification_accepted", "verification_rounds", derived="accepted_per_round"
    ),
    "acceptance_rate": _ratio(
        "verification_accepted", "verification_tested", derived="acceptance_rate"
    ),
    "draft_efficiency": _ratio(
        "verification_accepted", "verification_nodes", derived="draft_efficiency"
    ),
    "node_acceptance": _ratio("offer_accepted", "offer_visits", derived="node_acceptance"),
    "node_acceptance_ceiling": _ratio(
        "offer_optimal", "offer_visits", derived="node_acceptance_ceiling"
    ),
    "nfe": _ratio("target_forwards", COUNT, derived="nfe"),
    "step_compression": _ratio("new_tokens", "target_forwards", derived="step_compression"),
    "mean_new_tokens": _ratio("new_tokens", COUNT, derived="mean_new_tokens"),
    "tokens_ratio": Quantity(
        (Total(("new_tokens",), 1), Total(("new_tokens",), -1, BASELINE)), counted=True
    ),
    "fidelity": Quantity(counted=True),
    "identical": Quantity(counted=True),
    "score": Quantity(),
    "score_difference": Quantity(),
    "speedup_e2e": Quantity(
        (Total(("total_ns",), 1, BASELINE), Total(("total_ns",), -1)), timing=True
    ),
    "speedup_decode": Quantity(_DECODE, timing=True, late=True),
    "predicted_speedup": Quantity(_PREDICTED, timing=True, late=True),
    "overhead": Quantity(timing=True, late=True),
    "tokens_per_second": _ratio(
        "new_tokens", "total_ns", scale=1e9, timing=True, derived="tokens_per_second"
    ),
    "tokens_per_second_decode": _ratio(
        "verification_emitted",
        "decode_ns",
        scale=1e9,
        timing=True,
        late=True,
        derived="tokens_per_second_decode",
    ),
    "ttft_ms": Quantity(timing=True, raw=True, derived="ttft_ms"),
    "host_share": _ratio("host_ns", "total_ns", timing=True, derived="host_share"),
    "round_time": _ratio(_ROUND_TIME, "verification_rounds", scale=1e-6, timing=True),
    "peak_memory_bytes": Quantity(raw=True, derived="peak_memory_bytes"),
}
"""Every quantity that a gate or a history knows beside the metrics of pictures, by id."""

OVERHEAD_PARTS = (_DECODE, _PREDICTED)
"""Observed and predicted decode speedup, of which the overhead is made."""
