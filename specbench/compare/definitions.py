"""Every published definition of acceptance length and of speedup, as a function of one method."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from specbench.compare import derive
from specbench.compare.derive import Measurements
from specbench.compare.pool import Pairs
from specbench.compare.speedup import mean_rate_speedup, pooled_rate_speedup
from specbench.stats import Estimate, FloatArray


class Definition(NamedTuple):
    """One published definition.

    Attributes:
        name: Its key in JSON; the name of specbench's own quantity where it is one.
        title: What tables call it.
        formula: How it is computed, in words.
        users: Who publishes it, one sentence.
    """

    name: str
    title: str
    formula: str
    users: str


class Subject(NamedTuple):
    """One method's measurements, and the same with their baseline's where there is one."""

    method: Measurements
    pairs: Pairs | None


Reader = Callable[[Subject], float | None]


def _of_method(read: Callable[[Measurements], float | None]) -> Reader:
    return lambda subject: read(subject.method)


def _of_pairs(read: Callable[[Pairs], float | None]) -> Reader:
    return lambda subject: read(subject.pairs) if subject.pairs else None


def _per_round(measured: Measurements) -> float | None:
    """New tokens over verification rounds: the prefill's token above, its round not below."""
    if not measured.verifies:
        return None
    return measured.total("new_tokens", "verification_rounds")


def _per_round_and_prefill(measured: Measurements) -> float | None:
    rounds = measured.values("verification_rounds") + measured.values("turns")
    return _over(measured.values("new_tokens"), rounds)


def _per_last_index(measured: Measurements) -> float | None:
    if not measured.verifies:
        return None
    rounds = measured.values("verification_rounds") - measured.values("turns")
    return _over(measured.values("new_tokens"), rounds)


def _before_the_cut(measured: Measurements) -> float | None:
    accepted = derive.accepted_per_round(measured)
    return None if accepted is None or not measured.verifies else 1.0 + accepted


def _per_draft(measured: Measurements) -> float | None:
    accepted = measured.total("verification_accepted", "drafting_rounds")
    return None if accepted is None else 1.0 + accepted


def _drafting_only(measured: Measurements) -> float | None:
    return measured.total("drafting_emitted", "drafting_rounds")


def _expected(measured: Measurements) -> float | None:
    """Expected tokens of a round whose drafts are accepted independently."""
    rate = derive.acceptance_rate(measured)
    length = measured.total("verification_proposed", "verification_rounds")
    if rate is None or length is None:
        return None
    return length + 1.0 if rate >= 1.0 else (1.0 - rate ** (length + 1.0)) / (1.0 - rate)


def _time_ratios(pairs: Pairs, column: str = "total_ns") -> FloatArray:
    """Return each sample's ratio of times, summed over its measurements."""
    totals = []
    for arm in (pairs.baseline, pairs.method):
        values = arm.values(column)
        totals.append(np.bincount(pairs.method.samples, values, pairs.method.sample_count))
    known = (totals[1] > 0) & (totals[0] > 0)
    return np.asarray(totals[0][known] / totals[1][known])


def _rate_ratios(pairs: Pairs) -> FloatArray:
    ratios = _time_ratios(pairs)
    tokens = _time_ratios(pairs, "new_tokens")
    return ratios / tokens if ratios.shape == tokens.shape else ratios[:0]


def _mean(values: FloatArray) -> float | None:
    return float(values.mean()) if values.size and np.isfinite(values).all() else None


def _geometric(values: FloatArray) -> float | None:
    return float(np.exp(np.log(values).mean())) if values.size else None


def _median(values: FloatArray) -> float | None:
    return float(np.median(values)) if values.size else None


def _total_ratio(pairs: Pairs, column: str) -> float | None:
    return _over(pairs.baseline.values(column), pairs.method.values(column))


def _decode_ratio(pairs: Pairs) -> float | None:
    return None if pairs.method.settles_late else _total_ratio(pairs, "decode_ns")


def _over(above: FloatArray, below: FloatArray) -> float | None:
    known = np.isfinite(above) & np.isfinite(below)
    total = float(below[known].sum())
    return float(above[known].sum()) / total if total > 0 else None


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


_MAL: tuple[tuple[Definition, Reader], ...] = (
    (
        Definition(
            "mal",
            "pooled over rounds",
            "tokens kept over verification rounds, bonus included, all requests together",
            "specbench's MAL; Spec-Bench's mean accepted tokens, REST's and SWIFT's, the mean of "
            "all entries of accept_lengths.",
        ),
        _of_method(derive.mal),
    ),
    (
        Definition(
            "mal_request",
            "mean over requests",
            "the same for each request, then the mean: a short answer counts as much as a long one",
            "Clients that average what a server reports for each response, such as AIPerf's "
            "per-request acceptance; specdec_bench, with which SPEED-Bench is run, averages over "
            "turns.",
        ),
        _of_method(derive.mal_request),
    ),
    (
        Definition(
            "completion_over_verifications",
            "all tokens / rounds",
            "all new tokens over verification rounds: the prefill's token counts, its forward not",
            "SGLang: completion_tokens over spec_verify_ct of a response.",
        ),
        _of_method(_per_round),
    ),
    (
        Definition(
            "tokens_over_rounds",
            "all tokens / all rounds",
            "all new tokens over all rounds, each turn's prefill included in both",
            "TensorRT-LLM: generated tokens over decoding iterations of a request; papers on "
            "parallel decoding, as the compression ratio of decoding steps (Lookahead Decoding).",
        ),
        _of_method(_per_round_and_prefill),
    ),
    (
        Definition(
            "step_compression",
            "tokens / forwards",
            "all new tokens over target forwards, prefills and every extra forward included",
            "specbench's step compression; the speculative Jacobi papers on pictures.",
        ),
        _of_method(derive.step_compression),
    ),
    (
        Definition(
            "tokens_over_last_index",
            "tokens / last index",
            "all new tokens over the sum of each turn's last round index, which is one short of "
            "the number of rounds",
            "Readers of answer files who take idxs for a number of rounds (REST records the last "
            "index of its loop): an off-by-one.",
        ),
        _of_method(_per_last_index),
    ),
    (
        Definition(
            "one_plus_accepted_per_draft",
            "1 + accepted / drafts",
            "one plus accepted draft tokens over rounds that drafted; the token behind them counts "
            "where the end of text cut it off",
            "vLLM's mean acceptance length (its logs and Prometheus counters).",
        ),
        _of_method(_per_draft),
    ),
    (
        Definition(
            "emitted_per_drafting_round",
            "rounds that drafted",
            "tokens kept over the rounds that proposed anything",
            "Methods that draft only on a hit (prompt lookup, retrieval) and log the hits.",
        ),
        _of_method(_drafting_only),
    ),
    (
        Definition(
            "one_plus_accepted_per_round",
            "before the cut",
            "one plus accepted draft tokens over verification rounds: the token behind them counts "
            "where the end of text cut it off",
            "Loops that count before they look for the end of text (REST, and with it Spec-Bench's "
            "accept_lengths, where files keep what was cut).",
        ),
        _of_method(_before_the_cut),
    ),
    (
        Definition(
            "accepted_per_round",
            "without the bonus",
            "accepted draft tokens over verification rounds, no bonus or corrected token",
            "specbench's accepted_per_round; papers that count draft tokens only: one less than "
            "their neighbours.",
        ),
        _of_method(derive.accepted_per_round),
    ),
    (
        Definition(
            "expected_from_rate",
            "from the rate alone",
            "(1 - a^(g+1)) / (1 - a) with the acceptance rate a and the mean draft length g, as if "
            "tokens were accepted independently",
            "Leviathan, Kalman, Matias 2023, equation 1, and cost models built on it.",
        ),
        _of_method(_expected),
    ),
)

_SPEEDUP: tuple[tuple[Definition, Reader], ...] = (
    (
        Definition(
            "speedup_e2e",
            "total time",
            "the baseline's total time over the method's, prefill included",
            "specbench's speedup; latency tables that add up a benchmark's wall time.",
        ),
        _of_pairs(lambda pairs: _total_ratio(pairs, "total_ns")),
    ),
    (
        Definition(
            "speedup_decode",
            "total time, decode only",
            "the same without each turn's prefill",
            "specbench's decode speedup; loops that start their clock after the prompt's forward "
            "(REST).",
        ),
        _of_pairs(_decode_ratio),
    ),
    (
        Definition(
            "speedup_mean_rate",
            "mean of tokens/s",
            "mean over samples of tokens per second, the method's mean over the baseline's",
            "Spec-Bench and EAGLE (evaluation/speed.py), which count the baseline's tokens by "
            "tokenising its text again and the method's by its ids; SWIFT, which counts both by "
            "ids.",
        ),
        _of_pairs(lambda pairs: _value(mean_rate_speedup(pairs))),
    ),
    (
        Definition(
            "speedup_pooled_rate",
            "pooled tokens/s",
            "all tokens over all time, the method's over the baseline's",
            "Throughput reports of servers: tokens of a whole run over its time.",
        ),
        _of_pairs(lambda pairs: _value(pooled_rate_speedup(pairs))),
    ),
    (
        Definition(
            "mean_of_rate_ratios",
            "mean of ratios of tokens/s",
            "each sample's ratio of tokens per second, then the mean",
            "Tables that average per-prompt speedups; an easy prompt counts as much as a long one, "
            "and the mean of ratios leans upward.",
        ),
        _of_pairs(lambda pairs: _mean(_rate_ratios(pairs))),
    ),
    (
        Definition(
            "mean_of_time_ratios",
            "mean of ratios of times",
            "each sample's ratio of times, then the mean",
            "Tables that average per-prompt latencies' ratios.",
        ),
        _of_pairs(lambda pairs: _mean(_time_ratios(pairs))),
    ),
    (
        Definition(
            "geometric_mean_of_time_ratios",
            "geometric mean",
            "each sample's ratio of times, then the geometric mean: the same in both directions",
            "Compiler benchmarks' habit.",
        ),
        _of_pairs(lambda pairs: _geometric(_time_ratios(pairs))),
    ),
    (
        Definition(
            "median_of_time_ratios",
            "median",
            "each sample's ratio of times, then the median",
            "Reports that guard against outliers.",
        ),
        _of_pairs(lambda pairs: _median(_time_ratios(pairs))),
    ),
    (
        Definition(
            "forwards_ratio",
            "forwards, no clock",
            "the baseline's target forwards over the method's",
            "Step speedups of papers that leave time out: what would be left if drafting and "
            "wider forwards cost nothing.",
        ),
        _of_pairs(lambda pairs: _total_ratio(pairs, "target_forwards")),
    ),
    (
        Definition(
            "predicted_speedup",
            "predicted",
            "from acceptance and measured cost of a round, the host's work free",
            "Leviathan, Kalman, Matias 2023, Theorem 3.8, with measured costs.",
        ),
        _of_pairs(lambda pairs: derive.predicted_speedup(pairs.method, pairs.baseline)),
    ),
)

TOPICS: dict[str, tuple[tuple[Definition, Reader], ...]] = {"mal": _MAL, "speedup": _SPEEDUP}
"""What can be explained."""
