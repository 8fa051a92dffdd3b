"""Intervals, noise floors and corrections for timings and scores (numpy, and scipy for one law).

Timings of one run drift: a fresh process, a warm machine or a busy neighbour moves every
sample of a pass together, and an interval over samples alone calls that movement a speedup.
The estimators here therefore resample every level that can move (sample, repeat, process), keep
the two arms paired, and say nothing (None) where there is too little to say.

Arrays of timings have the shape (samples, passes): one row a sample, one column a pass, that is
one repeat in one process. A missing or failed pair is NaN in both arms.
"""

from specbench.stats.estimate import (
    CONFIDENCE,
    DEFAULT_RESAMPLES,
    Estimate,
    FloatArray,
    Interval,
)
from specbench.stats.noise import noise_floor
from specbench.stats.power import POWER, detectable_ratio, samples_for_ratio
from specbench.stats.ratio import (
    LogRatio,
    log_ratio,
    mean_ratio,
    paired_ratio,
    paired_total_ratio,
    ratio_of_totals,
)
from specbench.stats.student import student_quantile, student_tail
from specbench.stats.summary import (
    holm,
    mad_outliers,
    mean_interval,
    paired_difference,
    pass_at_k,
)
from specbench.stats.together import PooledPasses
from specbench.stats.variance import Components

__all__ = [
    "CONFIDENCE",
    "Components",
    "DEFAULT_RESAMPLES",
    "POWER",
    "Estimate",
    "FloatArray",
    "Interval",
    "LogRatio",
    "PooledPasses",
    "detectable_ratio",
    "holm",
    "log_ratio",
    "mad_outliers",
    "mean_interval",
    "mean_ratio",
    "noise_floor",
    "paired_difference",
    "paired_ratio",
    "paired_total_ratio",
    "pass_at_k",
    "ratio_of_totals",
    "samples_for_ratio",
    "student_quantile",
    "student_tail",
]
