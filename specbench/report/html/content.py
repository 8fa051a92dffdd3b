"""Everything that a page says, gathered from result files before a word of it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from specbench.compare import compare
from specbench.compare.comparability import check_allow, check_comparable
from specbench.compare.comparison import (
    BETTER,
    INCONCLUSIVE,
    SAME,
    WORSE,
    Comparison,
    ComparisonRow,
)
from specbench.compare.pool import pools_of
from specbench.compare.registry import PUBLISHED
from specbench.report import words
from specbench.report.figures import EXACTNESS, class_of
from specbench.report.html.outputs import Failure, Outputs, collect, failures
from specbench.report.html.provenance import Fact, Provenance, provenance
from specbench.store import ResultSet


@dataclass(frozen=True)
class Content:
    """What a page says.

    Attributes:
        title: The page's title.
        overall: All tasks together.
        breakdown: The same by task or category; None where that would say nothing new.
        findings: The main results, a sentence each.
        outputs: Sample outputs.
        failures: Failed measurements.
        provenance: Where the numbers come from.
        definitions: What each metric means.
        protocols: How each metric of the pictures was computed.
    """

    title: str
    overall: Comparison
    breakdown: Comparison | None
    findings: tuple[str, ...]
    outputs: Outputs
    failures: tuple[Failure, ...]
    provenance: Provenance
    definitions: tuple[Fact, ...]
    protocols: tuple[Fact, ...]

    @property
    def rows(self) -> tuple[ComparisonRow, ...]:
        """The headline's rows: all tasks together."""
        return self.overall.rows


def gather(
    results: Sequence[ResultSet],
    by: str = "category",
    allow: Iterable[str] = (),
    title: str = "",
    outputs: bool = True,
) -> Content:
    """Compare some files and gather what a page says about them.

    Args:
        results: The files.
        by: How the headline is broken down: "task", "category" or "overall" for not at all.
        allow: Circumstances that may differ; see `specbench.compare.compare`.
        title: The page's title; empty for the models' and tasks' names.
        outputs: Whether to gather sample outputs, which tables and plots do not need.

    Raises:
        SpecbenchError: If the files cannot be compared.
    """
    allowed = check_allow(allow)
    overall = compare(results, by="overall", allow=allowed)
    breakdown = None
    if by != "overall":
        found = compare(results, by=by, allow=allowed)
        breakdown = found if len(found.sections) > 1 else None
    labels = _labels(results, allowed)
    return Content(
        title=title or _title(results, overall),
        overall=overall,
        breakdown=breakdown,
        findings=tuple(_findings(overall)),
        outputs=collect(results, labels) if outputs else Outputs(),
        failures=failures(results, labels),
        provenance=provenance(results),
        definitions=tuple(_definitions()),
        protocols=tuple(_protocols(results)),
    )


def _labels(results: Sequence[ResultSet], allowed: Iterable[str]) -> dict[Path, str]:
    differing, _ = check_comparable(results, frozenset(allowed))
    return {path: pool.label for pool in pools_of(results, differing) for path in pool.paths}


def _title(results: Sequence[ResultSet], overall: Comparison) -> str:
    tasks = list(dict.fromkeys(result.metadata.task for result in results))
    shown = ", ".join(tasks[:3]) + (f" and {len(tasks) - 3} more" if len(tasks) > 3 else "")
    return f"{overall.setting.model} on {shown}"


def _findings(overall: Comparison) -> Iterable[str]:
    """Yield the main results: verdicts counted, and the fastest of each class."""
    methods = [row for row in overall.rows if not row.is_baseline]
    judged = [row for row in methods if row.speedup_e2e is not None]
    if not judged:
        yield f"{_count(len(methods), 'method')} measured without a baseline: there is no speedup."
        return
    verdicts = [row.speedup_e2e.verdict for row in judged if row.speedup_e2e is not None]
    names = (
        (BETTER, "faster"),
        (WORSE, "slower"),
        (SAME, "the same"),
        (INCONCLUSIVE, "inconclusive"),
    )
    parts = [f"{verdicts.count(name)} {said}" for name, said in names if name in verdicts]
    yield f"{_count(len(judged), 'method')} against {overall.setting.baseline}: {', '.join(parts)}."
    for exactness in EXACTNESS:
        members = [row for row in judged if class_of(row) == exactness]
        if members:
            yield _fastest(exactness, members)
    for row in methods:
        counts = row.quantities["fidelity"]
        if counts is not None and words.breaks_its_claim(row):
            yield (
                f"{row.label} calls itself {row.method.exactness}, and "
                f"{counts.diverged + counts.wrong} of {counts.total} outputs differ from the "
                "baseline's by more than a numeric tie."
            )


def _fastest(exactness: str, rows: Sequence[ComparisonRow]) -> str:
    best = max(rows, key=lambda row: row.speedup_e2e.value if row.speedup_e2e else 0.0)
    speedup = best.speedup_e2e
    assert speedup is not None
    kind = "method of unknown class" if exactness == "unknown" else f"{exactness} method"
    sentence = f"Fastest {kind}: {best.label}, {words.speedup(best, speedup)}"
    sentence += f", verdict {speedup.verdict}"
    sentence += f", noise floor {words.floor(speedup)}" if speedup.noise_floor else ""
    if exactness == "lossy" and best.score_difference is not None:
        sentence += f"; {best.score_name} {words.score(best)}"
    return f"{sentence}."


def _definitions() -> Iterable[Fact]:
    for metric in PUBLISHED:
        unit = f" ({metric.unit})" if metric.unit else ""
        yield Fact(f"{metric.id}: {metric.title}{unit}", metric.words)


def _protocols(results: Sequence[ResultSet]) -> Iterable[Fact]:
    abouts: dict[str, Mapping[str, object]] = {}
    for result in results:
        abouts.update(result.metadata.metrics)
    for name, about in abouts.items():
        better = f"{about.get('better', '')} is better" if about.get("better") else ""
        version = f"version {about.get('version')}"
        said = [str(about.get("protocol", "")), better, version]
        yield Fact(f"{name}: {about.get('title', name)}", "; ".join(part for part in said if part))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
