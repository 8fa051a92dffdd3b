"""Result sets in, a Comparison out: pairing, intervals, verdicts and warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from specbench.compare.comparability import check_allow, check_comparable
from specbench.compare.comparison import (
    BETTER,
    INCONCLUSIVE,
    OVERALL,
    PASS_AT,
    SAME,
    WORSE,
    Comparison,
    ComparisonRow,
    Setting,
    Speedup,
)
from specbench.compare.derive import Measurements, overhead, predicted_speedup, summarise
from specbench.compare.pool import Pairs, Pool, joined_baselines, pair, pools_of
from specbench.compare.quality import corpus_figures, quality_figures
from specbench.compare.warn import row_warnings, set_warnings
from specbench.errors import ResultsError, UsageError, did_you_mean
from specbench.schema.result import BASELINE, METHOD
from specbench.stats import (
    Estimate,
    holm,
    mean_interval,
    noise_floor,
    paired_difference,
    paired_ratio,
    pass_at_k,
)
from specbench.store import ResultSet

GROUPINGS = ("task", "category", "overall")
"""Values of `by`."""

SAME_WITHIN = 1.01
"""Ratio that counts as no difference where the noise floor is lower still."""

ALPHA = 0.05
"""Chance of any false "better" or "worse" among the rows of a comparison."""


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
    unique, copies = _without_copies(results)
    differing, banners = check_comparable(unique, check_allow(allow))
    pools = pools_of(unique, differing)
    rows: list[ComparisonRow] = []
    for section, chosen in _sections(pools, by):
        rows.extend(_section_rows(section, chosen))
    adjusted = _with_verdicts(rows)
    return Comparison(
        by=by,
        setting=_setting(unique),
        rows=tuple(adjusted),
        banners=banners,
        warnings=(*copies, *set_warnings(pools, adjusted), *row_warnings(adjusted)),
        files=tuple(result.path.name for result in unique),
    )


def _without_copies(results: Sequence[ResultSet]) -> tuple[list[ResultSet], list[str]]:
    """Drop files that hold the same measurements as an earlier one: they are no second run."""
    kept: dict[tuple[str, str, float], ResultSet] = {}
    warnings = []
    for result in results:
        started = result.rows["started_unix"]
        first = float(started.min()) if len(started) else float("nan")
        key = (result.metadata.job_id, result.metadata.method.name, first)
        if key in kept:
            warnings.append(
                f"'{result.path.name}' holds the same run as '{kept[key].path.name}' and was "
                "left out."
            )
        else:
            kept[key] = result
    return list(kept.values()), warnings


def _sections(pools: Sequence[Pool], by: str) -> list[tuple[str, list[Pool]]]:
    """Return each section's name with the pools restricted to it, overall last."""
    tasks = list(dict.fromkeys(task for pool in pools for task in pool.rows["task"]))
    sections: list[tuple[str, list[Pool]]] = []
    if by == "task":
        sections = [(task, [pool.where(task) for pool in pools]) for task in tasks]
    elif by == "category":
        for task in tasks:
            of_task = [pool.where(task) for pool in pools]
            categories = list(
                dict.fromkeys(name for pool in of_task for name in pool.rows["category"])
            )
            for category in categories:
                name = f"{task} / {category}" if category and category != task else task
                sections.append((name, [pool.where(task, category) for pool in of_task]))
    if len(sections) != 1:
        sections.append((OVERALL, list(pools)))
    return [(name, [pool for pool in chosen if len(pool.rows)]) for name, chosen in sections]


def _section_rows(section: str, pools: Sequence[Pool]) -> list[ComparisonRow]:
    baselines: dict[str, list[Pool]] = {}
    for pool in pools:
        if pool.baseline is not None:
            baselines.setdefault(pool.baseline_label, []).append(pool)
    rows = [_baseline_row(section, label, members) for label, members in baselines.items()]
    methods = [_method_row(section, pool) for pool in pools]
    methods.sort(key=lambda row: -row.speedup_e2e.value if row.speedup_e2e else np.inf)
    return rows + methods


def _baseline_row(section: str, label: str, pools: Sequence[Pool]) -> ComparisonRow:
    info = pools[0].baseline
    assert info is not None
    measured = joined_baselines(pools)
    abouts = {name: about for pool in pools for name, about in pool.metrics.items()}
    return ComparisonRow(
        section=section,
        label=label,
        method=info,
        is_baseline=True,
        samples=_count_samples(measured),
        repeats=_count_repeats(measured),
        processes=_count_processes(measured),
        failed=max(pool.failed_samples(BASELINE) for pool in pools),
        speedup_e2e=None,
        speedup_decode=None,
        predicted_speedup=None,
        overhead=None,
        tokens_ratio=None,
        score=_score(measured),
        score_name=_score_name(measured),
        score_difference=None,
        draws=_count_draws(measured),
        pass_at_k=_pass_at_k(measured),
        quantities=summarise(measured),
        quality=quality_figures(measured, abouts),
        corpus=corpus_figures([r for pool in pools for r in pool.records(BASELINE)], abouts),
    )


def _method_row(section: str, pool: Pool) -> ComparisonRow:
    pairs = pair(pool) if pool.baseline is not None else None
    measured = pairs.method if pairs else pool.arm(METHOD)
    late = pairs is not None and pairs.method.settles_late
    decode = _speedup(pairs, "decode_ns") if pairs and not late else None
    predicted = predicted_speedup(pairs.method, pairs.baseline) if pairs else None
    return ComparisonRow(
        section=section,
        label=pool.label,
        method=pool.method,
        is_baseline=False,
        samples=_count_samples(measured),
        repeats=_count_repeats(measured),
        processes=_count_processes(measured),
        failed=pool.failed_samples(),
        speedup_e2e=_speedup(pairs, "total_ns") if pairs else None,
        speedup_decode=decode,
        predicted_speedup=predicted,
        overhead=overhead(predicted, decode.value if decode else None),
        tokens_ratio=_tokens_ratio(pairs) if pairs else None,
        score=_score(measured),
        score_name=_score_name(measured),
        score_difference=_score_difference(pairs) if pairs else None,
        draws=_count_draws(measured),
        pass_at_k=_pass_at_k(measured),
        quantities=summarise(measured),
        quality=quality_figures(measured, pool.metrics, pairs.baseline if pairs else None),
        corpus=corpus_figures(pool.records(METHOD), pool.metrics, pool.records(BASELINE)),
    )


def _speedup(pairs: Pairs, column: str) -> Speedup | None:
    if not len(pairs.method.rows):
        return None
    baseline, method, process, draws = pairs.times(column)
    ratio = paired_ratio(baseline, method, process)
    if ratio is None:
        return None
    return Speedup(
        value=ratio.value,
        interval=ratio.interval,
        p_value=ratio.p_value,
        adjusted_p_value=None,
        noise_floor=noise_floor(baseline, process, draws=draws),
        verdict=INCONCLUSIVE,
    )


def _with_verdicts(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """Adjust the p-values for the number of rows and give each speedup its verdict."""
    adjusted = _adjust([row.speedup_e2e for row in rows])
    decode = _adjust([row.speedup_decode for row in rows])
    return [
        replace(row, speedup_e2e=end_to_end, speedup_decode=after_prefill)
        for row, end_to_end, after_prefill in zip(rows, adjusted, decode, strict=True)
    ]


def _adjust(speedups: Sequence[Speedup | None]) -> list[Speedup | None]:
    tested = [s.p_value for s in speedups if s is not None and s.p_value is not None]
    adjusted = iter(holm(tested))
    out: list[Speedup | None] = []
    for speedup in speedups:
        if speedup is None:
            out.append(None)
            continue
        value = next(adjusted) if speedup.p_value is not None else None
        speedup = speedup._replace(adjusted_p_value=value)
        out.append(speedup._replace(verdict=verdict(speedup)))
    return out


def verdict(speedup: Speedup) -> str:
    """Judge a speedup against its interval, the noise floor and the number of comparisons.

    "better" and "worse" need an interval clear of 1, a Holm-adjusted p-value below 0.05, and an
    effect beyond the noise floor; without a measured floor neither is claimed. "same" needs the
    whole interval within the noise floor (or within 1%, where the floor is lower).
    """
    if speedup.interval is None or speedup.noise_floor is None:
        return INCONCLUSIVE
    effect = max(speedup.value, 1 / speedup.value)
    significant = speedup.adjusted_p_value is not None and speedup.adjusted_p_value < ALPHA
    if speedup.interval.excludes(1.0) and significant and effect > speedup.noise_floor:
        return BETTER if speedup.value > 1 else WORSE
    band = max(speedup.noise_floor, SAME_WITHIN)
    if 1 / band <= speedup.interval.low and speedup.interval.high <= band:
        return SAME
    return INCONCLUSIVE


def _tokens_ratio(pairs: Pairs) -> float | None:
    baseline = float(pairs.baseline.rows["new_tokens"].sum())
    return float(pairs.method.rows["new_tokens"].sum()) / baseline if baseline else None


def _score(measured: Measurements) -> Estimate | None:
    scored = measured.rows.dropna(subset=["score"])
    return mean_interval(scored.groupby(["task", "sample_id"])["score"].mean().to_numpy())


def _score_name(measured: Measurements) -> str:
    names = measured.rows["score_name"].dropna().unique()
    return str(names[0]) if len(names) == 1 else "mean score" if len(names) else ""


def _score_difference(pairs: Pairs) -> Estimate | None:
    means = [
        arm.rows.dropna(subset=["score"]).groupby(["task", "sample_id"])["score"].mean()
        for arm in (pairs.baseline, pairs.method)
    ]
    common = means[0].index.intersection(means[1].index)
    return paired_difference(means[0].loc[common].to_numpy(), means[1].loc[common].to_numpy())


def _draws(measured: Measurements) -> pd.DataFrame:
    """Return one scored row for each draw of each sample: repeats of a seed are the same draw."""
    scored = measured.rows.dropna(subset=["score"])
    return scored.drop_duplicates(["task", "sample_id", "seed"])


def _count_draws(measured: Measurements) -> int:
    counts = _draws(measured).groupby(["task", "sample_id"]).size()
    return int(counts.min()) if len(counts) else 0


def _pass_at_k(measured: Measurements) -> dict[int, float] | None:
    fewest = _count_draws(measured)
    if fewest < 2 or _score_name(measured) != "pass_at_1":
        return None
    samples = _draws(measured).groupby(["task", "sample_id"])["score"].agg(["size", "sum"])
    drawn = [(int(n), round(c)) for n, c in samples.itertuples(index=False)]
    return {
        k: float(np.mean([pass_at_k(n, c, k) for n, c in drawn])) for k in PASS_AT if k <= fewest
    }


def _count_samples(measured: Measurements) -> int:
    return len(measured.rows[["task", "sample_id"]].drop_duplicates())


def _count_repeats(measured: Measurements) -> int:
    return int(measured.rows["repeat"].nunique())


def _count_processes(measured: Measurements) -> int:
    return len(measured.rows[["file", "process"]].drop_duplicates())


def _setting(results: Sequence[ResultSet]) -> Setting:
    def joined(read: Callable[[ResultSet], str]) -> str:
        return ", ".join(dict.fromkeys(value for result in results if (value := read(result))))

    return Setting(
        model=joined(lambda result: result.metadata.model),
        device=joined(lambda result: result.metadata.device),
        dtype=joined(lambda result: result.metadata.dtype),
        engine=joined(lambda result: result.metadata.engine),
        law=joined(lambda result: result.metadata.law),
        baseline=joined(
            lambda result: result.metadata.baseline.name if result.metadata.baseline else ""
        ),
        version=joined(_version),
        modality="image" if any(_modality(result) == "image" for result in results) else "text",
    )


def _modality(result: ResultSet) -> str:
    model = result.metadata.config.get("model")
    return str(model.get("modality", "text")) if isinstance(model, dict) else "text"


def _version(result: ResultSet) -> str:
    return str(result.metadata.provenance.get("specbench", ""))
