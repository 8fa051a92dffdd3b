"""The page's tables of methods: the headline, every quantity, and values by task."""

from __future__ import annotations

from collections.abc import Callable

from specbench.compare.comparison import (
    BETTER,
    WORSE,
    Comparison,
    ComparisonRow,
    Speedup,
)
from specbench.report import words
from specbench.report.figures import class_of, section_name
from specbench.report.html.tables import Cell, Column, Line, Reader, Table, table_of
from specbench.stats import Estimate

_BEYOND = 10
"""Detectable speedups above this are not told apart: the run was too small for any verdict."""

_VERDICTS = {BETTER: "good", WORSE: "bad"}


def headline(comparison: Comparison) -> Table:
    """Return the table that a page begins with: what one looks for first."""
    image = comparison.setting.modality == "image"
    lengths = _IMAGE if image else _TEXT
    columns = [_METHOD, _CLASS, _SAMPLES, *_SPEEDUP]
    columns += _RATES if comparison.setting.imported else ()
    columns += lengths
    columns += [_metric(name) for name in words.metrics_of(comparison.rows)]
    columns += [_SCORE, _FIDELITY, _FAILED]
    caption = "All tasks together, fastest first; a click on a heading sorts."
    return table_of(caption, comparison.rows, columns)


def quantities(comparison: Comparison) -> Table:
    """Return every further quantity of every arm."""
    columns = [_METHOD, *_FURTHER]
    return table_of("Further quantities of every arm", comparison.rows, columns)


def breakdown(comparison: Comparison) -> tuple[Table, ...]:
    """Return one table for each of the main values, a column for each section."""
    tables = [
        _by_section("Speedup end to end, with its verdict", comparison, _speedup_cell),
        _by_section("Mean acceptance length", comparison, _mal_cell),
    ]
    if any(row.score is not None for row in comparison.rows):
        tables.append(_by_section("Score (difference to the baseline)", comparison, _score_cell))
    for name in words.metrics_of(comparison.rows):
        title = f"{name} (difference to the baseline, or floor)"
        tables.append(_by_section(title, comparison, _metric(name)[1]))
    return tuple(tables)


def _by_section(caption: str, comparison: Comparison, read: Reader) -> Table:
    found = {(row.section, row.label): row for row in comparison.rows}
    order = [row for row in comparison.rows if row.section == comparison.sections[-1]]
    known = {row.label: row for row in [*order, *comparison.rows]}
    sections = comparison.sections
    columns = (
        Column("method", False),
        *(Column(section_name(name, sections)) for name in sections),
    )
    lines = []
    for label, row in known.items():
        cells = [
            read(found[name, label]) if (name, label) in found else Cell(words.NOTHING)
            for name in sections
        ]
        line = Line((Cell(label), *cells), label, class_of(row), row.is_baseline)
        lines.append(line)
    return Table(caption, columns, tuple(lines))


def _speedup_cell(row: ComparisonRow) -> Cell:
    found = row.speedup_e2e
    if found is None:
        return Cell("1.00x" if row.is_baseline else words.NOTHING, 1.0 if row.is_baseline else None)
    text = f"{found.value:.2f}x {words.mark(found)}"
    title = f"{words.speedup(row, found)}, {found.verdict}, floor {words.floor(found)}"
    return Cell(text, found.value, _VERDICTS.get(found.verdict, ""), title)


def _mal_cell(row: ComparisonRow) -> Cell:
    return Cell(words.number(row.quantities.mal), row.quantities.mal)


def _score_cell(row: ComparisonRow) -> Cell:
    return Cell(words.score(row), row.score.value if row.score else None)


def _interval_cell(row: ComparisonRow, found: Speedup | None) -> Cell:
    value = 1.0 if row.is_baseline else found.value if found else None
    style = _VERDICTS.get(found.verdict, "") if found else ""
    return Cell(words.speedup(row, found), value, style)


def _verdict_cell(row: ComparisonRow) -> Cell:
    found = row.speedup_e2e
    if found is None:
        return Cell(words.NOTHING)
    return Cell(found.verdict, style=_VERDICTS.get(found.verdict, ""))


def _floor_cell(row: ComparisonRow) -> Cell:
    found = row.speedup_e2e
    return Cell(words.floor(found), found.noise_floor if found else None)


def _detectable_cell(row: ComparisonRow) -> Cell:
    found = row.speedup_e2e.detectable if row.speedup_e2e else None
    if found is not None and found > _BEYOND:
        return Cell(f"over {_BEYOND}x", found, title="this run could have found next to nothing")
    return Cell(words.detectable(row.speedup_e2e), found)


def _fidelity_cell(row: ComparisonRow) -> Cell:
    counts = row.quantities.fidelity
    share = counts.identical / counts.total if counts and counts.total else None
    title = "" if counts is None else ", ".join(f"{k} {v}" for k, v in counts._asdict().items())
    style = "bad" if words.breaks_its_claim(row) else ""
    return Cell(words.fidelity(row), share, style, title)


def _metric(name: str) -> tuple[Column, Reader]:
    def read(row: ComparisonRow) -> Cell:
        value = row.quality[name].value.value if name in row.quality else None
        if name in row.corpus:
            value = row.corpus[name].value
        return Cell(words.metric(row, name), value, "wide")

    return Column(name), read


def _plain(
    title: str,
    show: Callable[[ComparisonRow], str],
    value: Callable[[ComparisonRow], float | None],
    meaning: str = "",
) -> tuple[Column, Reader]:
    return Column(title, meaning=meaning), lambda row: Cell(show(row), value(row))


def _rate(
    title: str, read: Callable[[ComparisonRow], Estimate | None], meaning: str
) -> tuple[Column, Reader]:
    def cell(row: ComparisonRow) -> Cell:
        found = read(row)
        return Cell(words.estimate(found), found.value if found else None)

    return Column(title, meaning=meaning), cell


def _memory(row: ComparisonRow) -> str:
    found = row.quantities.peak_memory_bytes
    return words.NOTHING if found is None else f"{found / 2**20:,.0f} MiB"


_METHOD: tuple[Column, Reader] = (Column("method", False), lambda row: Cell(row.label))
_CLASS: tuple[Column, Reader] = (
    Column("class", False, "exact keeps the target's law, greedy its argmax, lossy neither"),
    lambda row: Cell(words.exactness(row), style=f"class-{class_of(row)}"),
)
_SAMPLES = _plain("n", lambda row: str(row.samples), lambda row: row.samples, "samples in common")
_SPEEDUP: tuple[tuple[Column, Reader], ...] = (
    (
        Column("speedup [95%]", meaning="the baseline's total time over the method's"),
        lambda row: _interval_cell(row, row.speedup_e2e),
    ),
    (Column("verdict", False, "after Holm's adjustment and the noise floor"), _verdict_cell),
    (Column("floor", meaning="the baseline against itself"), _floor_cell),
    (Column("detectable", meaning="least speedup found with 80% power"), _detectable_cell),
)
_IMAGE = (
    _plain("NFE", lambda row: words.number(row.quantities.nfe, 1), lambda row: row.quantities.nfe),
    _plain(
        "tok/NFE",
        lambda row: words.number(row.quantities.step_compression),
        lambda row: row.quantities.step_compression,
    ),
)
_TEXT = (
    _plain("MAL", lambda row: words.number(row.quantities.mal), lambda row: row.quantities.mal),
    _plain(
        "tok/s",
        lambda row: words.rate(row.quantities.tokens_per_second_decode),
        lambda row: row.quantities.tokens_per_second_decode,
        "decode only",
    ),
    _plain(
        "TTFT",
        lambda row: words.milliseconds(row.quantities.ttft_ms),
        lambda row: row.quantities.ttft_ms,
    ),
)
_SCORE: tuple[Column, Reader] = (Column("score"), _score_cell)
_FIDELITY: tuple[Column, Reader] = (
    Column("fidelity", meaning="= identical, ~ numeric tie, ≠ other tokens"),
    _fidelity_cell,
)
_FAILED = _plain(
    "failed", lambda row: str(row.failed) if row.failed else "", lambda row: row.failed, "samples"
)
_RATES = (
    _rate(
        "mean tok/s",
        lambda row: row.speedup_mean_rate,
        "speedup as the ratio of mean tokens per second over samples",
    ),
    _rate(
        "pooled tok/s",
        lambda row: row.speedup_pooled_rate,
        "speedup as the ratio of all tokens over all time",
    ),
)
_FURTHER: tuple[tuple[Column, Reader], ...] = (
    (Column("decode speedup"), lambda row: _interval_cell(row, row.speedup_decode)),
    _plain("predicted", lambda r: words.ratio(r.predicted_speedup), lambda r: r.predicted_speedup),
    _plain("overhead", lambda r: words.percent(r.overhead), lambda r: r.overhead),
    *_RATES,
    _plain("MAL", lambda r: words.number(r.quantities.mal), lambda r: r.quantities.mal),
    _plain(
        "MAL by request",
        lambda r: words.number(r.quantities.mal_request),
        lambda r: r.quantities.mal_request,
    ),
    _plain(
        "accepted a round",
        lambda r: words.number(r.quantities.accepted_per_round),
        lambda r: r.quantities.accepted_per_round,
    ),
    _plain(
        "accept",
        lambda r: words.percent(r.quantities.acceptance_rate),
        lambda r: r.quantities.acceptance_rate,
    ),
    _plain(
        "draft efficiency",
        lambda r: words.percent(r.quantities.draft_efficiency),
        lambda r: r.quantities.draft_efficiency,
    ),
    _plain("node", words.node_acceptance, lambda r: r.quantities.node_acceptance),
    _plain("NFE", lambda r: words.number(r.quantities.nfe, 1), lambda r: r.quantities.nfe),
    _plain(
        "tok/NFE",
        lambda r: words.number(r.quantities.step_compression),
        lambda r: r.quantities.step_compression,
    ),
    _plain(
        "tok/s end to end",
        lambda r: words.rate(r.quantities.tokens_per_second),
        lambda r: r.quantities.tokens_per_second,
    ),
    _plain(
        "host", lambda r: words.percent(r.quantities.host_share), lambda r: r.quantities.host_share
    ),
    _plain("tokens ratio", lambda r: words.number(r.tokens_ratio, 3), lambda r: r.tokens_ratio),
    _plain("peak memory", _memory, lambda r: r.quantities.peak_memory_bytes),
)
