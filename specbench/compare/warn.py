"""Reasons to read a comparison with care, each with its advice."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from specbench.compare.comparison import INCONCLUSIVE, ComparisonRow, Speedup
from specbench.compare.pool import Pool, pair
from specbench.store import ResultSet

FEW_SAMPLES = 10
"""Below this number of samples an interval is said to rest on few."""

LENGTH_TOLERANCE = 0.02
"""Relative difference in new tokens that a ratio of total times should not hide."""


def set_warnings(pools: Sequence[Pool], rows: Sequence[ComparisonRow]) -> list[str]:
    """Return warnings about the files and about how the methods' measurements overlap."""
    warnings = []
    for pool in pools:
        if pool.baseline is None:
            warnings.append(
                f"{pool.label}: measured without a baseline, so no speedup; run it with "
                "baseline=ar."
            )
            continue
        unpaired = pair(pool).unpaired
        if unpaired:
            warnings.append(
                f"{pool.label}: {_count(unpaired, 'measurement')} without a partner in the other "
                "arm left out; resume the run."
            )
    for section in dict.fromkeys(row.section for row in rows):
        counts = {row.samples for row in rows if row.section == section and not row.is_baseline}
        if len(counts) > 1:
            warnings.append(
                f"{section}: the methods were measured on different numbers of samples "
                f"({min(counts)} to {max(counts)}); compare each with the baseline only."
            )
    return warnings


def source_warnings(results: Sequence[ResultSet]) -> list[str]:
    """Return what imported files do not record, and what of them was read otherwise."""
    found: dict[str, list[str]] = {}
    for result in results:
        source = result.metadata.source
        kinds = (("unknown", "not known from its source"), ("odd", "read otherwise than written"))
        for kind, heading in kinds:
            if sentences := source.get(kind):
                text = f"{heading}: {' '.join(str(sentence) for sentence in sentences)}"
                found.setdefault(text, []).append(result.metadata.method.name)
    return [f"{', '.join(dict.fromkeys(names))}: {text}" for text, names in found.items()]


def row_warnings(rows: Sequence[ComparisonRow], imported: bool = False) -> list[str]:
    """Return warnings about single rows; one that several rows share is said once.

    Args:
        rows: The rows.
        imported: Whether they come from published files, which no advice can measure again.
    """
    found: dict[str, list[ComparisonRow]] = {}
    for row in rows:
        if row.is_baseline:
            continue
        for warning in _of_row(row, imported):
            found.setdefault(warning, []).append(row)
    sections = {row.section for row in rows}
    return [f"{_names(about, sections)}: {warning}" for warning, about in found.items()]


def _of_row(row: ComparisonRow, imported: bool) -> list[str]:
    warnings = []
    if row.failed:
        warnings.append(
            f"{_count(row.failed, 'sample')} with failed measurements, left out in both arms; the "
            "result file's error column says why."
        )
    speedup = row.speedup_e2e
    if speedup is not None:
        if speedup.interval is None:
            warnings.append("one sample has no interval; measure more with task.limit.")
        elif row.samples < FEW_SAMPLES:
            warnings.append(
                f"only {_count(row.samples, 'sample')}; raise task.limit for a narrower interval."
            )
        if speedup.noise_floor is None:
            advice = "" if imported else "; measure with timing.repeats=3"
            warnings.append(f"one repeat gives no noise floor, so no verdict{advice}.")
        elif speedup.verdict == INCONCLUSIVE:
            warnings.append(_inconclusive(speedup))
    if row.tokens_ratio is not None and abs(row.tokens_ratio - 1) > LENGTH_TOLERANCE:
        warnings.append(
            f"it wrote {row.tokens_ratio - 1:+.0%} tokens against the baseline, which the ratio "
            "of times includes; read tokens/s beside it."
        )
    fidelity = row.quantities.fidelity
    if fidelity is not None and row.method.exactness != "lossy":
        wrong = fidelity.wrong + fidelity.diverged
        if wrong:
            warnings.append(
                f"{wrong} of {fidelity.total} outputs differ from the baseline's by more than a "
                f"numeric tie, and the method claims to be {row.method.exactness}."
            )
    if row.method.exactness == "lossy" and not (row.score or row.quality or row.corpus):
        warnings.append("a lossy method without a score: its cost in quality is not known.")
    for name, figure in row.corpus.items():
        below = figure.floor is not None and abs(figure.difference or 0.0) <= figure.floor
        if figure.difference is not None and below:
            warnings.append(
                f"its {name} differs from the baseline's by less than the floor of "
                f"{figure.floor:.3g}, the value of as many real pictures (n={figure.n}); more "
                "samples lower it."
            )
    return warnings


def _inconclusive(speedup: Speedup) -> str:
    """Return what a run that could not tell could have told, and what would help."""
    assert speedup.noise_floor is not None
    below = _below(speedup.value, speedup.noise_floor)
    what = "the speedup is below the noise floor" if below else "no verdict"
    if speedup.detectable is None or speedup.detectable > 10:
        return f"{what}; measure more samples or repeats."
    able = f"this run could have told {speedup.detectable:.3g}x from 1"
    if speedup.samples_needed is not None and not below:
        return (
            f"{what}: {able}; for {speedup.value:.3g}x measure about "
            f"{_rounded(speedup.samples_needed)} samples."
        )
    help_ = "more repeats, processes or a quieter machine" if below else "more samples or repeats"
    return f"{what}: {able}; measure {help_}."


def _rounded(number: int) -> int:
    """Return two significant digits, rounded up: the number is an estimate."""
    step = int(10 ** max(0, len(str(number)) - 2))
    return -(-number // step) * step


def _below(value: float, floor: float) -> bool:
    return max(value, 1 / value) <= floor


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _names(about: Sequence[ComparisonRow], sections: Collection[str]) -> str:
    """Return the rows' labels, with the sections that are meant where not all are."""
    places: dict[str, list[str]] = {}
    for row in about:
        places.setdefault(row.label, []).append(row.section)
    names = [
        label if len(named) == len(sections) else f"{label} on {', '.join(named)}"
        for label, named in places.items()
    ]
    return "; ".join(names)
