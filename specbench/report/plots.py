"""Plots for papers: PNG and SVG by matplotlib, the same bytes for the same results.

Widths are those of one and of two columns, the letters of an SVG are paths, so that they look the
same everywhere, no title stands in the plot, and classes differ by shape as well as by colour.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from specbench.compare.comparison import Comparison, ComparisonRow
from specbench.errors import ResultsError
from specbench.report import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SINGLE, DOUBLE = 3.3, 6.9
"""Inches of one column and of two."""

MOST_LINES = 8
"""Methods of a plot whose lines would otherwise hide each other; the fastest ones are shown."""

COLORS = {"exact": "#0072B2", "greedy": "#009E73", "lossy": "#D55E00", "unknown": "#595F69"}
MARKERS = {"exact": "o", "greedy": "s", "lossy": "^", "unknown": "D"}
PARTS = {"draft": "#E69F00", "target": "#0072B2", "sampling": "#CC79A7", "host": "#9AA0A8"}
_CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
_DASHES = ("-", "--", "-.", ":")

_STYLE: dict[str, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "specbench",
    "text.usetex": False,
    "text.parse_math": False,
    "figure.dpi": 100,
    "savefig.dpi": 300,
}

_TICKS = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 7, 10, 20, 50, 100)


def draw(comparison: Comparison) -> dict[str, bytes]:
    """Return every plot that a comparison has values for, by file name.

    Args:
        comparison: The comparison; its last section, which pools the others, is drawn.

    Raises:
        ResultsError: If there is nothing to plot.
    """
    import matplotlib

    rows = comparison.section(comparison.sections[-1])
    drawn: dict[str, bytes] = {}
    style: dict[Any, Any] = {**matplotlib.rcParamsDefault, **_STYLE, "backend": "Agg"}
    with matplotlib.rc_context(style):
        for name, plot in _plots(rows).items():
            figure = plot()
            if figure is None:
                continue
            for kind in ("png", "svg"):
                drawn[f"{name}.{kind}"] = _saved(figure, kind)
    if not drawn:
        raise ResultsError(
            "There is nothing to plot",
            "the files hold neither a speedup nor a verification round",
            "Measure a method with its baseline: specbench run method=NAME baseline=ar.",
        )
    return drawn


def _plots(rows: Sequence[ComparisonRow]) -> dict[str, Callable[[], Figure | None]]:
    plots: dict[str, Callable[[], Figure | None]] = {
        "speedup": lambda: _speedup(figures.speedups(rows)),
        "acceptance_histogram": lambda: _histogram(figures.histograms(rows)),
        "acceptance_by_position": lambda: _positions(figures.position_curves(rows)),
        "time_split": lambda: _time(figures.time_splits(rows)),
        "predicted_speedup": lambda: _prediction(figures.predictions(rows)),
    }
    for trade in figures.trades(rows):
        plots[f"quality_{_file_name(trade.name)}"] = partial(_trade, trade)
    return plots


def _saved(figure: Figure, kind: str) -> bytes:
    stream = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None} if kind == "png" else {"Date": None}
    if kind == "svg":
        metadata["Creator"] = "specbench"
    figure.savefig(stream, format=kind, metadata=metadata)
    return stream.getvalue()


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _speedup(marks: Sequence[figures.SpeedupMark]) -> Figure | None:
    if not marks:
        return None
    width = SINGLE if len(marks) <= 12 else DOUBLE
    figure, axes = _figure(width, 0.6 + 0.17 * len(marks))
    for place, mark in enumerate(reversed(marks)):
        if mark.floor is not None:
            span = [place - 0.32, place + 0.32]
            axes.fill_betweenx(span, 1 / mark.floor, mark.floor, color="#C9CED6", lw=0)
        color, marker = COLORS[mark.exactness], MARKERS[mark.exactness]
        if mark.low is not None and mark.high is not None:
            axes.plot([mark.low, mark.high], [place, place], color=color, lw=1.1)
        filled = mark.verdict in ("better", "worse")
        face = color if filled else "white"
        axes.plot(mark.value, place, marker, color=color, mfc=face, ms=4, mew=1)
    axes.axvline(1, color="black", lw=0.7, ls=(0, (4, 3)))
    found = [mark.value for mark in marks]
    ends = figures.clipped_ends(found, [end for m in marks for end in (m.low, m.high)])
    axes.set_xlim(min(1.0, *ends) / 1.05, max(1.0, *ends) * 1.05)
    axes.set_yticks(range(len(marks)), [mark.label for mark in reversed(marks)])
    axes.set_ylim(-0.7, len(marks) - 0.3)
    axes.grid(axis="y", visible=False)
    _ratio_axis(axes, "x")
    axes.set_xlabel("speedup, end to end")
    _class_legend(axes, {mark.exactness for mark in marks})
    return figure


def _histogram(found: Sequence[figures.LengthHistogram]) -> Figure | None:
    shown = found[:MOST_LINES]
    if not shown:
        return None
    figure, axes = _figure(SINGLE, 2.2)
    for place, item in enumerate(shown):
        lengths = range(len(item.shares))
        axes.plot(lengths, item.shares, drawstyle="steps-mid", label=item.label, **_line(place))
    axes.set_xlabel("accepted draft tokens in a round")
    axes.set_ylabel("share of rounds")
    axes.set_ylim(bottom=0)
    _whole_numbers(axes)
    axes.legend(handlelength=2.4)
    return figure


def _positions(found: Sequence[figures.PositionCurve]) -> Figure | None:
    shown = found[:MOST_LINES]
    if not shown:
        return None
    figure, axes = _figure(SINGLE, 2.2)
    for place, item in enumerate(shown):
        positions = range(1, len(item.rates) + 1)
        axes.plot(positions, item.rates, marker=".", label=item.label, **_line(place))
    axes.set_xlabel("draft position")
    axes.set_ylabel("acceptance, earlier ones accepted")
    axes.set_ylim(0, 1.02)
    _whole_numbers(axes)
    axes.legend(handlelength=2.4)
    return figure


def _time(splits: Sequence[figures.TimeSplit]) -> Figure | None:
    if not splits:
        return None
    figure, axes = _figure(SINGLE if len(splits) <= 12 else DOUBLE, 0.6 + 0.17 * len(splits))
    places = list(range(len(splits)))[::-1]
    start = [0.0] * len(splits)
    for part in figures.work_of(splits):
        color = PARTS[part]
        values = [getattr(split, part) for split in splits]
        axes.barh(places, values, 0.7, left=start, color=color, label=part)
        start = [low + value for low, value in zip(start, values, strict=True)]
    axes.set_yticks(places, [split.label for split in splits])
    axes.set_ylim(-0.7, len(splits) - 0.3)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("milliseconds per token")
    axes.legend(ncols=4, loc="lower right", bbox_to_anchor=(1, 1))
    return figure


def _trade(trade: figures.Trade) -> Figure | None:
    figure, axes = _figure(SINGLE, 2.5)
    for point in trade.points:
        color, marker = COLORS[point.exactness], MARKERS[point.exactness]
        if point.low is not None and point.high is not None:
            axes.plot([point.speedup] * 2, [point.low, point.high], color=color, lw=0.7, alpha=0.4)
        if point.is_baseline:
            axes.plot(point.speedup, point.quality, "x", color="black", ms=5, mew=1.4, zorder=4)
            continue
        face = color if point.on_frontier else "white"
        axes.plot(point.speedup, point.quality, marker, color=color, mfc=face, ms=4.5, mew=1)
    best = sorted((p.speedup, p.quality, p.label) for p in trade.points if p.on_frontier)
    speeds, qualities = [b[0] for b in best], [b[1] for b in best]
    axes.step(speeds, qualities, where="pre", color="#666666", lw=0.8, zorder=1)
    for speed, quality, label in best[:MOST_LINES]:
        axes.annotate(
            label, (speed, quality), (3, 4), textcoords="offset points", fontsize=6, clip_on=False
        )
    if trade.floor is not None:
        axes.axhline(trade.floor, color="black", lw=0.7, ls=(0, (4, 3)))
    if not trade.higher_is_better:
        axes.invert_yaxis()
    _ratio_axis(axes, "x")
    axes.set_xlabel("speedup, end to end")
    better = "higher" if trade.higher_is_better else "lower"
    axes.set_ylabel(f"{trade.axis}\n({better} is better)")
    _class_legend(axes, {point.exactness for point in trade.points})
    return figure


def _prediction(found: Sequence[figures.Prediction]) -> Figure | None:
    if not found:
        return None
    figure, axes = _figure(SINGLE, 2.8)
    for item in found:
        color, marker = COLORS[item.exactness], MARKERS[item.exactness]
        if item.low is not None and item.high is not None:
            axes.plot([item.predicted] * 2, [item.low, item.high], color=color, lw=0.7, alpha=0.5)
        axes.plot(item.predicted, item.observed, marker, color=color, ms=4)
    ends = [value for item in found for value in (item.predicted, item.observed)]
    diagonal = [min(ends) * 0.95, max(ends) * 1.05]
    shown = figures.clipped_ends(ends, [end for item in found for end in (item.low, item.high)])
    axes.set_ylim(min(shown) / 1.05, max(shown) * 1.05)
    axes.plot(diagonal, diagonal, color="black", lw=0.7, ls=(0, (4, 3)), zorder=1)
    _ratio_axis(axes, "x")
    _ratio_axis(axes, "y")
    axes.set_xlabel("predicted decode speedup")
    axes.set_ylabel("observed decode speedup")
    _class_legend(axes, {item.exactness for item in found})
    return figure


def _ratio_axis(axes: Axes, which: str) -> None:
    """Make an axis logarithmic with ticks at round ratios."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    inside = [tick for tick in _TICKS if low <= tick <= high]
    while len(inside) > 8:
        inside = [tick for place, tick in enumerate(inside) if tick == 1 or place % 2]
    axis.set_major_locator(FixedLocator(inside))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))


def _class_legend(axes: Axes, present: set[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=COLORS[name], marker=MARKERS[name], ls="", ms=4, label=name)
        for name in figures.EXACTNESS
        if name in present
    ]
    axes.legend(handles=handles, ncols=4, loc="lower right", bbox_to_anchor=(1, 1), borderpad=0)


def _line(place: int) -> dict[str, Any]:
    """Return a line's colour and dashes: no two of the lines shown share both."""
    return {
        "color": _CYCLE[place % len(_CYCLE)],
        "ls": _DASHES[place % len(_DASHES)],
        "lw": 1.1,
    }


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def _file_name(name: str) -> str:
    """Return a name that any file system takes."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in name)[:60]
