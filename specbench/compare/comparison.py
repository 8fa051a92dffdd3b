"""What a comparison says, as plain immutable values that every report reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from specbench.compare.quality import CorpusFigure, QualityFigure
from specbench.schema.result import MethodInfo
from specbench.stats import Components, Estimate, Interval

OVERALL = "overall"
"""Name of the section that pools every task."""

PASS_AT = (1, 2, 5, 10, 20, 50, 100)
"""Numbers of tries for which pass@k is given, as far as there are draws."""

BETTER = "better"
WORSE = "worse"
SAME = "same"
INCONCLUSIVE = "inconclusive"


class Speedup(NamedTuple):
    """A paired, total-time ratio of the baseline to the method over common samples.

    Attributes:
        value: Above 1, the method is faster.
        interval: 95% interval, None with fewer than two samples.
        p_value: Two-sided, before adjustment for the number of rows.
        adjusted_p_value: After Holm's adjustment within the comparison, of the p-value by what all
            rows show of how passes move (`stats.together`).
        noise_floor: Ratio of the baseline to itself that this run cannot tell from 1; None with
            fewer than two repeats.
        detectable: Smallest ratio above 1 that a run of this size and noise would have called
            better with a chance of 80%; None where there is no interval or no floor.
        samples_needed: Samples of this kind that would find the observed ratio with that chance;
            None where the interval excludes 1 already, or where no number helps.
        verdict: "better", "worse", "same" or "inconclusive".
        variance: What moves the logarithm of the ratio; None with fewer than two samples.
    """

    value: float
    interval: Interval | None
    p_value: float | None
    adjusted_p_value: float | None
    noise_floor: float | None
    verdict: str
    detectable: float | None = None
    samples_needed: int | None = None
    variance: Components | None = None


@dataclass(frozen=True)
class ComparisonRow:
    """One method, or the baseline, in one section.

    Attributes:
        section: A task, "task / category", or "overall".
        label: How tables name the row: the method's id with whatever tells it from its likes.
        method: What the method says about itself.
        is_baseline: Whether this is the baseline arm.
        samples: Samples that succeeded in every arm of this row.
        repeats: Repeats of a sample in one process.
        processes: Processes that measured.
        failed: Samples with at least one failed measurement in either arm.
        speedup_e2e: End to end against the baseline; None for the baseline and without one.
        speedup_decode: The same without prefill.
        speedup_mean_rate: Mean over samples of the method's tokens per second over the
            baseline's mean, end to end (Spec-Bench's speedup); None as above.
        speedup_pooled_rate: The method's tokens per second over the baseline's, each all tokens
            over all time, end to end; None as above.
        predicted_speedup: Decode speedup that acceptance and cost predict.
        overhead: Share of the prediction that was not observed.
        tokens_ratio: The method's new tokens over the baseline's on the same measurements.
        score: Mean score; None where the task has no scorer.
        score_name: Name of the score; empty without one.
        score_difference: Paired difference to the baseline.
        draws: Distinct draws (seeds) of a scored sample, the fewest over samples; repeats of one
            seed are one draw. 0 without a score.
        pass_at_k: Chance that one of k draws passes, by k, a mean over samples; None where the
            score is not pass_at_1 or there is one draw.
        quantities: The metrics of this arm alone, by id (`specbench.compare.registry`).
        quality: Metrics of single pictures, by id; empty for text.
        corpus: Metrics of the whole set of pictures, by id; empty for text.
    """

    section: str
    label: str
    method: MethodInfo
    is_baseline: bool
    samples: int
    repeats: int
    processes: int
    failed: int
    speedup_e2e: Speedup | None
    speedup_decode: Speedup | None
    predicted_speedup: float | None
    overhead: float | None
    tokens_ratio: float | None
    score: Estimate | None
    score_name: str
    score_difference: Estimate | None
    draws: int
    pass_at_k: Mapping[int, float] | None
    quantities: Mapping[str, Any]
    quality: Mapping[str, QualityFigure]
    corpus: Mapping[str, CorpusFigure]
    speedup_mean_rate: Estimate | None = None
    speedup_pooled_rate: Estimate | None = None

    def value(self, metric: str) -> Any:
        """Return a derived metric by its id, None where this row has none."""
        return self.quantities[metric] if metric in self.quantities else getattr(self, metric)


@dataclass(frozen=True)
class Setting:
    """What all rows have in common, for a report's heading; differing values are joined.

    Attributes:
        model: Model id.
        device: Device name.
        dtype: Compute dtype.
        engine: Engine of the target.
        law: Description of the target law.
        baseline: Id of the baseline; empty without one.
        version: Version of specbench that measured; empty where it was not recorded.
        modality: "text" or "image": what the models generate.
        imported: Whether a file was imported from another program's output.
        roofline: How near plain decoding came to the bandwidth bound, in words; empty where no
            file tells.
        roofline_fraction: The least share of it among the files; None likewise.
    """

    model: str
    device: str
    dtype: str
    engine: str
    law: str
    baseline: str
    version: str
    modality: str = "text"
    imported: bool = False
    roofline: str = ""
    roofline_fraction: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Methods side by side.

    Attributes:
        by: "task", "category" or "overall".
        setting: What all rows have in common.
        rows: Rows by section; in each, baselines first, then methods from fastest to slowest.
        banners: One sentence for each difference that the user allowed.
        warnings: One sentence for each reason to read with care, with advice.
        files: Names of the files that were compared.
    """

    by: str
    setting: Setting
    rows: tuple[ComparisonRow, ...]
    banners: tuple[str, ...]
    warnings: tuple[str, ...]
    files: tuple[str, ...]

    @property
    def sections(self) -> tuple[str, ...]:
        """The sections in their order."""
        return tuple(dict.fromkeys(row.section for row in self.rows))

    def section(self, name: str) -> tuple[ComparisonRow, ...]:
        """Return the rows of one section."""
        return tuple(row for row in self.rows if row.section == name)
