"""An audit in a terminal and as JSON: pure functions of an `AuditReport`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from specbench.audit.verdict import AuditReport, Check, CheckOutcome, Kind

_STYLES = {
    CheckOutcome.PASS: "green",
    CheckOutcome.FAIL: "bold red",
    CheckOutcome.MEASURED: "",
    CheckOutcome.SKIPPED: "dim",
    CheckOutcome.INCONCLUSIVE: "yellow",
}
_EXPLAINED = frozenset({Kind.GREEDY_IDENTITY, Kind.ORACLE, Kind.SAMPLED_LAW, Kind.NEGATIVE_CONTROL})
"""Checks whose detail is shown where they pass, too."""

_WIDE = 100
"""Columns of a terminal from which every number is shown."""

_VERDICTS = (("not ", "bold red"), ("does not", "bold red"), ("inconclusive", "bold yellow"))


class _Column(NamedTuple):
    title: str
    read: Callable[[Check], str]
    always: bool = True


_COLUMNS = (
    _Column("samples", lambda check: "" if check.samples is None else f"{check.samples:,}"),
    _Column("value", lambda check: _number(check.statistic)),
    _Column("limit", lambda check: _number(check.bound), always=False),
    _Column("p", lambda check: _number(check.p_value), always=False),
    _Column("false alarm", lambda check: _number(check.false_alarm), always=False),
    _Column("power", lambda check: "" if check.power is None else f"{check.power:.0%}"),
)


def render(report: AuditReport, width: int = 100) -> RenderableType:
    """Return one audit: a row for each check, then the verdict.

    Args:
        report: The audit.
        width: Columns of the terminal; below 100 limits, p-values and false-alarm rates are left
            out.
    """
    columns = [column for column in _COLUMNS if column.always or width >= _WIDE]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("check", ratio=1, overflow="fold")
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    for check in report.checks:
        label = Text(check.name)
        if check.detail and (check.outcome is not CheckOutcome.PASS or check.kind in _EXPLAINED):
            label.append(f"\n  {check.detail}", "dim")
        outcome = Text(str(check.outcome), _STYLES[check.outcome])
        table.add_row(label, *(column.read(check) for column in columns), outcome)
    return Group(table, _verdict(report), *_advice(report))


def render_many(reports: Sequence[AuditReport], width: int = 100) -> RenderableType:
    """Return many audits: a row for each method, then what failed."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("method", style="cyan", no_wrap=True)
    table.add_column("promise", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    table.add_column("checks", overflow="fold")
    table.add_column("distance", justify="right", no_wrap=True)
    if width >= _WIDE:
        table.add_column("time", justify="right", no_wrap=True)
    for report in reports:
        cells: list[str | Text] = [
            report.method.name,
            report.method.exactness,
            Text(report.verdict, _style(report)),
            _counts(report),
            _distance(report),
        ]
        table.add_row(*cells, *([f"{report.seconds:.1f} s"] if width >= _WIDE else []))
    failed = [
        Padding(
            Text.assemble(
                (f"{report.method.name}: ", "bold red"),
                f"{check.name}: {check.detail or _number(check.statistic)}",
            ),
            (0, 0, 0, 2),
        )
        for report in reports
        for check in report.checks
        if check.outcome is CheckOutcome.FAIL
    ]
    kept = sum(report.ok for report in reports)
    seconds = sum(report.seconds for report in reports)
    line = f"{kept} of {len(reports)} methods keep what they promise ({seconds:.0f} s)."
    return Group(table, *failed, Text(line, "bold"))


def to_dict(report: AuditReport) -> dict[str, Any]:
    """Return an audit as plain values that JSON can hold; an infinite statistic is null."""
    return {
        "method": report.method.name,
        "exactness": report.method.exactness,
        "model": report.model,
        "verdict": report.verdict,
        "ok": report.ok,
        "total_variation": report.total_variation,
        "seconds": round(report.seconds, 3),
        "checks": [
            {key: _finite(value) for key, value in asdict(check).items()} for check in report.checks
        ],
    }


def _verdict(report: AuditReport) -> Text:
    distance = _distance(report)
    words = f" (total variation up to {distance} on tables)" if distance else ""
    return Text.assemble(
        (report.method.name, "bold cyan"),
        f" on {report.model}: ",
        (report.verdict, _style(report)),
        f"{words}. {_counts(report)}; {report.seconds:.0f} s.",
    )


def _advice(report: AuditReport) -> list[Text]:
    """Return what the sampled law could have seen, and a warning where it saw too little."""
    seen = [
        Text(f"{check.samples} texts would have shown: {_powers(check)}.", "dim")
        for check in report.checks
        if check.powers and check.outcome is not CheckOutcome.FAIL
    ]
    return [*seen, *_warnings(report)]


def _powers(check: Check) -> str:
    return ", ".join(f"{name} {power:.0%}" for name, power in check.powers.items())


def _warnings(report: AuditReport) -> list[Text]:
    if any(check.outcome is CheckOutcome.INCONCLUSIVE for check in report.checks):
        words = "Inconclusive is not exact: a check here could not have found an error."
        return [Text(words, "yellow")]
    return []


def _style(report: AuditReport) -> str:
    for start, style in _VERDICTS:
        if report.verdict.startswith(start):
            return style
    return "bold green" if report.proven and report.method.exactness == "exact" else ""


def _counts(report: AuditReport) -> str:
    words = {
        CheckOutcome.PASS: "passed",
        CheckOutcome.FAIL: "failed",
        CheckOutcome.MEASURED: "measured",
        CheckOutcome.SKIPPED: "skipped",
        CheckOutcome.INCONCLUSIVE: "inconclusive",
    }
    count = Counter(check.outcome for check in report.checks)
    return ", ".join(
        f"{count[outcome]} {word}" for outcome, word in words.items() if count[outcome]
    )


def _distance(report: AuditReport) -> str:
    value = report.total_variation
    return "" if value is None or report.method.exactness == "exact" else f"{value:.3f}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if math.isinf(value):
        return "inf"
    if value == 0 or 0.01 <= abs(value) < 1e4:
        return f"{value:.3g}"
    return f"{value:.0e}"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
