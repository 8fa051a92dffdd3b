"""The columns of every table of methods, once; each format adds only its syntax."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Flag, auto
from typing import Any, NamedTuple

from specbench.compare.comparison import (
    BETTER,
    WORSE,
    Comparison,
    ComparisonRow,
    Setting,
    Speedup,
)
from specbench.compare.registry import METRICS, PUBLISHED
from specbench.compare.warn import LARGEST_DETECTABLE
from specbench.report import words
from specbench.report.figures import class_of
from specbench.stats import Estimate

TONES = {BETTER: "good", WORSE: "bad"}
"""Tone of a cell that holds a verdict."""


class Where(Flag):
    """The forms that always have a column; a terminal has those with a rank, as far as they fit."""

    NOWHERE = 0
    MARKDOWN = auto()
    PAGE = auto()
    PAPER = auto()
    DOCUMENTS = MARKDOWN | PAGE
    ALL = DOCUMENTS | PAPER


class Cell(NamedTuple):
    """What a column says of one row.

    Attributes:
        text: Its words.
        value: The number that they show; None where they show none.
        low: Lower end of its interval; None without one.
        high: Upper end.
        brief: What a terminal says in their place; empty for the same.
        tone: "good", "bad", "class-lossy" and the like; empty for none.
        more: A longer form; empty for none.
    """

    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    brief: str = ""
    tone: str = ""
    more: str = ""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: Its name in a terminal, on the page and in the legend.
        read: What it says of a row.
        where: The forms that always have it.
        rank: The higher, the earlier a terminal leaves it out; None where it never shows it.
        left: Whether its cells stand flush left.
        heading: Its name in Markdown and papers; empty for `title`.
        meaning: What it shows, for the legend; empty where its title says so.
        tip: The same for the page alone.
        modality: The modality that it belongs to; empty for all.
        imported: Whether only tables of imported files have it.
        silent: Cells that say nothing, so that a column of them is left out.
        picture: Whether it is a metric of pictures.
    """

    title: str
    read: Callable[[ComparisonRow], Cell]
    where: Where = Where.NOWHERE
    rank: int | None = None
    left: bool = False
    heading: str = ""
    meaning: str = ""
    tip: str = ""
    modality: str = ""
    imported: bool = False
    silent: tuple[str, ...] = (words.NOTHING,)
    picture: bool = False

    @property
    def head(self) -> str:
        """Its name in Markdown and papers."""
        return self.heading or self.title

    def fits(self, setting: Setting) -> bool:
        """Return whether tables under a setting have it."""
        return self.modality in ("", setting.modality) and (setting.imported or not self.imported)

    def says_something(self, rows: Iterable[ComparisonRow]) -> bool:
        """Return whether it has a value in any row."""
        return any(self.read(row).text not in self.silent for row in rows)


def columns_of(comparison: Comparison, where: Where | None = None) -> list[Column]:
    """Return the columns of a comparison, metrics of pictures after the score.

    Args:
        comparison: The comparison.
        where: The form; None for a terminal.
    """
    fitting = [column for column in COLUMNS if column.fits(comparison.setting)]
    place = [column.title for column in fitting].index("score") + 1
    fitting[place:place] = [_picture(name) for name in words.metrics_of(comparison.rows)]
    if where is None:
        return [column for column in fitting if column.rank is not None]
    return [column for column in fitting if where in column.where]


def legend(columns: Iterable[Column], rows: Sequence[ComparisonRow]) -> str:
    """Return what columns mean, one sentence each, those of pictures last."""
    shown = list(columns)
    sentences = [
        f"{column.title}: {column.meaning}."
        for column in sorted(shown, key=lambda column: column.picture)
        if column.meaning
    ]
    if any(row.method.exactness not in ("exact", "greedy", "lossy") for row in rows):
        unknown = "unknown: its source does not state the class."
        sentences.insert(any(column.title == "class" for column in shown), unknown)
    sentences += [
        f"{column.title}: {words.metric_meaning(column.title, rows)}"
        for column in shown
        if column.picture
    ]
    if any(row.pass_at_k for row in rows):
        sentences.append(f"pass@k: {METRICS['pass_at_k'].meaning}.")
    return " ".join(sentences)


def metric_cell(row: ComparisonRow, metric: str) -> Cell:
    """Return a derived metric with its interval where it has one."""
    found: Any = row.value(metric)
    if isinstance(found, Estimate):
        low, high = found.interval or (None, None)
        return Cell(words.interval(found), found.value, low, high)
    return Cell(words.shown(found, METRICS[metric]), found)


def speedup_cell(row: ComparisonRow, found: Speedup | None) -> Cell:
    """Return a speedup with its interval; 1 for the baseline."""
    text = words.speedup(row, found)
    if found is None:
        return Cell(text, 1.0 if row.is_baseline else None)
    low, high = found.interval or (None, None)
    return Cell(text, found.value, low, high, tone=TONES.get(found.verdict, ""))


def _speedup(row: ComparisonRow) -> Cell:
    cell = speedup_cell(row, row.speedup_e2e)
    return cell._replace(brief=f"{words.mark(row.speedup_e2e)} {cell.text}")


def _class(row: ComparisonRow) -> Cell:
    return Cell(words.exactness(row), brief=row.method.exactness, tone=f"class-{class_of(row)}")


def _verdict(row: ComparisonRow) -> Cell:
    verdict = row.speedup_e2e.verdict if row.speedup_e2e else words.NOTHING
    return Cell(verdict, tone=TONES.get(verdict, ""))


def _detectable(row: ComparisonRow) -> Cell:
    found = row.speedup_e2e.detectable if row.speedup_e2e else None
    vast = (found or 0.0) > LARGEST_DETECTABLE
    more = "this run could have found next to nothing" if vast else ""
    return Cell(words.detectable(row.speedup_e2e), found, more=more)


def _fidelity(row: ComparisonRow) -> Cell:
    counts = row.quantities["fidelity"]
    share = counts.identical / counts.total if counts and counts.total else None
    more = "" if counts is None else ", ".join(f"{k} {v}" for k, v in counts._asdict().items())
    tone = "bad" if words.breaks_its_claim(row) else ""
    return Cell(words.fidelity(row), share, tone=tone, more=more)


def _picture(name: str) -> Column:
    def read(row: ComparisonRow) -> Cell:
        value = row.quality[name].value.value if name in row.quality else None
        if name in row.corpus:
            value = row.corpus[name].value
        return Cell(words.metric(row, name), value, tone="wide")

    return Column(name, read, Where.ALL, 3, left=True, picture=True)


def _of(metric: str, where: Where = Where.NOWHERE, **further: Any) -> Column:
    about = METRICS[metric]
    return Column(
        about.column,
        lambda row: metric_cell(row, metric),
        where,
        about.rank,
        meaning=about.meaning,
        **further,
    )


SPEEDUP = Column(
    "speedup",
    _speedup,
    Where.ALL,
    0,
    left=True,
    heading="Speedup [95%]",
    meaning=f"{METRICS['speedup_e2e'].meaning} (+ better, - worse, = same, ? inconclusive)",
)

_LISTED = (
    Column("method", lambda row: Cell(row.label), Where.ALL, 0, left=True, heading="Method"),
    Column(
        "class",
        _class,
        Where.ALL,
        0,
        left=True,
        heading="Exactness",
        meaning="exact keeps the target's law, greedy its argmax, lossy neither",
    ),
    Column(
        "n",
        lambda row: Cell(str(row.samples), row.samples),
        Where.DOCUMENTS,
        1,
        tip="samples in common",
    ),
    SPEEDUP,
    Column(
        "verdict",
        _verdict,
        Where.DOCUMENTS,
        left=True,
        heading="Verdict",
        tip="after Holm's adjustment and the noise floor",
    ),
    Column(
        "floor",
        lambda row: Cell(
            words.floor(row.speedup_e2e), row.speedup_e2e.noise_floor if row.speedup_e2e else None
        ),
        Where.ALL,
        1,
        heading="Floor",
        meaning="the baseline against itself; a smaller effect is noise",
    ),
    _of("speedup_mean_rate", Where.DOCUMENTS, left=True, imported=True),
    _of("speedup_pooled_rate", Where.DOCUMENTS, left=True, imported=True),
    _of("nfe", Where.ALL, modality="image"),
    _of("step_compression", Where.ALL, modality="image"),
    _of("mal", Where.ALL, modality="text"),
    _of("tokens_per_second_decode", Where.ALL, modality="text"),
    _of("ttft_ms", Where.DOCUMENTS, modality="text"),
    Column(
        "score",
        lambda row: Cell(words.score(row), row.score.value if row.score else None),
        Where.ALL,
        4,
        left=True,
        heading="Score",
        meaning="mean (paired difference to the baseline)",
    ),
    Column(
        "fidelity",
        _fidelity,
        Where.ALL,
        5,
        heading="Fidelity",
        meaning="samples with the baseline's very tokens (=), other ones from a numeric tie on "
        "(~), or plainly other ones (≠)",
    ),
    _of("acceptance_rate"),
    Column(
        "node",
        lambda row: Cell(words.node_acceptance(row), row.quantities["node_acceptance"]),
        rank=8,
        meaning="visited tree nodes with a child accepted, of the most that any verifier could "
        "accept there",
    ),
    replace(
        _of("speedup_decode", left=True), read=lambda row: speedup_cell(row, row.speedup_decode)
    ),
    Column(
        "detectable",
        _detectable,
        Where.PAGE,
        9,
        meaning="smallest speedup that this run would have found 4 times in 5",
    ),
    _of("predicted_speedup"),
    _of("host_share"),
)

_FAILED = Column(
    "failed",
    lambda row: Cell(str(row.failed), row.failed, tone="bad" if row.failed else ""),
    Where.DOCUMENTS,
    6,
    heading="Failed",
    tip="samples",
    silent=("0", words.NOTHING),
)

COLUMNS: tuple[Column, ...] = (
    *_LISTED,
    *(
        _of(metric.id)
        for metric in PUBLISHED
        if metric.column and metric.column not in {column.title for column in _LISTED}
    ),
    _FAILED,
)
"""Every column in its order; derived metrics that are not named here come before the last."""
