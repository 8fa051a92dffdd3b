"""A metric over revisions in a terminal, as CSV and as JSON.

Each line draws its interval on one scale for its series, so that a glance down the column shows
where the value moved.
"""

from __future__ import annotations

import csv as csv_module
import io
import json
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from specbench.compare.comparison import BETTER, INCONCLUSIVE, WORSE
from specbench.compare.history import History, Point, Series
from specbench.report import words
from specbench.report.csv import cell
from specbench.report.grid import grid, wrapped
from specbench.report.json import plain

FORMAT = 1
"""Version of the JSON's keys."""

CHANGED = "changed"

_STYLES = {BETTER: "green", WORSE: "bold red", CHANGED: "bold yellow"}
_BARS = "▁▂▃▄▅▆▇█"
_NARROWEST_PLOT = 12
_WIDEST_PLOT = 40


def render(history: History, width: int = 100) -> RenderableType:
    """Return a history as something that a rich console prints.

    Args:
        history: What to show.
        width: Columns of the terminal.
    """
    unit = f" ({history.unit})" if history.unit else ""
    direction = "" if history.better == "neither" else f", {history.better} is better"
    parts: list[RenderableType] = [
        Text(f"{history.metric}: {history.title}{unit}{direction}", style="bold")
    ]
    for series in history.series:
        title = Text.assemble((series.method, "bold cyan"), f"  {series.task}  ")
        title.append(spark(series), style="cyan")
        parts.extend([Text(), title, wrapped(series.setting, width, "dim")])
        parts.append(_table(series, history, width))
    legend = "change: against the line above, on the samples of both (?: inconclusive)."
    if any(p.revision.dirty for series in history.series for p in series.points):
        legend += " +: behind a revision: with uncommitted changes."
    parts.extend([Text(), wrapped(legend, width, "dim")])
    parts += [wrapped(f"! {text}", width, "yellow") for text in history.warnings]
    return Group(*parts)


def to_json(history: History) -> str:
    """Return a history as indented JSON; keys are the field names of `History` and its parts."""
    values = {"format": FORMAT, **plain(history)}
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def csv(history: History) -> str:
    """Return a history as CSV, one line a point; an absent value is empty."""
    lines = [_line(history, series, point) for series in history.series for point in series.points]
    text = io.StringIO()
    writer = csv_module.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _line(history: History, series: Series, point: Point) -> dict[str, object]:
    change = point.change
    low, high = point.interval or ("", "")
    moved_low, moved_high = change.interval if change and change.interval else ("", "")
    return {
        "method": cell(series.method),
        "task": cell(series.task),
        "setting": cell(series.setting),
        "metric": history.metric,
        "revision": cell(point.revision.name),
        "commit": point.revision.commit,
        "dirty": point.revision.dirty,
        "date": datetime.fromtimestamp(point.revision.unix, UTC).isoformat(),
        "value": point.value,
        "low": low,
        "high": high,
        "n": point.samples,
        "files": point.files,
        "change": change.value if change else "",
        "change_low": moved_low,
        "change_high": moved_high,
        "relative": change.relative if change else "",
        "verdict": point.verdict,
        "note": point.note,
    }


def spark(series: Series) -> str:
    """Return one block a point, the higher the greater; empty for fewer than two points."""
    values = [point.value for point in series.points]
    if len(values) < 2:
        return ""
    low, span = min(values), max(values) - min(values)
    if span == 0:
        return _BARS[3] * len(values)
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in values)


def drawn(point: Point, low: float, high: float, width: int) -> str:
    """Return a point on a scale: its value as a dot on the line of its interval.

    Args:
        point: The point.
        low: Value of the first column.
        high: Value of the last column.
        width: Number of columns.
    """

    def column(value: float) -> int:
        share = 0.5 if high <= low else (value - low) / (high - low)
        return min(width - 1, max(0, round(share * (width - 1))))

    cells = [" "] * width
    if point.interval is not None:
        first, last = column(point.interval.low), column(point.interval.high)
        cells[first : last + 1] = "─" * (last - first + 1)
    cells[column(point.value)] = "●"
    return "".join(cells)


def _table(series: Series, history: History, width: int) -> Table:
    table = grid()
    rows = [_cells(point, history) for point in series.points]
    headers = ("revision", "date", "n", "value", "change")
    used = sum(max(map(len, column)) + 2 for column in zip(headers, *rows, strict=True))
    room = min(_WIDEST_PLOT, width - used - 1)
    for header in headers:
        table.add_column(header, justify="right" if header == "n" else "left", no_wrap=True)
    ends = [end for point in series.points for end in (point.interval or (point.value,))]
    if room >= _NARROWEST_PLOT:
        table.add_column(f"{_number(min(ends))} .. {_number(max(ends))}", no_wrap=True)
    for point, cells in zip(series.points, rows, strict=True):
        style = _STYLES.get(point.verdict, "")
        texts = [Text(cell) for cell in cells[:-1]] + [Text(cells[-1], style=style)]
        if room >= _NARROWEST_PLOT:
            texts.append(Text(drawn(point, min(ends), max(ends), room), style=style or "cyan"))
        table.add_row(*texts)
    return table


def _cells(point: Point, history: History) -> tuple[str, ...]:
    when = datetime.fromtimestamp(point.revision.unix, UTC)
    scale = 2**20 if history.unit == "bytes" else 1
    value = _number(point.value / scale) + (" MiB" if scale > 1 else "")
    if point.interval is not None:
        low, high = (_number(end / scale) for end in point.interval)
        value += f" [{low}, {high}]"
    return point.revision.name, f"{when:%Y-%m-%d}", str(point.samples), value, _moved(point)


def _moved(point: Point) -> str:
    if point.change is None:
        return point.note or words.NOTHING
    value = point.change.value
    if point.change.relative:
        shown = f"{100 * value:+.1f}%" if abs(value) >= 0.0005 else "0.0%"
    else:
        shown = f"{value:+.3g}" if value else "0"
    return f"{shown} {'?' if point.verdict == INCONCLUSIVE else point.verdict}"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
