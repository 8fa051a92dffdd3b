"""Charts of two values a method: quality against speed, predicted against observed speedup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from specbench.report import words
from specbench.report.figures import Prediction, Trade, TradePoint, clipped_ends
from specbench.report.html import svg
from specbench.report.html.bars import class_keys
from specbench.report.html.chart import WIDTH, Chart, Panel
from specbench.report.html.tables import Cell, Column, Line, Table

_HEIGHT = 420.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, WIDTH - 24.0, 20.0, _HEIGHT - 46.0
_BOLD = 7.4
"""Pixels that a character of a bold name takes at most, on average."""

_LABELLED = 12
"""Points that are named in a chart at most; the table names all."""


class _Spot(NamedTuple):
    """A point in pixels and the name that it should have."""

    x: float
    y: float
    label: str


def trade_chart(trade: Trade) -> Chart:
    """Return quality against speed under one measure, better always up and to the right."""
    qualities = [
        value
        for point in trade.points
        for value in (point.quality, point.low, point.high)
        if value is not None
    ]
    across = svg.log_scale([point.speedup for point in trade.points], _LEFT, _RIGHT)
    ends = (_BOTTOM, _TOP) if trade.higher_is_better else (_TOP, _BOTTOM)
    floor = [] if trade.floor is None else [trade.floor]
    up = svg.linear_scale([*qualities, *floor], *ends)
    better = "higher" if trade.higher_is_better else "lower"
    body = [_axes(across, up, "speedup, end to end", f"{trade.axis} ({better} is better)")]
    if trade.floor is not None:
        y = up(trade.floor)
        body.append(svg.line(_LEFT, y, _RIGHT, y, "one"))
        note = f"floor {trade.floor:.3g}: as many real pictures"
        body.append(svg.text(_RIGHT, y - 5, note, "end", "small"))
    body.append(_frontier(trade, across, up))
    for point in sorted(trade.points, key=lambda point: (point.is_baseline, point.on_frontier)):
        body.append(_trade_mark(point, across, up))
    named = [point for point in trade.points if point.on_frontier or point.is_baseline]
    spots = [_Spot(across(point.speedup), up(point.quality), point.label) for point in named]
    body += _names(spots[:_LABELLED])
    title = f"Quality against speed: {trade.name}"
    best = ", ".join(point.label for point in trade.points if point.on_frontier)
    description = f"{len(trade.points)} arms. On the frontier: {best}."
    key = f"trade-{trade.name}"
    drawing = svg.drawing(f"{key}-chart", title, description, (WIDTH, _HEIGHT), body)
    return Chart(
        key,
        title,
        f"Better is up and to the right. On the line: {best}; no other arm's estimate is at "
        "least as fast and as good. Intervals may overlap: a place on the line is no verdict.",
        (Panel(drawing),),
        _trade_table(trade),
        (*class_keys(trade.points), ("baseline", "baseline")),
    )


def _trade_mark(point: TradePoint, across: svg.Scale, up: svg.Scale) -> Markup:
    x, y = across(point.speedup), up(point.quality)
    parts = []
    interval = ""
    if point.low is not None and point.high is not None:
        parts.append(svg.line(x, up(point.low), x, up(point.high), f"whisker {point.exactness}"))
        interval = f" [{point.low:.3g}, {point.high:.3g}]"
    if point.is_baseline:
        parts.append(svg.cross(x, y))
    else:
        parts.append(svg.marker(x, y, point.exactness, not point.on_frontier))
    tip = (
        f"{point.label} ({point.exactness})\nspeedup {point.speedup:.2f}x\n"
        f"quality {point.quality:.3g}{interval}"
    )
    return svg.mark(point.label, point.exactness, tip, parts)


def _frontier(trade: Trade, across: svg.Scale, up: svg.Scale) -> Markup:
    """Return the frontier as steps: what lies under it is beaten by a corner."""
    best = sorted(
        ((p.speedup, p.quality) for p in trade.points if p.on_frontier), key=lambda pair: pair[0]
    )
    corners = [(across(speed), up(quality)) for speed, quality in best]
    path = f"M{_LEFT:.1f} {corners[0][1]:.1f}H{corners[0][0]:.1f}"
    path += "".join(f"V{y:.1f}H{x:.1f}" for x, y in corners[1:])
    return svg.element("path", d=f"{path}V{_BOTTOM:.1f}", class_="frontier")


def _trade_table(trade: Trade) -> Table:
    columns = (
        Column("arm", False),
        Column("class", False),
        Column("speedup"),
        Column(trade.axis),
        Column("95% from"),
        Column("to"),
        Column("frontier", False),
    )
    lines = []
    for point in trade.points:
        cells = (
            Cell(point.label),
            Cell(point.exactness),
            Cell(f"{point.speedup:.3f}", point.speedup),
            Cell(f"{point.quality:.4g}", point.quality),
            Cell(words.NOTHING if point.low is None else f"{point.low:.4g}", point.low),
            Cell(words.NOTHING if point.high is None else f"{point.high:.4g}", point.high),
            Cell("yes" if point.on_frontier else "no"),
        )
        lines.append(Line(cells, point.label, point.exactness, point.is_baseline))
    return Table(f"Speed and {trade.name} as numbers", columns, tuple(lines))


def prediction_chart(predictions: Sequence[Prediction]) -> Chart | None:
    """Return predicted against observed decode speedups, None where none is known."""
    if not predictions:
        return None
    values = [value for found in predictions for value in (found.predicted, found.observed)]
    ends = clipped_ends(values, [end for found in predictions for end in (found.low, found.high)])
    across = svg.log_scale(ends, _LEFT, _RIGHT)
    up = svg.log_scale(ends, _BOTTOM, _TOP)
    body = [
        _axes(across, up, "predicted from acceptance and cost", "observed, decode only"),
        svg.line(_LEFT, _BOTTOM, _RIGHT, _TOP, "one"),
        svg.text(_RIGHT - 8, _TOP + 34, "as predicted", "end", "small"),
    ]
    for found in predictions:
        body.append(_prediction_mark(found, across, up))
    farthest = sorted(predictions, key=lambda found: -abs(found.overhead or 0.0))[:_LABELLED]
    body += _names(
        [_Spot(across(found.predicted), up(found.observed), found.label) for found in farthest]
    )
    title = "Predicted against observed decode speedup"
    description = (
        f"{len(predictions)} methods; on the diagonal the prediction holds, below it the "
        "difference is overhead. The table below holds all values."
    )
    return Chart(
        "prediction",
        title,
        "What a round yields over what its forwards take, against what was measured; prefill is "
        "left out of both. Below the diagonal lies overhead: work of the host that neither "
        "model's time contains.",
        (Panel(svg.drawing("prediction-chart", title, description, (WIDTH, _HEIGHT), body)),),
        _prediction_table(predictions),
        class_keys(predictions),
    )


def _prediction_mark(found: Prediction, across: svg.Scale, up: svg.Scale) -> Markup:
    x = across(found.predicted)
    parts = []
    if found.low is not None and found.high is not None:
        parts.append(svg.line(x, up(found.low), x, up(found.high), f"whisker {found.exactness}"))
    parts.append(svg.marker(x, up(found.observed), found.exactness))
    tip = (
        f"{found.label} ({found.exactness})\npredicted {found.predicted:.2f}x, "
        f"observed {found.observed:.2f}x\noverhead {words.percent(found.overhead)}"
    )
    return svg.mark(found.label, found.exactness, tip, parts)


def _prediction_table(predictions: Sequence[Prediction]) -> Table:
    columns = (
        Column("method", False),
        Column("class", False),
        Column("predicted"),
        Column("observed"),
        Column("overhead"),
    )
    lines = tuple(
        Line(
            (
                Cell(found.label),
                Cell(found.exactness),
                Cell(f"{found.predicted:.3f}", found.predicted),
                Cell(f"{found.observed:.3f}", found.observed),
                Cell(words.percent(found.overhead), found.overhead),
            ),
            found.label,
            found.exactness,
        )
        for found in predictions
    )
    return Table("Predicted and observed decode speedups as numbers", columns, lines)


def _axes(across: svg.Scale, up: svg.Scale, x_name: str, y_name: str) -> Markup:
    parts = []
    for value in svg.ticks(across, 10):
        x = across(value)
        parts.append(svg.line(x, _TOP, x, _BOTTOM, "grid"))
        parts.append(svg.text(x, _BOTTOM + 17, f"{svg.number(value)}x", "middle", "tick"))
    suffix = "x" if up.log else ""
    for value in svg.ticks(up, 8):
        y = up(value)
        parts.append(svg.line(_LEFT, y, _RIGHT, y, "grid"))
        parts.append(svg.text(_LEFT - 7, y + 4, svg.number(value) + suffix, "end", "tick"))
    parts.append(svg.text((_LEFT + _RIGHT) / 2, _HEIGHT - 8, x_name, "middle", "axis-name"))
    turned = svg.element(
        "text",
        y_name,
        transform=f"translate(14 {(_TOP + _BOTTOM) / 2:.0f}) rotate(-90)",
        text_anchor="middle",
        class_="axis-name",
    )
    return svg.group([*parts, turned], class_="axes")


def _names(spots: Sequence[_Spot]) -> list[Markup]:
    """Return the spots' names beside them, without those that would lie on another's."""
    placed: list[tuple[float, float, float]] = []
    drawn = []
    for spot in spots:
        width = len(spot.label) * _BOLD
        for sideways, down in ((9.0, 4.0), (9.0, -9.0), (-9.0, 4.0), (-9.0, -9.0), (9.0, 17.0)):
            right = sideways > 0
            left, y = spot.x + sideways - (0.0 if right else width), spot.y + down
            inside = left >= _LEFT and left + width <= WIDTH - 2 and _TOP < y < _BOTTOM
            if inside and not any(_overlap(left, y, width, *other) for other in placed):
                placed.append((left, y, width))
                anchor = "start" if right else "end"
                drawn.append(svg.text(spot.x + sideways, y, spot.label, anchor, "name"))
                break
    return drawn


def _overlap(x: float, y: float, width: float, left: float, base: float, wide: float) -> bool:
    return abs(y - base) < 13 and x < left + wide and left < x + width
