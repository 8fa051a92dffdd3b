"""Every published quantity of one arm, derived from its rows and their ledger by one function each.

Terms. A turn's first round is its prefill: the target's forward over the prompt, which yields
the turn's first token and proposes nothing. All later rounds are verification rounds; for plain
decoding each of them proposes nothing and emits one token. "Pooled" means a ratio of totals.
`emitted` counts the tokens that were kept after stop-token and length cuts, the bonus or
corrected token included; `accepted` counts draft tokens only.

A quantity without a denominator (no verification round, nothing proposed) is None. So is what
happens after the first token where a method settles its tokens only at the end, and an acceptance
length where nothing is drafted and a round is many forwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from specbench.compare.measurements import Measurements, ratio

__all__ = ["ArmSummary", "FidelityCounts", "Measurements", "RoundTime", "summarise"]

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


def mal(measured: Measurements) -> float | None:
    """Mean acceptance length: emitted tokens per verification round, bonus included, pooled."""
    if not measured.verifies:
        return None
    return measured.total("verification_emitted", "verification_rounds")


def mal_request(measured: Measurements) -> float | None:
    """Mean over measurements of each one's own mean acceptance length."""
    rounds = measured.values("verification_rounds")
    emitted = measured.values("verification_emitted")
    known = (rounds > 0) & np.isfinite(emitted)
    if not measured.verifies or not known.any():
        return None
    return float((emitted[known] / rounds[known]).mean())


def accepted_per_round(measured: Measurements) -> float | None:
    """Accepted draft tokens per verification round, bonus excluded, pooled."""
    return measured.total("verification_accepted", "verification_rounds")


def acceptance_rate(measured: Measurements) -> float | None:
    """Chance that a tested draft token is accepted, all positions pooled.

    A position of the longest proposed path is tested if all earlier ones were accepted, so that
    a round tests its accepted tokens and, unless it accepted the whole path, one more.
    """
    return measured.total("verification_accepted", "verification_tested")


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


def draft_efficiency(measured: Measurements) -> float | None:
    """Accepted over drafted tokens, where every node of a draft tree was drafted, pooled."""
    return measured.total("verification_accepted", "verification_nodes")


def nfe(measured: Measurements) -> float | None:
    """Number of function evaluations: target forwards per measurement, prefills included."""
    forwards = measured.known("target_forwards")
    return ratio(forwards.sum(), len(forwards))


def step_compression(measured: Measurements) -> float | None:
    """New tokens per target forward, prefills included, pooled. Plain decoding has 1."""
    return measured.total("new_tokens", "target_forwards")


def tokens_per_second(measured: Measurements) -> float | None:
    """New tokens per second of the whole generation, prefill included, pooled."""
    return _per_second(measured.total("new_tokens", "total_ns"))


def tokens_per_second_decode(measured: Measurements) -> float | None:
    """Tokens of the verification rounds per second after each turn's first token, pooled."""
    if measured.settles_late:
        return None
    return _per_second(measured.total("verification_emitted", "decode_ns"))


def ttft_ms(measured: Measurements) -> float | None:
    """Median time to the first token of the first turn, in milliseconds."""
    times = measured.known("ttft_ns")
    return float(np.median(times)) / 1e6 if len(times) else None


def host_share(measured: Measurements) -> float | None:
    """Share of the total time that is neither the target's nor the drafter's, pooled.

    With a device clock it is the share in which the device had nothing to do for the round.
    """
    return measured.total("host_ns", "total_ns")


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


def mean_new_tokens(measured: Measurements) -> float | None:
    """New tokens per measurement, stop tokens included."""
    tokens = measured.known("new_tokens")
    return ratio(tokens.sum(), len(tokens))


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


def node_acceptance(measured: Measurements) -> float | None:
    """Chance that a visited node of the draft tree that has children has one accepted."""
    return measured.total("offer_accepted", "offer_visits")


def node_acceptance_ceiling(measured: Measurements) -> float | None:
    """The same chance under the best verifier that there can be, for the same offers.

    Mean of the optimal transport value between the target's law and the law of the offered
    children at the visited nodes (Sun et al., "SpecTr", 2023; Khisti et al. and Hu et al., 2024,
    2025, on optimal multi-draft speculative decoding).
    """
    return measured.total("offer_optimal", "offer_visits")


def predicted_speedup(method: Measurements, baseline: Measurements) -> float | None:
    """Decode speedup that acceptance and cost predict, if the host's work were free.

    A verification round of the method yields `mal` tokens for its mean draft and target time, with
    a device's sampling; the baseline pays that of its round for each token (Leviathan, Kalman,
    Matias, "Fast Inference from Transformers via Speculative Decoding", 2023, Theorem 3.8, with
    measured costs).
    """
    length, plain_length = mal(method), mal(baseline)
    cost, plain_cost = round_time(method), round_time(baseline)
    if length is None or plain_length is None or cost is None or plain_cost is None:
        return None
    per_token = ratio(cost.draft + cost.target + (cost.sampling or 0.0), length)
    plain_per_token = ratio(
        plain_cost.target + plain_cost.draft + (plain_cost.sampling or 0.0), plain_length
    )
    if per_token is None or plain_per_token is None:
        return None
    return ratio(plain_per_token, per_token)


def overhead(predicted: float | None, observed: float | None) -> float | None:
    """Share of the predicted decode speedup that was not observed: 1 - observed / predicted."""
    if predicted is None or observed is None:
        return None
    return 1.0 - observed / predicted


@dataclass(frozen=True)
class ArmSummary:
    """The quantities of one arm; each field is the value of the function of its name.

    Attributes:
        mal: Emitted tokens per verification round, bonus included, pooled.
        mal_request: Mean over measurements of each one's own.
        accepted_per_round: Accepted draft tokens per verification round.
        acceptance_rate: Accepted over tested draft tokens.
        acceptance_by_position: The same by draft position, conditional on the earlier ones.
        acceptance_histogram: Verification rounds by accepted tokens.
        draft_efficiency: Accepted over drafted tokens.
        node_acceptance: Visited nodes with an accepted child over visited nodes with children.
        node_acceptance_ceiling: The same under the best possible verifier.
        nfe: Target forwards per measurement.
        step_compression: New tokens per target forward.
        tokens_per_second: End to end.
        tokens_per_second_decode: After the first token of each turn.
        ttft_ms: Median time to first token, milliseconds.
        host_share: Host time over total time.
        round_time: Milliseconds of a verification round: draft, target, host, sampling.
        peak_memory_bytes: Peak device memory, else resident memory.
        mean_new_tokens: New tokens per measurement.
        fidelity: Samples by fidelity against the baseline arm.
    """

    mal: float | None
    mal_request: float | None
    accepted_per_round: float | None
    acceptance_rate: float | None
    acceptance_by_position: tuple[float, ...]
    acceptance_histogram: tuple[int, ...]
    draft_efficiency: float | None
    node_acceptance: float | None
    node_acceptance_ceiling: float | None
    nfe: float | None
    step_compression: float | None
    tokens_per_second: float | None
    tokens_per_second_decode: float | None
    ttft_ms: float | None
    host_share: float | None
    round_time: RoundTime | None
    peak_memory_bytes: int | None
    mean_new_tokens: float | None
    fidelity: FidelityCounts | None


def summarise(measured: Measurements) -> ArmSummary:
    """Derive every quantity of one arm."""
    return ArmSummary(
        mal=mal(measured),
        mal_request=mal_request(measured),
        accepted_per_round=accepted_per_round(measured),
        acceptance_rate=acceptance_rate(measured),
        acceptance_by_position=acceptance_by_position(measured),
        acceptance_histogram=acceptance_histogram(measured),
        draft_efficiency=draft_efficiency(measured),
        node_acceptance=node_acceptance(measured),
        node_acceptance_ceiling=node_acceptance_ceiling(measured),
        nfe=nfe(measured),
        step_compression=step_compression(measured),
        tokens_per_second=tokens_per_second(measured),
        tokens_per_second_decode=tokens_per_second_decode(measured),
        ttft_ms=ttft_ms(measured),
        host_share=host_share(measured),
        round_time=round_time(measured),
        peak_memory_bytes=peak_memory_bytes(measured),
        mean_new_tokens=mean_new_tokens(measured),
        fidelity=fidelity_counts(measured),
    )


def _per_second(per_nanosecond: float | None) -> float | None:
    return None if per_nanosecond is None else per_nanosecond * 1e9
