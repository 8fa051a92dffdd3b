"""How a Comparison's values read in a table for people.

Every form for people uses these, so that a number looks the same in a terminal and in a paper.
An absent value is a dash.
"""

from __future__ import annotations

from collections.abc import Sequence

from specbench.compare.comparison import (
    BETTER,
    INCONCLUSIVE,
    SAME,
    WORSE,
    Comparison,
    ComparisonRow,
    Speedup,
)
from specbench.compare.metric import Metric
from specbench.compare.quality import CorpusFigure, QualityFigure
from specbench.compare.warn import LARGEST_DETECTABLE
from specbench.stats import Estimate

NOTHING = "–"
"""What stands where there is no value."""

MARKS = {BETTER: "+", WORSE: "-", SAME: "=", INCONCLUSIVE: "?"}
"""One character for each verdict."""


def metrics_of(rows: Sequence[ComparisonRow]) -> list[str]:
    """Return the metrics of pictures that any row has, those of single pictures first."""
    single = dict.fromkeys(name for row in rows for name in row.quality)
    whole = dict.fromkeys(name for row in rows for name in row.corpus if name not in single)
    return [*single, *whole]


def metric_meaning(name: str, rows: Sequence[ComparisonRow]) -> str:
    """Return what the column of a metric of pictures shows."""
    for row in rows:
        if name in row.quality:
            return (
                f"{row.quality[name].better} is better (paired difference to the baseline with "
                "its 95% interval)."
            )
        if name in row.corpus:
            floor = " and the floor, the value of as many real pictures"
            has = row.corpus[name].floor is not None
            return f"{row.corpus[name].better} is better, with its n{floor if has else ''}."
    return ""


def metric(row: ComparisonRow, name: str) -> str:
    """Return a metric of pictures, such as "0.57 (+0.01 ±0.03)" or "594 (floor 161, n=300)"."""
    if name in row.quality:
        return _quality(row.quality[name])
    if name in row.corpus:
        return _corpus(row.corpus[name])
    return NOTHING


def _quality(figure: QualityFigure) -> str:
    digits = 3 if abs(figure.value.value) < 2 else 2
    return _with_difference(figure.value, figure.difference, digits)


def _with_difference(value: Estimate, difference: Estimate | None, digits: int = 2) -> str:
    """Return a mean, with the paired difference to the baseline and its half-width."""
    shown = f"{value.value:.{digits}f}"
    if difference is None:
        return shown
    change = _signed(difference.value, digits)
    if difference.interval is None:
        return f"{shown} ({change})"
    low, high = difference.interval
    return f"{shown} ({change} ±{(high - low) / 2:.{digits}f})"


def _corpus(figure: CorpusFigure) -> str:
    value = _significant(figure.value)
    if figure.error is not None:
        value += f" ±{figure.error:.2g}"
    about = [] if figure.floor is None else [f"floor {_significant(figure.floor)}"]
    about.append(f"n={figure.n}" if figure.files == 1 else f"{figure.files} x n={figure.n}")
    return f"{value} ({', '.join(about)})"


def _significant(value: float) -> str:
    """Return three significant digits, and every digit before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratio(value: float | None) -> str:
    """Return a ratio such as "1.62x"."""
    return NOTHING if value is None else f"{value:.2f}x"


def interval(found: Estimate | Speedup | None) -> str:
    """Return a ratio with its interval, such as "1.65x [1.58, 1.72]"."""
    if found is None or found.interval is None:
        return ratio(found.value if found else None)
    return f"{found.value:.2f}x [{found.interval.low:.2f}, {found.interval.high:.2f}]"


def detectable(value: Speedup | None) -> str:
    """Return the smallest speedup that would have been found, such as "1.04x"."""
    if value is not None and (value.detectable or 0.0) > LARGEST_DETECTABLE:
        return f"over {LARGEST_DETECTABLE:.0f}x"
    return ratio(value.detectable) if value is not None else NOTHING


def speedup(row: ComparisonRow, value: Speedup | None) -> str:
    """Return a speedup with its interval; 1 for a baseline that measured anything."""
    if row.is_baseline:
        return "1.00x" if row.samples else NOTHING
    return interval(value)


def mark(value: Speedup | None) -> str:
    """Return the mark of a speedup's verdict, or a blank."""
    return MARKS[value.verdict] if value is not None else " "


def floor(value: Speedup | None) -> str:
    """Return a noise floor as a relative change, such as "±1.9%"."""
    if value is None or value.noise_floor is None:
        return NOTHING
    return f"±{100 * (value.noise_floor - 1):.1f}%"


def number(value: float | None, digits: int = 2) -> str:
    """Return a plain number."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def rate(value: float | None) -> str:
    """Return tokens per second: three significant digits or more."""
    if value is None:
        return NOTHING
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def node_acceptance(row: ComparisonRow) -> str:
    """Return the acceptance at a tree node beside its ceiling, such as "71% of 78%"."""
    accepted, ceiling = row.quantities["node_acceptance"], row.quantities["node_acceptance_ceiling"]
    if accepted is None or ceiling is None:
        return NOTHING
    return f"{percent(accepted)} of {percent(ceiling)}"


def milliseconds(value: float | None) -> str:
    """Return a time in milliseconds, or in seconds where it is long."""
    if value is None:
        return NOTHING
    if value >= 10_000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms"


def percent(value: float | None) -> str:
    """Return a share as a percentage."""
    return NOTHING if value is None else f"{100 * value:.0f}%"


def shown(value: float | None, metric: Metric) -> str:
    """Return a value of a derived metric as its unit and form ask."""
    if value is None:
        return NOTHING
    if metric.unit == "tokens/s":
        return rate(value)
    if metric.unit == "ms":
        return milliseconds(value)
    if metric.unit == "bytes":
        return f"{value / 2**20:,.0f} MiB"
    return metric.form.format(value)


def score(row: ComparisonRow) -> str:
    """Return the mean score, such as "0.95 (+0.01 ±0.02)"."""
    return _with_difference(row.score, row.score_difference) if row.score else NOTHING


def pass_at_k(row: ComparisonRow) -> str:
    """Return pass@k, such as "pass@k (5 draws): ar 0.41 @1, 0.62 @5"; empty without one."""
    if row.pass_at_k is None:
        return ""
    values = ", ".join(f"{value:.2f} @{k}" for k, value in row.pass_at_k.items())
    return f"pass@k ({row.draws} draws): {row.label} {values}"


def fidelity(row: ComparisonRow) -> str:
    """Return the fidelity counts, such as "48= 2~", or a dash where they are undefined."""
    counts = row.quantities["fidelity"]
    if counts is None:
        return NOTHING
    parts = [(counts.identical, "="), (counts.tie, "~"), (counts.diverged + counts.wrong, "≠")]
    return " ".join(f"{count}{sign}" for count, sign in parts if count) or NOTHING


def breaks_its_claim(row: ComparisonRow) -> bool:
    """Return whether a method that claims to be lossless gave other tokens than the baseline."""
    counts = row.quantities["fidelity"]
    if counts is None or row.method.exactness == "lossy":
        return False
    return bool(counts.diverged + counts.wrong)


def exactness(row: ComparisonRow) -> str:
    """Return the exactness, with the knob of a lossy method."""
    if row.method.exactness == "lossy" and row.method.knob:
        return f"lossy ({row.method.knob})"
    return row.method.exactness


def heading(comparison: Comparison) -> str:
    """Return one line on what all rows have in common."""
    setting = comparison.setting
    baseline = f"against {setting.baseline}" if setting.baseline else "no baseline"
    parts = [setting.model, setting.law, setting.dtype, setting.device, setting.engine]
    return " · ".join(part for part in (*parts, baseline, setting.roofline) if part)


def measured(rows: Sequence[ComparisonRow]) -> str:
    """Return how the rows of a section were measured, such as "3 repeats, 1 process"."""
    methods = [row for row in rows if not row.is_baseline and row.samples] or rows
    repeats = sorted({row.repeats for row in methods if row.samples})
    processes = sorted({row.processes for row in methods if row.samples})
    if not repeats:
        return "nothing measured"
    return f"{_count(repeats, 'repeat', 'repeats')}, {_count(processes, 'process', 'processes')}"


def _count(values: Sequence[int], one: str, many: str) -> str:
    if values[0] == values[-1]:
        return f"{values[0]} {one if values[0] == 1 else many}"
    return f"{values[0]}-{values[-1]} {many}"


def _signed(value: float, digits: int = 2) -> str:
    return f"{value:+.{digits}f}" if abs(value) >= 0.5 * 10**-digits else f"{0:.{digits}f}"
