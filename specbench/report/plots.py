"""Every chart, drawn once by matplotlib: SVG inside of the page, PNG and SVG for papers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from specbench.compare.comparison import BETTER, WORSE, Comparison
from specbench.errors import ResultsError
from specbench.report import figures, words
from specbench.report.drawing import DASHED, PAPER, Chart, Look, Mark, fitted, style

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

MOST_LINES = 8
"""Methods of a plot whose lines would otherwise hide each other; the fastest ones are shown."""

_CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
_DASHES = ("-", "--", "-.", ":")


def draw(comparison: Comparison) -> dict[str, bytes]:
    """Return every plot for papers that a comparison has values for, by file name.

    Args:
        comparison: The comparison; its last section, which pools the others, is drawn.

    Raises:
        ResultsError: If there is nothing to plot.
    """
    rows = comparison.section(comparison.sections[-1])
    plots: dict[str, Callable[[Look], Chart | None]] = {
        "speedup": partial(speedups, figures.speedups(rows)),
        "acceptance_histogram": partial(histograms, figures.histograms(rows)),
        "acceptance_by_position": partial(positions, figures.position_curves(rows)),
        "time_split": partial(times, figures.time_splits(rows)),
        "predicted_speedup": partial(predictions, figures.predictions(rows)),
    }
    for found in figures.trades(rows):
        plots[f"quality_{_file_name(found.name)}"] = partial(trade, found)
    drawn: dict[str, bytes] = {}
    with style(PAPER):
        for name, plot in plots.items():
            chart = plot(PAPER)
            if chart is not None:
                drawn |= {f"{name}.{kind}": chart.saved(kind) for kind in ("png", "svg")}
    if not drawn:
        raise ResultsError(
            "There is nothing to plot",
            "the files hold neither a speedup nor a verification round",
            "Measure a method with its baseline: specbench run method=NAME baseline=ar.",
        )
    return drawn


def speedups(marks: Sequence[figures.SpeedupMark], look: Look) -> Chart | None:
    """Draw speedups with intervals and noise floors; a hollow shape has no better or worse."""
    if not marks:
        return None
    chart = _rows_of(look, len(marks))
    axes, colors = chart.axes, look.colors
    ends = figures.clipped_ends(
        [mark.value for mark in marks], [end for mark in marks for end in (mark.low, mark.high)]
    )
    low, high = min(1.0, *ends) / 1.05, max(1.0, *ends) * 1.05
    axes.set_xlim(low, high)
    axes.axvline(1, color=colors["ink"], lw=0.7, ls=DASHED)
    for place, mark in enumerate(reversed(marks)):
        drawn: list[Artist] = []
        if look.page:
            drawn.append(axes.axhspan(place - 0.5, place + 0.5, color=colors["hit"], lw=0))
        if mark.floor is not None:
            span = [place - 0.32, place + 0.32]
            left, right = max(low, 1 / mark.floor), min(high, mark.floor)
            drawn.append(axes.fill_betweenx(span, left, right, color=colors["floor"], lw=0))
        if mark.low is not None and mark.high is not None:
            reach = [max(low, mark.low), min(high, mark.high)]
            drawn += axes.plot(reach, [place, place], color=colors[mark.exactness], lw=1.1)
        drawn.append(
            chart.point(mark.value, place, mark.exactness, mark.verdict in (BETTER, WORSE))
        )
        said = figures.interval_in_words(mark.value, mark.low, mark.high)
        if look.page:
            drawn.append(_beside(axes, place, said))
        floor = "not measured" if mark.floor is None else f"±{100 * (mark.floor - 1):.1f}%"
        tip = f"{mark.label} ({mark.exactness})\n{said}\n{mark.verdict}, floor {floor}"
        chart.add(Mark(mark.label, mark.exactness, tip), drawn)
    chart.rows([mark.label for mark in marks])
    chart.ratios("x")
    axes.set_xlabel("speedup, end to end")
    chart.classes({mark.exactness for mark in marks})
    return chart


def times(splits: Sequence[figures.TimeSplit], look: Look) -> Chart | None:
    """Draw milliseconds per token by kind of work as stacked bars."""
    if not splits:
        return None
    chart = _rows_of(look, len(splits))
    axes, kinds = chart.axes, figures.work_of(splits)
    for place, split in enumerate(reversed(splits)):
        drawn: list[Artist] = []
        if look.page:
            drawn.append(axes.axhspan(place - 0.5, place + 0.5, color=look.colors["hit"], lw=0))
        start = 0.0
        for kind in kinds:
            value = getattr(split, kind)
            drawn += axes.barh(place, value, 0.7, left=start, color=look.colors[kind], label=kind)
            start += value
        if look.page:
            drawn.append(_beside(axes, place, f"{split.total:.2f}"))
        shares = ", ".join(f"{kind} {getattr(split, kind):.2f}" for kind in kinds)
        tip = f"{split.label}\n{split.total:.2f} ms per token: {shares}"
        chart.add(Mark(split.label, split.exactness, tip), drawn)
    chart.rows([split.label for split in splits])
    axes.set_xlabel("milliseconds per token")
    if not look.page:
        handles, labels = axes.get_legend_handles_labels()
        known = dict(zip(labels, handles, strict=True))
        axes.legend(known.values(), known, ncols=4, loc="lower right", bbox_to_anchor=(1, 1))
    return chart


def histograms(found: Sequence[figures.LengthHistogram], look: Look) -> Chart | None:
    """Draw the shares of rounds by accepted draft tokens as a line for each method."""
    if not found:
        return None
    chart = Chart.of(look, 2.2)
    for place, item in enumerate(found[:MOST_LINES]):
        lengths = range(len(item.shares))
        chart.axes.plot(
            lengths, item.shares, drawstyle="steps-mid", label=item.label, **_line(place)
        )
    chart.axes.set_ylim(bottom=0)
    return _lines(chart, "accepted draft tokens in a round", "share of rounds")


def histogram(
    found: figures.LengthHistogram, shares: Sequence[float], highest: float, most: int, look: Look
) -> Chart:
    """Draw one method's shares of rounds as bars.

    Args:
        found: The method.
        shares: The heights of the bars.
        highest: Height of the axis.
        most: Bars that there is room for.
        look: For whom.
    """
    chart = Chart.of(look, 1.15, 2.05)
    axes = chart.axes
    for place, share in enumerate(shares):
        bar = axes.bar(place, share, 0.76, color=look.colors[found.exactness])
        gathered = place == len(shares) - 1 and len(found.shares) > len(shares)
        name = f"{place}{'+' if gathered else ''}"
        tip = f"{found.label}\n{name} accepted: {figures.share(share)} of rounds"
        chart.add(Mark("", "", tip), list(bar))
    axes.set_xlim(-0.6, most - 0.4)
    axes.set_ylim(0, highest * 1.02)
    axes.set_yticks([])
    axes.set_xticks(range(0, most, 1 if most <= 9 else 2 if most <= 18 else 4))
    axes.grid(visible=False)
    mal = "" if found.mal is None else f"MAL {found.mal:.2f} · "
    axes.set_title(f"{fitted(found.label, 30)}\n{mal}{found.rounds} rounds", fontsize=7, loc="left")
    return chart


def positions(found: Sequence[figures.PositionCurve], look: Look) -> Chart | None:
    """Draw acceptance by draft position as a line for each method."""
    if not found:
        return None
    chart = Chart.of(look, 2.2)
    for place, item in enumerate(found[:MOST_LINES]):
        count = range(1, len(item.rates) + 1)
        chart.axes.plot(count, item.rates, marker=".", label=item.label, **_line(place))
    chart.axes.set_ylim(0, 1.02)
    return _lines(chart, "draft position", "acceptance, earlier ones accepted")


def trainings(found: Mapping[str, Sequence[tuple[int, float]]], look: Look) -> Chart:
    """Draw what checks on held-out prompts said while drafts were trained.

    Args:
        found: For each training, steps and the acceptance of a draft's first token after them.
        look: For whom.
    """
    chart = Chart.of(look, 2.4)
    for place, (label, checks) in enumerate(found.items()):
        steps, shares = zip(*checks, strict=True)
        chart.axes.plot(steps, shares, marker=".", label=label, **_line(place))
    chart.axes.set_ylim(0, 1.02)
    return _lines(chart, "step", "acceptance of the first token")


def trade(found: figures.Trade, look: Look) -> Chart:
    """Draw quality against speed, better always up; the frontier is a line of steps."""
    chart = Chart.of(look, 4.4 if look.page else 2.5)
    axes, colors = chart.axes, look.colors
    best = sorted((p.speedup, p.quality, p.label) for p in found.points if p.on_frontier)
    speeds, qualities = [b[0] for b in best], [b[1] for b in best]
    axes.step(speeds, qualities, where="pre", color=colors["dim"], lw=0.8, zorder=1)
    for point in found.points:
        drawn: list[Artist] = []
        interval = ""
        if point.low is not None and point.high is not None:
            ends = [point.low, point.high]
            color = colors[point.exactness]
            drawn += axes.plot([point.speedup] * 2, ends, color=color, lw=0.7, alpha=0.4)
            interval = f" [{point.low:.3g}, {point.high:.3g}]"
        if point.is_baseline:
            ink = colors["ink"]
            drawn += axes.plot(point.speedup, point.quality, "x", color=ink, ms=5, mew=1.4)
        else:
            drawn.append(
                chart.point(point.speedup, point.quality, point.exactness, point.on_frontier)
            )
        tip = (
            f"{point.label} ({point.exactness})\nspeedup {point.speedup:.2f}x\n"
            f"quality {point.quality:.3g}{interval}"
        )
        chart.add(Mark(point.label, point.exactness, tip), drawn)
    if found.floor is not None:
        axes.axhline(found.floor, color=colors["ink"], lw=0.7, ls=DASHED)
        note = f"floor {found.floor:.3g}: as many real pictures"
        axes.annotate(
            note,
            (1, found.floor),
            (0, 2),
            ("axes fraction", "data"),
            "offset points",
            ha="right",
            fontsize=6,
        )
    if not found.higher_is_better:
        axes.invert_yaxis()
    chart.ratios("x")
    axes.set_xlabel("speedup, end to end")
    better = "higher" if found.higher_is_better else "lower"
    axes.set_ylabel(f"{found.axis}\n({better} is better)")
    chart.classes({point.exactness for point in found.points})
    chart.names(best)
    return chart


def predictions(found: Sequence[figures.Prediction], look: Look) -> Chart | None:
    """Draw predicted against observed decode speedups, and the diagonal where they agree."""
    if not found:
        return None
    chart = Chart.of(look, 4.4 if look.page else 2.8)
    axes, colors = chart.axes, look.colors
    ends = [value for item in found for value in (item.predicted, item.observed)]
    shown = figures.clipped_ends(ends, [end for item in found for end in (item.low, item.high)])
    low, high = min(shown) / 1.05, max(shown) * 1.05
    diagonal = [min(ends) * 0.95, max(ends) * 1.05]
    axes.set_ylim(min(low, diagonal[0]), max(high, diagonal[1]))
    axes.plot(diagonal, diagonal, color=colors["ink"], lw=0.7, ls=DASHED, zorder=1)
    for item in found:
        drawn: list[Artist] = []
        if item.low is not None and item.high is not None:
            reach = [max(low, item.low), min(high, item.high)]
            color = colors[item.exactness]
            drawn += axes.plot([item.predicted] * 2, reach, color=color, lw=0.7, alpha=0.5)
        drawn.append(chart.point(item.predicted, item.observed, item.exactness))
        tip = (
            f"{item.label} ({item.exactness})\npredicted {item.predicted:.2f}x, "
            f"observed {item.observed:.2f}x\noverhead {words.percent(item.overhead)}"
        )
        chart.add(Mark(item.label, item.exactness, tip), drawn)
    chart.ratios("x")
    chart.ratios("y")
    axes.set_xlabel("predicted decode speedup")
    axes.set_ylabel("observed decode speedup")
    chart.classes({item.exactness for item in found})
    if look.page:
        far = sorted(found, key=lambda item: -abs(item.overhead or 0.0))
        chart.names([(item.predicted, item.observed, item.label) for item in far])
    return chart


def _rows_of(look: Look, count: int) -> Chart:
    width = look.single if count <= 12 else look.double
    return Chart.of(look, max(1.3, 0.6 + (0.22 if look.page else 0.17) * count), width)


def _beside(axes: Axes, place: int, text: str) -> Artist:
    """Write a row's value to the right of the axes."""
    where = axes.get_yaxis_transform()
    return axes.text(1.01, place, text, transform=where, va="center", fontsize=7.5)


def _lines(chart: Chart, x_name: str, y_name: str) -> Chart:
    from matplotlib.ticker import MaxNLocator

    chart.axes.set_xlabel(x_name)
    chart.axes.set_ylabel(y_name)
    chart.axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    chart.axes.legend(handlelength=2.4)
    return chart


def _line(place: int) -> dict[str, Any]:
    """Return a line's colour and dashes: no two of the lines shown share both."""
    dashes = _DASHES[place % len(_DASHES)]
    return {"color": _CYCLE[place % len(_CYCLE)], "ls": dashes, "lw": 1.1}


def _file_name(name: str) -> str:
    """Return a name that any file system takes."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in name)[:60]
