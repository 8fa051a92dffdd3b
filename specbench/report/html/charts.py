"""The charts of the page: each drawing with its title, how it is read, and its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from markupsafe import Markup

from specbench.report import figures, plots, words
from specbench.report.columns import Cell
from specbench.report.drawing import PAGE
from specbench.report.html import svg
from specbench.report.html.tables import Line, Table

_MOST_BARS = 12
_MOST_POSITIONS = 16

_CLASS_KEYS = {
    "exact": "exact: the target's law",
    "greedy": "greedy: its tokens at temperature 0",
    "lossy": "lossy: neither",
    "unknown": "unknown: its source does not say",
}


class Panel(NamedTuple):
    """One drawing.

    Attributes:
        drawing: The SVG element.
        label: The method that the page's filter knows it by; empty: always shown.
        exactness: That method's class.
    """

    drawing: Markup
    label: str = ""
    exactness: str = ""


@dataclass(frozen=True)
class ChartOfPage:
    """A chart, or a group of small ones.

    Attributes:
        key: Id on the page.
        title: What it shows.
        note: How it is to be read, a sentence or two.
        panels: Its drawings; several are small multiples.
        table: The same as numbers.
        keys: Names of what the colours or shapes mean, each with its class of the style sheet.
    """

    key: str
    title: str
    note: str
    panels: tuple[Panel, ...]
    table: Table
    keys: tuple[tuple[str, str], ...] = ()


class _Classed(Protocol):
    """Whatever belongs to a class of methods."""

    @property
    def label(self) -> str: ...

    @property
    def exactness(self) -> str: ...


def speedup_chart(marks: Sequence[figures.SpeedupMark]) -> ChartOfPage | None:
    """Return the speedups with intervals and noise floors, None where there is none."""
    chart = plots.speedups(marks, PAGE)
    if chart is None:
        return None
    title = "Speedup end to end, with 95% interval and noise floor"
    fastest = max(marks, key=lambda mark: mark.value)
    description = (
        f"{len(marks)} methods on a logarithmic axis, 1 being the baseline. The greatest is "
        f"{fastest.label} with {fastest.value:.2f}. The table below holds all values."
    )
    lines = []
    for mark in marks:
        floor = None if mark.floor is None else mark.floor - 1
        shown = words.NOTHING if floor is None else f"±{100 * floor:.1f}%"
        numbers = [_number(value, 3) for value in (mark.value, mark.low, mark.high)]
        lines.append(
            _line(mark, Cell(mark.exactness), *numbers, Cell(shown, floor), Cell(mark.verdict))
        )
    heads = ("method", "class", "speedup", "95% from", "to", "noise floor", "verdict")
    return ChartOfPage(
        "speedup",
        title,
        "The band around 1 is the row's noise floor: what the baseline against itself can "
        "show. A filled shape is a verdict of better or worse; a hollow one is the same or "
        "inconclusive. Equal ratios have equal lengths; an interval without an end runs on.",
        (Panel(svg.drawing("speedup-chart", title, description, chart)),),
        Table.of("Speedups as numbers", heads, lines),
        _class_keys(marks),
    )


def time_chart(splits: Sequence[figures.TimeSplit]) -> ChartOfPage | None:
    """Return milliseconds per token by kind of work, None where nothing is known of them."""
    chart = plots.times(splits, PAGE)
    if chart is None:
        return None
    kinds = figures.work_of(splits)
    title = "Milliseconds per token, by kind of work"
    description = (
        f"Stacked bars of {len(splits)} arms: time in the draft, in the target, and in neither. "
        "The table below holds all values."
    )
    note = "Host is whatever neither model takes."
    if "sampling" in kinds:
        note = (
            "Sampling is the device's work between the target and the round's end; host is the "
            "time in which the device had none."
        )
    lines = [
        _line(split, *(_number(getattr(split, name), 3) for name in (*kinds, "total")))
        for split in splits
    ]
    return ChartOfPage(
        "time",
        title,
        "Mean time of a verification round over the tokens that a round emits; prefill is left "
        f"out. {note}",
        (Panel(svg.drawing("time-chart", title, description, chart)),),
        Table.of("Milliseconds per token as numbers", ("method", *kinds, "all"), lines),
        tuple((name, f"part-{name}") for name in kinds),
    )


def histogram_chart(histograms: Sequence[figures.LengthHistogram]) -> ChartOfPage | None:
    """Return a small histogram of accepted draft tokens for each method."""
    if not histograms:
        return None
    most = min(max(len(found.shares) for found in histograms), _MOST_BARS + 1)
    highest = max(max(_gathered(found.shares)) for found in histograms)
    panels, lines = [], []
    for place, found in enumerate(histograms):
        shares = _gathered(found.shares)
        said = [figures.share(share) for share in shares]
        chart = plots.histogram(found, shares, highest, most, PAGE)
        title = f"{found.label}: share of rounds by accepted draft tokens"
        description = "; ".join(f"{number}: {share}" for number, share in enumerate(said))
        drawn = svg.drawing(f"histogram-{place}", title, description, chart)
        panels.append(Panel(drawn, found.label, found.exactness))
        cells = [Cell(text, share) for text, share in zip(said, shares, strict=True)]
        cells += [Cell("", -1.0)] * (most - len(shares))
        lines.append(
            _line(found, Cell(str(found.rounds), found.rounds), _number(found.mal), *cells)
        )
    bars = [f"{place}{'+' if place == _MOST_BARS else ''}" for place in range(most)]
    return ChartOfPage(
        "histogram",
        "Accepted draft tokens per verification round",
        "Share of the rounds that accepted 0, 1, 2, ... draft tokens, before the bonus token; all "
        f"panels have the same axes, the last bar holds {_MOST_BARS} and more. MAL is the mean "
        "acceptance length, bonus included.",
        tuple(panels),
        Table.of(
            "Shares of rounds by accepted draft tokens", ("method", "rounds", "MAL", *bars), lines
        ),
    )


def position_table(curves: Sequence[figures.PositionCurve]) -> Table | None:
    """Return acceptance by draft position as a table whose cells are shaded by their values."""
    if not curves:
        return None
    most = min(max(len(curve.rates) for curve in curves), _MOST_POSITIONS)
    lines = []
    for curve in curves:
        cells = [
            Cell(figures.share(rate), rate, tone=f"heat h{round(10 * rate)}")
            for rate in curve.rates[:most]
        ]
        lines.append(_line(curve, *cells, *[Cell("", -1.0)] * (most - len(cells))))
    caption = (
        "Chance that the draft token at position 1, 2, 3, ... is accepted, given that all "
        "earlier ones were; darker is more often."
    )
    return Table.of(caption, ("method", *(str(place + 1) for place in range(most))), lines)


def trade_chart(trade: figures.Trade) -> ChartOfPage:
    """Return quality against speed under one measure, better always up and to the right."""
    chart = plots.trade(trade, PAGE)
    title = f"Quality against speed: {trade.name}"
    best = ", ".join(point.label for point in trade.points if point.on_frontier)
    description = f"{len(trade.points)} arms. On the frontier: {best}."
    key = f"trade-{trade.name}"
    lines = []
    for point in trade.points:
        numbers = [_number(v, 4, "g") for v in (point.quality, point.low, point.high)]
        frontier = Cell("yes" if point.on_frontier else "no")
        lines.append(
            _line(point, Cell(point.exactness), _number(point.speedup, 3), *numbers, frontier)
        )
    heads = ("arm", "class", "speedup", trade.axis, "95% from", "to", "frontier")
    return ChartOfPage(
        key,
        title,
        f"Better is up and to the right. On the line: {best}; no other arm's estimate is at "
        "least as fast and as good. Intervals may overlap: a place on the line is no verdict.",
        (Panel(svg.drawing(f"{key}-chart", title, description, chart)),),
        Table.of(f"Speed and {trade.name} as numbers", heads, lines),
        (*_class_keys(trade.points), ("baseline", "baseline")),
    )


def prediction_chart(predictions: Sequence[figures.Prediction]) -> ChartOfPage | None:
    """Return predicted against observed decode speedups, None where there is none."""
    chart = plots.predictions(predictions, PAGE)
    if chart is None:
        return None
    title = "Predicted against observed decode speedup"
    description = (
        f"{len(predictions)} methods; on the diagonal the prediction holds, below it the "
        "difference is overhead. The table below holds all values."
    )
    lines = [
        _line(
            found,
            Cell(found.exactness),
            _number(found.predicted, 3),
            _number(found.observed, 3),
            Cell(words.percent(found.overhead), found.overhead),
        )
        for found in predictions
    ]
    return ChartOfPage(
        "prediction",
        title,
        "What a round yields over what its forwards take, against what was measured; prefill is "
        "left out of both. Below the diagonal lies overhead: work of the host that neither "
        "model's time contains.",
        (Panel(svg.drawing("prediction-chart", title, description, chart)),),
        Table.of(
            "Predicted and observed decode speedups as numbers",
            ("method", "class", "predicted", "observed", "overhead"),
            lines,
        ),
        _class_keys(predictions),
    )


def _class_keys(found: Sequence[_Classed]) -> tuple[tuple[str, str], ...]:
    """Return the key of the classes that occur."""
    present = {item.exactness for item in found}
    return tuple((text, name) for name, text in _CLASS_KEYS.items() if name in present)


def _line(item: _Classed, *cells: Cell) -> Line:
    baseline = bool(getattr(item, "is_baseline", False))
    return Line((Cell(item.label), *cells), item.label, item.exactness, baseline)


def _number(value: float | None, digits: int = 2, kind: str = "f") -> Cell:
    return Cell(words.NOTHING if value is None else f"{value:.{digits}{kind}}", value)


def _gathered(shares: Sequence[float]) -> list[float]:
    """Return the shares, those beyond the last bar added to it."""
    if len(shares) <= _MOST_BARS + 1:
        return list(shares)
    return [*shares[:_MOST_BARS], sum(shares[_MOST_BARS:])]
