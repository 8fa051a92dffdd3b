"""The metrics of a method beside its baseline; see `specbench.compare.registry`.

They are fields of `ComparisonRow`, which `specbench.compare.build` fills: most have an interval.
"""

from __future__ import annotations

from functools import partial

from specbench.compare import cells, derive
from specbench.compare.metric import (
    NOWHERE,
    ROW,
    Explained,
    Metric,
    Total,
    gain,
    settles_early,
    verifies,
)
from specbench.compare.speedup import mean_rate_speedup, pooled_rate_speedup
from specbench.schema.result import BASELINE

_MODEL_TIME = ("verification_draft_ns", "verification_target_ns", "verification_sampling_ns")
_PREDICTED = (
    Total(_MODEL_TIME, 1, BASELINE),
    Total(("verification_emitted",), -1, BASELINE),
    Total(_MODEL_TIME, -1),
    Total(("verification_emitted",), 1),
)

PAIRED_METRICS = (
    Metric(
        id="speedup_e2e",
        title="Speedup, end to end",
        words="The baseline's total time over the method's on the same samples, prefill included, "
        "with its 95% interval. The interval is a paired hierarchical bootstrap's over prompts, "
        "repeats and processes; the run's noise floor stands beside it.",
        unit="ratio",
        better="higher",
        place=ROW,
        totals=gain("total_ns"),
        timing=True,
        charted=True,
        explained=Explained(
            "speedup",
            1,
            "total time",
            "the baseline's total time over the method's, prefill included",
            "specbench's speedup; latency tables that add up a benchmark's wall time.",
        ),
    ),
    Metric(
        id="speedup_decode",
        title="Speedup, decode only",
        words="Speedup without prefill. As speedup_e2e, over each turn's time after its first "
        "token.",
        unit="ratio",
        better="higher",
        place=ROW,
        totals=gain("decode_ns"),
        defined=settles_early,
        timing=True,
        charted=True,
        column="decode",
        rank=9,
        explained=Explained(
            "speedup",
            2,
            "total time, decode only",
            "the same without each turn's prefill",
            "specbench's decode speedup; loops that start their clock after the prompt's forward "
            "(REST).",
        ),
    ),
    Metric(
        id="speedup_mean_rate",
        title="Speedup of mean rates",
        words="The method's mean over samples of tokens per second over the baseline's "
        "(Spec-Bench's speedup). Prefill is included. A sample counts by its rate and not by its "
        "length. EAGLE publishes this ratio too.",
        unit="ratio",
        better="higher",
        place=ROW,
        of_pairs=lambda pairs: getattr(mean_rate_speedup(pairs), "value", None),
        column="mean tok/s",
        rank=1,
        legend="the method's mean over samples of tokens per second over the baseline's "
        "(Spec-Bench's speedup)",
        explained=Explained(
            "speedup",
            3,
            "mean of tokens/s",
            "mean over samples of tokens per second, the method's mean over the baseline's",
            "Spec-Bench and EAGLE (evaluation/speed.py), which count the baseline's tokens by "
            "tokenising its text again and the method's by its ids; SWIFT, which counts both by "
            "ids.",
        ),
    ),
    Metric(
        id="speedup_pooled_rate",
        title="Speedup of pooled rates",
        words="The method's new tokens over its total time, divided by the same of the baseline. "
        "Equal to speedup_e2e where both arms write as many tokens.",
        unit="ratio",
        better="higher",
        place=ROW,
        of_pairs=lambda pairs: getattr(pooled_rate_speedup(pairs), "value", None),
        column="pooled tok/s",
        rank=1,
        legend="the same with all tokens over all time",
        explained=Explained(
            "speedup",
            4,
            "pooled tokens/s",
            "all tokens over all time, the method's over the baseline's",
            "Throughput reports of servers: tokens of a whole run over its time.",
        ),
    ),
    Metric(
        id="predicted_speedup",
        title="Predicted decode speedup",
        words="Decode speedup from acceptance and cost alone. It is what acceptance and the "
        "measured cost of a round promise if the host's work were free.",
        unit="ratio",
        better="higher",
        place=ROW,
        totals=_PREDICTED,
        of_pairs=lambda pairs: derive.predicted_speedup(pairs.method, pairs.baseline),
        defined=verifies,
        timing=True,
        column="predicted",
        rank=10,
        form="{:.2f}x",
        explained=Explained(
            "speedup",
            10,
            "predicted",
            "from acceptance and measured cost of a round, the host's work free",
            "Leviathan, Kalman, Matias 2023, Theorem 3.8, with measured costs.",
        ),
    ),
    Metric(
        id="overhead",
        title="Overhead",
        words="Share of the predicted decode speedup that was not observed.",
        unit="share",
        better="lower",
        place=ROW,
        moves=partial(
            cells.overhead, observed_totals=gain("decode_ns"), predicted_totals=_PREDICTED
        ),
        defined=verifies,
        paired=True,
        timing=True,
        absolute=True,
        signed=True,
        column="overhead",
        form="{:.0%}",
    ),
    Metric(
        id="tokens_ratio",
        title="Token ratio",
        words="The method's new tokens over the baseline's on the same measurements.",
        unit="ratio",
        place=ROW,
        totals=(Total(("new_tokens",), 1), Total(("new_tokens",), -1, BASELINE)),
        column="tokens ratio",
        form="{:.3f}",
    ),
    Metric(
        id="score",
        title="Score",
        words="Mean of the task's scorer, such as exact_match or pass_at_1.",
        unit="the scorer's",
        better="higher",
        place=ROW,
        moves=cells.score,
        graded=True,
        absolute=True,
        charted=True,
    ),
    Metric(
        id="score_difference",
        title="Score difference",
        words="Paired difference of the score to the baseline's, with a 95% interval.",
        unit="the scorer's",
        better="higher",
        place=ROW,
        moves=cells.score_difference,
        paired=True,
        graded=True,
        absolute=True,
        signed=True,
    ),
    Metric(
        id="pass_at_k",
        title="pass@k",
        words="Chance that one of k draws passes, estimated without bias. The estimate is that of "
        "Chen et al. (2021) from the seeds of each sample, averaged over samples. Repeats of one "
        "seed are one draw.",
        unit="share",
        better="higher",
        place=ROW,
        gate_on="score",
    ),
    Metric(
        id="identical",
        unit="share",
        better="higher",
        place=NOWHERE,
        absolute=True,
        gate_title="Identical outputs",
    ),
)
