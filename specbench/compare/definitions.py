"""Definitions of acceptance length and of speedup that only `compare --explain` prints."""

from __future__ import annotations

import numpy as np

from specbench.compare.measurements import Measurements
from specbench.compare.metric import NOWHERE, Explained, Metric, Total, gain, quotient, verifies
from specbench.compare.pool import Pairs
from specbench.stats import FloatArray


def _one_plus_accepted(measured: Measurements, rounds: str) -> float | None:
    accepted = measured.total("verification_accepted", rounds)
    return None if accepted is None else 1.0 + accepted


def _expected(measured: Measurements) -> float | None:
    """Expected tokens of a round whose drafts are accepted independently."""
    rate = measured.total("verification_accepted", "verification_tested")
    length = measured.total("verification_proposed", "verification_rounds")
    if rate is None or length is None:
        return None
    return length + 1.0 if rate >= 1.0 else (1.0 - rate ** (length + 1.0)) / (1.0 - rate)


def _ratios(pairs: Pairs, column: str = "total_ns") -> FloatArray:
    """Return each sample's ratio of a column, the baseline's sum over the method's."""
    totals = []
    for arm in (pairs.baseline, pairs.method):
        values = arm.values(column)
        totals.append(np.bincount(pairs.method.samples, values, pairs.method.sample_count))
    known = (totals[1] > 0) & (totals[0] > 0)
    return np.asarray(totals[0][known] / totals[1][known])


def _mean_of_rate_ratios(pairs: Pairs) -> float | None:
    times, tokens = _ratios(pairs), _ratios(pairs, "new_tokens")
    return _mean(times / tokens) if times.shape == tokens.shape else None


def _mean(values: FloatArray) -> float | None:
    return float(values.mean()) if values.size and np.isfinite(values).all() else None


def _geometric(values: FloatArray) -> float | None:
    return float(np.exp(np.log(values).mean())) if values.size else None


def _median(values: FloatArray) -> float | None:
    return float(np.median(values)) if values.size else None


DEFINITIONS = (
    Metric(
        id="completion_over_verifications",
        place=NOWHERE,
        totals=quotient("new_tokens", "verification_rounds"),
        defined=verifies,
        explained=Explained(
            "mal",
            3,
            "all tokens / rounds",
            "all new tokens over verification rounds: the prefill's token counts, its forward not",
            "SGLang: completion_tokens over spec_verify_ct of a response.",
        ),
    ),
    Metric(
        id="tokens_over_rounds",
        place=NOWHERE,
        totals=(Total(("new_tokens",), 1), Total(("verification_rounds", "turns"), -1)),
        explained=Explained(
            "mal",
            4,
            "all tokens / all rounds",
            "all new tokens over all rounds, each turn's prefill included in both",
            "TensorRT-LLM: generated tokens over decoding iterations of a request; papers on "
            "parallel decoding, as the compression ratio of decoding steps (Lookahead Decoding).",
        ),
    ),
    Metric(
        id="tokens_over_last_index",
        place=NOWHERE,
        totals=(
            Total(("new_tokens",), 1),
            Total(("verification_rounds",), -1, less=("turns",)),
        ),
        defined=verifies,
        explained=Explained(
            "mal",
            6,
            "tokens / last index",
            "all new tokens over the sum of each turn's last round index, which is one short of "
            "the number of rounds",
            "Readers of answer files who take idxs for a number of rounds (REST records the last "
            "index of its loop): an off-by-one.",
        ),
    ),
    Metric(
        id="one_plus_accepted_per_draft",
        place=NOWHERE,
        of_arm=lambda measured: _one_plus_accepted(measured, "drafting_rounds"),
        explained=Explained(
            "mal",
            7,
            "1 + accepted / drafts",
            "one plus accepted draft tokens over rounds that drafted; the token behind them counts "
            "where the end of text cut it off",
            "vLLM's mean acceptance length (its logs and Prometheus counters).",
        ),
    ),
    Metric(
        id="emitted_per_drafting_round",
        place=NOWHERE,
        totals=quotient("drafting_emitted", "drafting_rounds"),
        explained=Explained(
            "mal",
            8,
            "rounds that drafted",
            "tokens kept over the rounds that proposed anything",
            "Methods that draft only on a hit (prompt lookup, retrieval) and log the hits.",
        ),
    ),
    Metric(
        id="one_plus_accepted_per_round",
        place=NOWHERE,
        of_arm=lambda measured: _one_plus_accepted(measured, "verification_rounds"),
        defined=verifies,
        explained=Explained(
            "mal",
            9,
            "before the cut",
            "one plus accepted draft tokens over verification rounds: the token behind them counts "
            "where the end of text cut it off",
            "Loops that count before they look for the end of text (REST, and with it Spec-Bench's "
            "accept_lengths, where files keep what was cut).",
        ),
    ),
    Metric(
        id="expected_from_rate",
        place=NOWHERE,
        of_arm=_expected,
        explained=Explained(
            "mal",
            11,
            "from the rate alone",
            "(1 - a^(g+1)) / (1 - a) with the acceptance rate a and the mean draft length g, as if "
            "tokens were accepted independently",
            "Leviathan, Kalman, Matias 2023, equation 1, and cost models built on it.",
        ),
    ),
    Metric(
        id="mean_of_rate_ratios",
        place=NOWHERE,
        of_pairs=_mean_of_rate_ratios,
        explained=Explained(
            "speedup",
            5,
            "mean of ratios of tokens/s",
            "each sample's ratio of tokens per second, then the mean",
            "Tables that average per-prompt speedups; an easy prompt counts as much as a long one, "
            "and the mean of ratios leans upward.",
        ),
    ),
    Metric(
        id="mean_of_time_ratios",
        place=NOWHERE,
        of_pairs=lambda pairs: _mean(_ratios(pairs)),
        explained=Explained(
            "speedup",
            6,
            "mean of ratios of times",
            "each sample's ratio of times, then the mean",
            "Tables that average per-prompt latencies' ratios.",
        ),
    ),
    Metric(
        id="geometric_mean_of_time_ratios",
        place=NOWHERE,
        of_pairs=lambda pairs: _geometric(_ratios(pairs)),
        explained=Explained(
            "speedup",
            7,
            "geometric mean",
            "each sample's ratio of times, then the geometric mean: the same in both directions",
            "Compiler benchmarks' habit.",
        ),
    ),
    Metric(
        id="median_of_time_ratios",
        place=NOWHERE,
        of_pairs=lambda pairs: _median(_ratios(pairs)),
        explained=Explained(
            "speedup",
            8,
            "median",
            "each sample's ratio of times, then the median",
            "Reports that guard against outliers.",
        ),
    ),
    Metric(
        id="forwards_ratio",
        place=NOWHERE,
        totals=gain("target_forwards"),
        explained=Explained(
            "speedup",
            9,
            "forwards, no clock",
            "the baseline's target forwards over the method's",
            "Step speedups of papers that leave time out: what would be left if drafting and "
            "wider forwards cost nothing.",
        ),
    ),
)
"""The definitions, each at its place in its topic."""
