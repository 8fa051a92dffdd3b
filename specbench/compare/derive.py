"""The values that are no quotient of totals, one function each; see `specbench.compare.registry`.

A quantity without a denominator (no verification round, nothing proposed) is None.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specbench.compare.measurements import Measurements, ratio

LONGEST_POSITION = 64
"""Positions of the draft that `acceptance_by_position` reports at most."""

_FIDELITY_ORDER = ("wrong", "diverged", "tie", "identical")


class RoundTime(NamedTuple):
    """Mean time of one verification round by kind of work, in milliseconds.

    `sampling` is what a device spends between the target and the round's end; None where no
    device was timed, and `host` holds it.
    """

    draft: float
    target: float
    host: float
    sampling: float | None = None


class FidelityCounts(NamedTuple):
    """Samples by how their tokens compare with the baseline's at temperature 0.

    A sample counts with the worst of its repeats. `tie`: the first difference lies where the
    logits of both tokens are equal as far as forwards of several shapes can tell.
    """

    identical: int
    tie: int
    diverged: int
    wrong: int

    @property
    def total(self) -> int:
        """Samples that have a verdict."""
        return sum(self)


def mal_request(measured: Measurements) -> float | None:
    """Mean over measurements of each one's own mean acceptance length."""
    rounds = measured.values("verification_rounds")
    emitted = measured.values("verification_emitted")
    known = (rounds > 0) & np.isfinite(emitted)
    if not known.any():
        return None
    return float((emitted[known] / rounds[known]).mean())


def acceptance_by_position(measured: Measurements) -> tuple[float, ...]:
    """Chance that position i is accepted, given that it was proposed and all earlier accepted.

    Element 0 is the first draft position. The list ends at the last position that was tested.
    """
    counts = measured.draft_counts
    tested = counts.tested[:LONGEST_POSITION]
    kept = np.zeros(len(tested))
    kept[: len(counts.kept)] = counts.kept[: len(tested)]
    return tuple((kept / tested).tolist())


def acceptance_histogram(measured: Measurements) -> tuple[int, ...]:
    """Number of verification rounds that accepted 0, 1, 2, ... draft tokens."""
    return tuple(measured.draft_counts.accepted.tolist())


def ttft_ms(measured: Measurements) -> float | None:
    """Median time to the first token of the first turn, in milliseconds."""
    times = measured.known("ttft_ns")
    return float(np.median(times)) / 1e6 if len(times) else None


def round_time(measured: Measurements) -> RoundTime | None:
    """Mean milliseconds of a verification round, split into draft, target, host and sampling."""
    draft, target, host, sampling = (
        measured.total(f"verification_{part}_ns", "verification_rounds")
        for part in RoundTime._fields
    )
    if draft is None or target is None or host is None:
        return None
    return RoundTime(draft / 1e6, target / 1e6, host / 1e6, sampling / 1e6 if sampling else None)


def peak_memory_bytes(measured: Measurements) -> int | None:
    """Greatest device memory, or where no device reports it the process's resident memory."""
    for column in ("peak_device_bytes", "peak_rss_bytes"):
        values = measured.known(column)
        if len(values):
            return int(values.max())
    return None


def fidelity_counts(measured: Measurements) -> FidelityCounts | None:
    """Samples by the worst fidelity of their repeats; None where fidelity is undefined."""
    names = measured.table.names.get("fidelity", ())
    order = [_FIDELITY_ORDER.index(name) if name in _FIDELITY_ORDER else -1 for name in names]
    rank = np.array([*order, -1])[measured.raw("fidelity").astype(np.int64)]
    judged = rank >= 0
    if not judged.any():
        return None
    worst = np.full(measured.sample_count, len(_FIDELITY_ORDER))
    np.minimum.at(worst, measured.samples[judged], rank[judged])
    counts = {name: int((worst == place).sum()) for place, name in enumerate(_FIDELITY_ORDER)}
    return FidelityCounts(**counts)


def predicted_speedup(method: Measurements, baseline: Measurements) -> float | None:
    """Decode speedup that acceptance and cost predict, if the host's work were free.

    A verification round of the method yields its mean tokens for its mean draft and target time,
    with a device's sampling; the baseline pays that of its round for each token (Leviathan, Kalman,
    Matias, "Fast Inference from Transformers via Speculative Decoding", 2023, Theorem 3.8, with
    measured costs).
    """
    costs = []
    for arm in (baseline, method):
        length = arm.total("verification_emitted", "verification_rounds") if arm.verifies else None
        cost = round_time(arm)
        if length is None or cost is None:
            return None
        costs.append(ratio(cost.draft + cost.target + (cost.sampling or 0.0), length))
    plain, own = costs
    return None if plain is None or own is None else ratio(plain, own)


def overhead(predicted: float | None, observed: float | None) -> float | None:
    """Share of the predicted decode speedup that was not observed: 1 - observed / predicted."""
    if predicted is None or observed is None:
        return None
    return 1.0 - observed / predicted
