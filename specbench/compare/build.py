"""Result sets in, a Comparison out: pairing, intervals, verdicts and warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from specbench.compare.baseline import in_words, shares_of, slow_warnings
from specbench.compare.comparability import check_allow, check_comparable
from specbench.compare.comparison import (
    OVERALL,
    PASS_AT,
    Comparison,
    ComparisonRow,
    Setting,
)
from specbench.compare.derive import overhead
from specbench.compare.measurements import Measurements
from specbench.compare.metric import ARM, settles_early
from specbench.compare.pool import Pairs, Pool, joined_baselines, pair, pools_of
from specbench.compare.quality import corpus_figures, quality_figures
from specbench.compare.registry import METRICS, PUBLISHED
from specbench.compare.speedup import (
    ALPHA,
    SAME_WITHIN,
    Effort,
    mean_rate_speedup,
    pooled_rate_speedup,
    speedup_of,
    verdict,
    with_verdicts,
)
from specbench.compare.stalls import stall_warnings
from specbench.compare.warn import (
    answer_warnings,
    bound_warnings,
    code_warnings,
    device_warnings,
    machine_warnings,
    row_warnings,
    set_warnings,
    source_warnings,
)
from specbench.errors import ResultsError, UsageError, did_you_mean
from specbench.schema.result import BASELINE, METHOD
from specbench.stats import (
    Estimate,
    mean_interval,
    paired_difference,
    pass_at_k,
)
from specbench.store import ResultSet

__all__ = ["ALPHA", "GROUPINGS", "SAME_WITHIN", "compare", "verdict"]

GROUPINGS = ("task", "category", "overall")
"""Values of `by`."""


def compare(
    results: Sequence[ResultSet], by: str = "task", allow: Iterable[str] = ()
) -> Comparison:
    """Set the methods of some result files side by side.

    Runs of one method are pooled; each method is paired with the baseline of its own files.
    Failed measurements are left out in both arms and counted.

    Args:
        results: The files, in any order.
        by: "task", "category" (of each task) or "overall". The first two end with an overall
            section where there is more than one.
        allow: Names of circumstances that may differ between the files; see `Ruler`.

    Raises:
        UsageError: If `by` or a name in `allow` does not exist.
        NotComparable: If the files were measured under different rulers.
        ResultsError: If there is no file.
    """
    if by not in GROUPINGS:
        raise UsageError(
            f"Cannot compare by '{by}'",
            f"comparisons are by: {', '.join(GROUPINGS)}",
            did_you_mean(by, GROUPINGS),
        )
    if not results:
        raise ResultsError("There is nothing to compare", "no result file was given")
    if not any(result.size for result in results):
        raise ResultsError("There is nothing to compare", "the files hold no measurement")
    unique, copies = _without_copies(results)
    differing, banners = check_comparable(unique, check_allow(allow))
    pools = pools_of(unique, differing)
    sections = sections_of(pools, by)
    effort = Effort.of(sum(len(chosen) for _, chosen in sections))
    rows: list[ComparisonRow] = []
    for section, chosen in sections:
        rows.extend(_section_rows(section, chosen, effort))
    adjusted = with_verdicts(rows)
    setting = _setting(unique)
    return Comparison(
        by=by,
        setting=setting,
        rows=tuple(adjusted),
        banners=banners,
        warnings=(
            *copies,
            *bound_warnings(unique),
            *slow_warnings(unique),
            *set_warnings(pools, adjusted, setting.imported),
            *row_warnings(adjusted, setting.imported),
            *answer_warnings(unique),
            *stall_warnings(pools),
            *device_warnings(unique),
            *machine_warnings(unique),
            *code_warnings(unique),
            *source_warnings(unique),
        ),
        files=tuple(result.path.name for result in unique),
    )


def _without_copies(results: Sequence[ResultSet]) -> tuple[list[ResultSet], list[str]]:
    """Drop files that hold the same measurements as an earlier one: they are no second run."""
    runs = Counter(_run_of(result) for result in results)
    kept: dict[tuple[str, str, float], ResultSet] = {}
    warnings = []
    for number, result in enumerate(results):
        first = float(number)
        if runs[_run_of(result)] > 1:
            started = np.asarray(result.read(["started_unix"]).column(0))
            first = float(started.min()) if len(started) else float("nan")
        key = (*_run_of(result), first)
        if key in kept:
            warnings.append(
                f"'{result.path.name}' holds the same run as '{kept[key].path.name}' and was "
                "left out."
            )
        else:
            kept[key] = result
    return list(kept.values()), warnings


def _run_of(result: ResultSet) -> tuple[str, str]:
    return result.metadata.job_id, result.metadata.method.name


def sections_of(pools: Sequence[Pool], by: str) -> list[tuple[str, list[Pool]]]:
    """Return each section's name with the pools restricted to it, overall last.

    Raises:
        UsageError: If there is no such grouping.
    """
    if by not in GROUPINGS:
        raise UsageError(
            f"Cannot compare by '{by}'",
            f"comparisons are by: {', '.join(GROUPINGS)}",
            did_you_mean(by, GROUPINGS),
        )
    tasks = list(dict.fromkeys(task for pool in pools for task in pool.names("task")))
    sections: list[tuple[str, list[Pool]]] = []
    if by == "task":
        sections = [(task, [pool.where(task) for pool in pools]) for task in tasks]
    elif by == "category":
        for task in tasks:
            of_task = [pool.where(task) for pool in pools]
            categories = list(
                dict.fromkeys(name for pool in of_task for name in pool.names("category"))
            )
            for category in categories:
                name = f"{task} / {category}" if category and category != task else task
                sections.append((name, [pool.where(task, category) for pool in of_task]))
    if len(sections) != 1:
        sections.append((OVERALL, list(pools)))
    return [(name, [pool for pool in chosen if len(pool)]) for name, chosen in sections]


def _section_rows(section: str, pools: Sequence[Pool], effort: Effort) -> list[ComparisonRow]:
    baselines: dict[str, list[Pool]] = {}
    for pool in pools:
        if pool.baseline is not None:
            baselines.setdefault(pool.baseline_label, []).append(pool)
    rows = []
    for label, members in baselines.items():
        info = members[0].baseline
        assert info is not None
        whole = replace(
            members[0],
            label=label,
            method=info,
            metrics={name: about for pool in members for name, about in pool.metrics.items()},
        )
        row = _row(section, whole, joined_baselines(members), None, effort)
        records = [record for pool in members for record in pool.records(BASELINE)]
        failed = max(pool.failed_samples(BASELINE) for pool in members)
        corpus = corpus_figures(records, whole.metrics)
        rows.append(replace(row, is_baseline=True, failed=failed, corpus=corpus))
    methods = []
    for pool in pools:
        pairs = pair(pool) if pool.baseline is not None else None
        methods.append(
            _row(section, pool, pairs.method if pairs else pool.arm(METHOD), pairs, effort)
        )
    methods.sort(key=lambda row: -row.speedup_e2e.value if row.speedup_e2e else np.inf)
    return rows + methods


def _row(
    section: str, pool: Pool, measured: Measurements, pairs: Pairs | None, effort: Effort
) -> ComparisonRow:
    """Return the row of one arm; without pairs nothing is held against a baseline."""
    decode = speedup_of(pairs, "decode_ns", effort) if pairs and settles_early(measured) else None
    predicted = METRICS["predicted_speedup"].value(measured, pairs)
    return ComparisonRow(
        section=section,
        label=pool.label,
        method=pool.method,
        is_baseline=False,
        samples=measured.sample_count,
        repeats=measured.count("repeat"),
        processes=measured.count("file", "process"),
        failed=pool.failed_samples(),
        speedup_e2e=speedup_of(pairs, "total_ns", effort) if pairs else None,
        speedup_decode=decode,
        predicted_speedup=predicted,
        overhead=overhead(predicted, decode.value if decode else None),
        tokens_ratio=METRICS["tokens_ratio"].value(measured, pairs),
        score=mean_interval(measured.means("score")),
        score_name=_score_name(measured),
        score_difference=_score_difference(pairs) if pairs else None,
        draws=_count_draws(measured),
        pass_at_k=_pass_at_k(measured),
        quantities={each.id: each.value(measured) for each in PUBLISHED if each.place == ARM},
        quality=quality_figures(measured, pool.metrics, pairs.baseline if pairs else None),
        corpus=corpus_figures(pool.records(METHOD), pool.metrics, pool.records(BASELINE)),
        speedup_mean_rate=mean_rate_speedup(pairs, effort.resamples) if pairs else None,
        speedup_pooled_rate=pooled_rate_speedup(pairs, effort.resamples) if pairs else None,
    )


def _score_name(measured: Measurements) -> str:
    names = measured.text("score_name")
    return names[0] if len(names) == 1 else "mean score" if names else ""


def _score_difference(pairs: Pairs) -> Estimate | None:
    baseline, method = pairs.baseline.means("score"), pairs.method.means("score")
    return paired_difference(baseline, method)


def _draws(measured: Measurements) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
    """Return draws and the sum of scores of each sample: repeats of a seed are one draw."""
    scores = measured.values("score")
    known = np.isfinite(scores)
    draw = measured.codes("sample", "seed")[known]
    first = np.unique(draw, return_index=True)[1]
    samples = measured.samples[known][first]
    counts = np.bincount(samples, minlength=measured.sample_count)
    sums = np.zeros(measured.sample_count)
    np.add.at(sums, samples, scores[known][first])
    return counts[counts > 0], sums[counts > 0]


def _count_draws(measured: Measurements) -> int:
    counts = _draws(measured)[0]
    return int(counts.min()) if len(counts) else 0


def _pass_at_k(measured: Measurements) -> dict[int, float] | None:
    if _score_name(measured) != "pass_at_1" or (fewest := _count_draws(measured)) < 2:
        return None
    drawn = [(int(n), round(c)) for n, c in zip(*_draws(measured), strict=True)]
    return {
        k: float(np.mean([pass_at_k(n, c, k) for n, c in drawn])) for k in PASS_AT if k <= fewest
    }


def _setting(results: Sequence[ResultSet]) -> Setting:
    def joined(read: Callable[[ResultSet], str]) -> str:
        return ", ".join(dict.fromkeys(value for result in results if (value := read(result))))

    return Setting(
        model=joined(_model),
        device=joined(lambda result: result.metadata.device),
        dtype=joined(_dtype),
        engine=joined(lambda result: result.metadata.engine),
        law=joined(lambda result: result.metadata.law),
        baseline=joined(
            lambda result: result.metadata.baseline.name if result.metadata.baseline else ""
        ),
        version=joined(_version),
        imported=any(result.metadata.source for result in results),
        roofline=in_words(results),
        roofline_fraction=next((share.fraction for share in shares_of(results)), None),
        modality="image" if any(_modality(result) == "image" for result in results) else "text",
    )


def _model(result: ResultSet) -> str:
    """Return the model, and what its weights went through where the file says so."""
    models = result.metadata.provenance.get("models")
    target = models.get("target") if isinstance(models, Mapping) else None
    weights = target.get("weights") if isinstance(target, Mapping) else None
    name = result.metadata.model
    return f"{name} ({weights})" if isinstance(weights, str) else name


def _dtype(result: ResultSet) -> str:
    """Return the dtype, and why it was chosen where the file says so."""
    dtype, about = result.metadata.dtype, result.metadata.provenance.get("checkpoint")
    reason = about.get("dtype_reason") if isinstance(about, Mapping) else None
    return f"{dtype} ({reason})" if reason else dtype


def _modality(result: ResultSet) -> str:
    return result.metadata.asked.modality


def _version(result: ResultSet) -> str:
    return str(result.metadata.provenance.get("specbench", ""))
