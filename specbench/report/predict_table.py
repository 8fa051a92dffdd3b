"""Predictions and their check in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from specbench.predict.speedup import BatchPrediction, Prediction
from specbench.report.grid import GAP, grid, sentence, wrapped
from specbench.report.predict import (
    CHECK_LEGEND,
    DETAIL_LEGEND,
    LEGEND,
    SHARE_LEGEND,
    CheckReport,
    Report,
    about,
    assumptions,
    check_cells,
    heading,
    limits,
    loses,
    no_shares,
    paying,
    reasons,
    share_cells,
    speedup,
    summary,
)

DETAILED = 3
"""Methods up to which each gets a table and a chart of its own."""

_BAR = 36
_LABEL = 40


def render(report: Report | CheckReport, width: int = 100, details: bool = False) -> RenderableType:
    """Return a prediction, or a check, as something that a rich console prints.

    Args:
        report: What to show.
        width: Columns of the terminal.
        details: A table and a chart for each predicted method, however many there are.
    """
    if isinstance(report, CheckReport):
        return _checked(report, width)
    parts: list[RenderableType] = [wrapped(heading(report.question), width, "bold"), Text()]
    if details or len(report.predictions) <= DETAILED:
        for prediction in report.predictions:
            parts.extend(_details(prediction, width))
        legend = DETAIL_LEGEND
    else:
        parts.extend([*_overview(report, width), Text()])
        legend = LEGEND
    parts.append(wrapped(f"{legend} {assumptions(report.question)}", width, "dim"))
    parts.extend(wrapped(text, width, "dim") for text in reasons(report.left_out))
    if report.warnings:
        parts.append(Text())
    parts.extend(sentence("!", text, "bold yellow", width) for text in report.warnings)
    return Group(*parts)


def _overview(report: Report, width: int) -> list[RenderableType]:
    """Return a table with a row for each method; batches that do not fit are named below it."""
    shown = [str(batch) for batch in report.question.batches]
    rows = [
        [
            Text(prediction.profile.label),
            _exactness(prediction.profile.method.exactness),
            Text(f"{prediction.batches[0].best.tokens:.2f}"),
            *map(_overview_cell, prediction.batches),
            Text(loses(prediction)),
        ]
        for prediction in report.ordered()
    ]
    header = ["method", "class", "tokens", *(f"batch {batch}" for batch in shown), "loses"]
    places = list(range(len(header)))
    while len(places) > 5 and _total_width(header, rows, places) > width:
        places.pop(-2)
    table = _table([header[place] for place in places], left=2)
    for row in rows:
        table.add_row(*(row[place] for place in places))
    left_out = shown[len(places) - 4 :]
    if not left_out:
        return [table]
    hint = f"Left out for want of width: batch {', '.join(left_out)}."
    return [table, wrapped(f"{hint} See it with --batch {','.join(left_out)}.", width)]


def _total_width(header: Sequence[str], rows: Sequence[Sequence[Text]], places: list[int]) -> int:
    total = 0
    for place in places:
        widest = max([cell_len(row[place].plain) for row in rows] + [cell_len(header[place])])
        total += min(widest, _LABEL) + GAP
    return total


def _overview_cell(batch: BatchPrediction) -> Text:
    style = "" if batch.fits else "dim"
    if batch.best.speedup < 1.0:
        style += " red"
    return Text(speedup(batch.best), style)


def _details(prediction: Prediction, width: int) -> list[RenderableType]:
    profile = prediction.profile
    title = Text.assemble((profile.label, "bold cyan"), "  ")
    title.append_text(_exactness(profile.method.exactness))
    title.append(f"  {about(prediction)}", "dim")
    header = ["batch", "as run", "best", "tokens", "tok/s", "plain", "bound", "memory"]
    table = _table(header, left=0)
    for batch in prediction.batches:
        table.add_row(
            str(batch.batch),
            f"{batch.measured.speedup:.2f}x",
            Text(speedup(batch.best), "bold" if batch.best.speedup >= 1.0 else "red"),
            f"{batch.best.tokens:.2f}",
            f"{batch.best.tokens_per_second:,.0f}",
            f"{batch.plain_tokens_per_second:,.0f}",
            batch.best.bound,
            Text(_gigabytes(batch.memory_bytes), "" if batch.fits else "bold red"),
        )
    parts: list[RenderableType] = [wrapped(title, width), table]
    parts.extend(_chart(prediction.batches[0]))
    parts.append(wrapped(paying(prediction), width))
    parts.extend(wrapped(f"{note[:1].upper()}{note[1:]}.", width) for note in prediction.notes)
    return [*parts, Text()]


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.{0 if size >= 1e10 else 1}f} GB"


def _chart(batch: BatchPrediction) -> list[RenderableType]:
    """Return a bar for each draft length, with a mark where plain decoding stands."""
    if len(batch.sweep) < 2:
        return []
    top = max(1.0, *(cell.speedup for cell in batch.sweep))
    plain_at = round(_BAR / top)
    lines: list[RenderableType] = [
        Text(f"speedup by draft length, batch {batch.batch} (| is plain decoding)", "dim")
    ]
    for cell in batch.sweep:
        filled = max(1, round(_BAR * cell.speedup / top))
        bar = "".join(
            "|" if place == plain_at else "█" if place <= filled else " "
            for place in range(1, _BAR + 1)
        )
        best = cell.length == batch.best.length
        number = f"{cell.speedup:.2f}x{'~' if cell.extrapolated else ''}"
        line = f"{cell.length:>3} {bar.rstrip():<{_BAR}} {number}{' best' if best else ''}"
        lines.append(Text(line, "bold" if best else ""))
    return lines


def _checked(report: CheckReport, width: int) -> RenderableType:
    parts: list[RenderableType] = []
    for setting in report.settings:
        parts.extend([wrapped(f"Predicted and measured: {setting}", width, "bold"), Text()])
        table = _table(["method", "class", "measured", "predicted", "error", "best length"], left=2)
        for item in report.predicted(setting):
            cells = [Text(item.label), _exactness(item.method.exactness)]
            table.add_row(*cells, *map(Text, check_cells(item)))
        parts.extend([table, Text()])
    parts.append(wrapped(summary(report.check), width))
    if report.settings:
        parts.append(wrapped(CHECK_LEGEND, width, "dim"))
    parts.extend(wrapped(text, width, "dim") for text in reasons(report.unpredicted))
    parts.extend(_limits(report, width))
    return Group(*parts)


def _limits(report: CheckReport, width: int) -> list[RenderableType]:
    """Return how close the runs came to the memory-bandwidth limit, where it is known."""
    parts: list[RenderableType] = []
    for title, shares in limits(report.shares).items():
        parts.extend([Text(), wrapped(title, width, "bold"), Text()])
        table = _table(["method", "share", "plain decoding"], left=1)
        for share in shares:
            table.add_row(*map(Text, (share.label, *share_cells(share))))
        parts.append(table)
    if parts:
        parts.extend([Text(), wrapped(SHARE_LEGEND, width, "dim")])
    parts.extend(wrapped(text, width, "dim") for text in no_shares(report.shares))
    return parts


def _exactness(name: str) -> Text:
    return Text(name, "yellow" if name == "lossy" else "")


def _table(headers: Sequence[str], left: int) -> Table:
    """Return an empty table whose first `left` columns are flush left."""
    table = grid()
    for place, header in enumerate(headers):
        table.add_column(
            header,
            justify="left" if place < left else "right",
            no_wrap=header != "method",
            overflow="fold",
            max_width=_LABEL,
        )
    return table
