"""Charts of one value a method: speedups with intervals, time splits, acceptance histograms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from markupsafe import Markup

from specbench.report import words
from specbench.report.figures import (
    LengthHistogram,
    PositionCurve,
    SpeedupMark,
    TimeSplit,
    clipped_ends,
    work_of,
)
from specbench.report.html import svg
from specbench.report.html.chart import WIDTH, Chart, Panel
from specbench.report.html.tables import Cell, Column, Line, Table

_ROW = 24.0
_TOP = 28.0
_VALUE = 132.0
"""Pixels kept at the right for a row's value in words."""

_PANEL = (216.0, 140.0)
_MOST_BARS = 12
_MOST_POSITIONS = 16

_CLASS_KEYS = (
    ("exact: the target's law", "exact"),
    ("greedy: its tokens at temperature 0", "greedy"),
    ("lossy: neither", "lossy"),
    ("unknown: its source does not say", "unknown"),
)


class _Classed(Protocol):
    """Whatever belongs to a class of methods."""

    @property
    def exactness(self) -> str: ...


def class_keys(found: Sequence[_Classed]) -> tuple[tuple[str, str], ...]:
    """Return the key of the classes that occur."""
    present = {item.exactness for item in found}
    return tuple(key for key in _CLASS_KEYS if key[1] in present)


def speedup_chart(marks: Sequence[SpeedupMark]) -> Chart | None:
    """Return the speedups with intervals and noise floors, None where there is none."""
    if not marks:
        return None
    left = _label_width([mark.label for mark in marks])
    ends = clipped_ends(
        [mark.value for mark in marks], [end for mark in marks for end in (mark.low, mark.high)]
    )
    scale = svg.log_scale(ends, left + 12, WIDTH - _VALUE)
    height = _TOP + _ROW * len(marks) + 8
    body = [_grid(scale, height, "x"), svg.line(scale(1), _TOP - 4, scale(1), height, "one")]
    lines = []
    for place, mark in enumerate(marks):
        body.append(_speedup_row(mark, scale, _TOP + _ROW * (place + 0.5), left))
        lines.append(_speedup_line(mark))
    title = "Speedup end to end, with 95% interval and noise floor"
    fastest = max(marks, key=lambda mark: mark.value)
    description = (
        f"{len(marks)} methods on a logarithmic axis, 1 being the baseline. The greatest is "
        f"{fastest.label} with {fastest.value:.2f}. The table below holds all values."
    )
    columns = (
        Column("method", False),
        Column("class", False),
        Column("speedup"),
        Column("95% from"),
        Column("to"),
        Column("noise floor"),
        Column("verdict", False),
    )
    return Chart(
        "speedup",
        title,
        "The band around 1 is the row's noise floor: what the baseline against itself can "
        "show. A filled shape is a verdict of better or worse; a hollow one is the same or "
        "inconclusive. Equal ratios have equal lengths; an interval without an end runs on.",
        (Panel(svg.drawing("speedup-chart", title, description, (WIDTH, height), body)),),
        Table("Speedups as numbers", columns, tuple(lines)),
        class_keys(marks),
    )


def _speedup_row(mark: SpeedupMark, scale: svg.Scale, y: float, left: float) -> Markup:
    parts = [svg.rect(0, y - _ROW / 2, WIDTH, _ROW, "hit")]
    if mark.floor is not None:
        low, high = scale(1 / mark.floor), scale(mark.floor)
        parts.append(svg.rect(low, y - 8, high - low, 16, "floor"))
    parts.append(svg.text(left, y + 4, svg.fitted(mark.label, left), "end"))
    if mark.low is not None and mark.high is not None:
        low, high = scale(mark.low), scale(mark.high)
        style = f"interval {mark.exactness}"
        parts.append(svg.line(low, y, high, y, style))
        inside = [end for end in (mark.low, mark.high) if scale.low < end < scale.high]
        parts.extend(svg.line(scale(end), y - 4, scale(end), y + 4, style) for end in inside)
    hollow = mark.verdict not in ("better", "worse")
    parts.append(svg.marker(scale(mark.value), y, mark.exactness, hollow))
    parts.append(svg.text(WIDTH - _VALUE + 12, y + 4, _in_words(mark), class_="value"))
    floor = "not measured" if mark.floor is None else f"±{100 * (mark.floor - 1):.1f}%"
    tip = f"{mark.label} ({mark.exactness})\n{_in_words(mark)}\n{mark.verdict}, floor {floor}"
    return svg.mark(mark.label, mark.exactness, tip, parts)


def _in_words(mark: SpeedupMark) -> str:
    if mark.low is None or mark.high is None:
        return f"{mark.value:.2f}x"
    return f"{mark.value:.2f}x [{mark.low:.2f}, {mark.high:.2f}]"


def _speedup_line(mark: SpeedupMark) -> Line:
    floor = None if mark.floor is None else mark.floor - 1
    cells = (
        Cell(mark.label),
        Cell(mark.exactness),
        Cell(f"{mark.value:.3f}", mark.value),
        Cell(words.number(mark.low, 3), mark.low),
        Cell(words.number(mark.high, 3), mark.high),
        Cell(words.NOTHING if floor is None else f"±{100 * floor:.1f}%", floor),
        Cell(mark.verdict),
    )
    return Line(cells, mark.label, mark.exactness)


def time_chart(splits: Sequence[TimeSplit]) -> Chart | None:
    """Return milliseconds per token by kind of work, None where nothing is known of them."""
    if not splits:
        return None
    left = _label_width([split.label for split in splits])
    scale = svg.Scale(0.0, max(split.total for split in splits) * 1.02, left + 12, WIDTH - 70)
    height = _TOP + _ROW * len(splits) + 8
    body = [_grid(scale, height, "x", " ms")]
    lines = []
    kinds = work_of(splits)
    for place, split in enumerate(splits):
        y = _TOP + _ROW * (place + 0.5)
        parts = [
            svg.rect(0, y - _ROW / 2, WIDTH, _ROW, "hit"),
            svg.text(left, y + 4, svg.fitted(split.label, left), "end"),
        ]
        start = 0.0
        for name in kinds:
            value = getattr(split, name)
            x = scale(start)
            parts.append(svg.rect(x, y - 8, scale(start + value) - x, 16, f"part-{name}"))
            start += value
        parts.append(svg.text(scale(start) + 6, y + 4, f"{split.total:.2f}", class_="value"))
        shares = ", ".join(f"{name} {getattr(split, name):.2f}" for name in kinds)
        tip = f"{split.label}\n{split.total:.2f} ms per token: {shares}"
        body.append(svg.mark(split.label, split.exactness, tip, parts))
        values = [*(getattr(split, name) for name in kinds), split.total]
        numbers = [Cell(f"{value:.3f}", value) for value in values]
        lines.append(Line((Cell(split.label), *numbers), split.label, split.exactness))
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
    columns = (Column("method", False), *(Column(name) for name in kinds), Column("all"))
    return Chart(
        "time",
        title,
        "Mean time of a verification round over the tokens that a round emits; prefill is left "
        f"out. {note}",
        (Panel(svg.drawing("time-chart", title, description, (WIDTH, height), body)),),
        Table("Milliseconds per token as numbers", columns, tuple(lines)),
        tuple((name, f"part-{name}") for name in kinds),
    )


def histogram_chart(histograms: Sequence[LengthHistogram]) -> Chart | None:
    """Return a small histogram of accepted draft tokens for each method."""
    if not histograms:
        return None
    most = min(max(len(found.shares) for found in histograms), _MOST_BARS + 1)
    highest = max(max(_gathered(found.shares)) for found in histograms)
    panels = tuple(
        Panel(_histogram(place, found, most, highest), found.label, found.exactness)
        for place, found in enumerate(histograms)
    )
    columns = (
        Column("method", False),
        Column("rounds"),
        Column("MAL"),
        *(Column(_bar_name(place, most)) for place in range(most)),
    )
    lines = []
    for found in histograms:
        shares = _gathered(found.shares)
        cells = [Cell(found.label), Cell(str(found.rounds), found.rounds)]
        cells.append(Cell(words.number(found.mal), found.mal))
        cells += [Cell(_share(share), share) for share in shares]
        cells += [Cell("", -1.0)] * (most - len(shares))
        lines.append(Line(tuple(cells), found.label, found.exactness))
    return Chart(
        "histogram",
        "Accepted draft tokens per verification round",
        "Share of the rounds that accepted 0, 1, 2, ... draft tokens, before the bonus token; all "
        f"panels have the same axes, the last bar holds {_MOST_BARS} and more. MAL is the mean "
        "acceptance length, bonus included.",
        panels,
        Table("Shares of rounds by accepted draft tokens", columns, tuple(lines)),
    )


def _histogram(place: int, found: LengthHistogram, most: int, highest: float) -> Markup:
    width, height = _PANEL
    left, right, top, bottom = 6.0, width - 6, 38.0, height - 18
    scale = svg.Scale(0.0, highest, bottom, top)
    step = (right - left) / most
    mal = "" if found.mal is None else f"MAL {found.mal:.2f}"
    body = [
        svg.text(left, 14, svg.fitted(found.label, right - left), class_="name"),
        svg.text(left, 29, f"{mal} · {found.rounds} rounds".lstrip(" ·"), class_="small"),
        svg.line(left, bottom, right, bottom, "axis"),
    ]
    shares = _gathered(found.shares)
    for number, share in enumerate(shares):
        x, y = left + step * number, scale(share)
        name = _bar_name(number, len(shares)) if len(found.shares) > len(shares) else str(number)
        bar = svg.rect(x + step * 0.12, y, step * 0.76, bottom - y, f"bar {found.exactness}")
        parts = [svg.rect(x, top, step, bottom - top, "hit"), bar]
        tip = f"{found.label}\n{name} accepted: {_share(share)} of rounds"
        body.append(svg.group([svg.element("title", tip), *parts], class_="tip"))
    every = 1 if most <= 9 else 2 if most <= 18 else 4
    body += [
        svg.text(left + step * (number + 0.5), height - 5, str(number), "middle", "small")
        for number in range(0, most, every)
    ]
    description = "; ".join(f"{number}: {_share(share)}" for number, share in enumerate(shares))
    key = f"histogram-{place}"
    title = f"{found.label}: share of rounds by accepted draft tokens"
    return svg.drawing(key, title, description, _PANEL, body)


def _gathered(shares: Sequence[float]) -> list[float]:
    """Return the shares, those beyond the last bar added to it."""
    if len(shares) <= _MOST_BARS + 1:
        return list(shares)
    return [*shares[:_MOST_BARS], sum(shares[_MOST_BARS:])]


def _bar_name(place: int, count: int) -> str:
    return f"{place}+" if place == _MOST_BARS and count == _MOST_BARS + 1 else str(place)


def position_table(curves: Sequence[PositionCurve]) -> Table | None:
    """Return acceptance by draft position as a table whose cells are shaded by their values."""
    if not curves:
        return None
    most = min(max(len(curve.rates) for curve in curves), _MOST_POSITIONS)
    columns = [Column("method", False)]
    columns += [Column(str(position + 1)) for position in range(most)]
    lines = []
    for curve in curves:
        cells = [
            Cell(_share(rate), rate, f"heat h{round(10 * rate)}") for rate in curve.rates[:most]
        ]
        cells += [Cell("", -1.0)] * (most - len(cells))
        lines.append(Line((Cell(curve.label), *cells), curve.label, curve.exactness))
    caption = (
        "Chance that the draft token at position 1, 2, 3, ... is accepted, given that all "
        "earlier ones were; darker is more often."
    )
    return Table(caption, tuple(columns), tuple(lines))


def _share(value: float) -> str:
    percent = 100 * value
    return f"{percent:.1f}%" if 0 < percent < 0.95 else f"{percent:.0f}%"


def _label_width(labels: Sequence[str]) -> float:
    longest = max(len(label) for label in labels)
    return min(260.0, longest * svg.TEXT_WIDTH + 4)


def _grid(scale: svg.Scale, height: float, unit: str, suffix: str = "") -> Markup:
    lines = []
    for value in svg.ticks(scale, 9):
        x = scale(value)
        name = svg.number(value) + (unit if suffix == "" else suffix)
        lines.append(svg.line(x, _TOP - 4, x, height - 4, "grid"))
        lines.append(svg.text(x, _TOP - 10, name, "middle", "tick"))
    return svg.group(lines, class_="axes")
