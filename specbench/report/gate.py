"""A gate's verdicts in a terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from specbench.compare.gate import FAIL, PASS, UNSURE, Check, Gate, amount
from specbench.report import words
from specbench.report.grid import GAP, grid, sentence, wrapped
from specbench.report.json import plain
from specbench.report.markdown import escaped, listed, table

FORMAT = 1
"""Version of the JSON's keys."""

_STYLES = {PASS: "green", FAIL: "bold red", UNSURE: "yellow"}
_LEGEND = (
    "A rule fails where the 95% interval excludes no change, the change exceeds the tolerance in "
    "the bad direction and, for times, the floor (what repeats of one run differ by). exact: "
    "counted, without noise, so that any change beyond the tolerance fails."
)


class _Column(NamedTuple):
    """One column: the higher its rank, the earlier it is left out where the width is short."""

    title: str
    read: Callable[[Check], str]
    rank: int
    left: bool = False


_COLUMNS = (
    _Column("method", lambda check: check.label, 0, left=True),
    _Column("metric", lambda check: check.rule.metric, 0, left=True),
    _Column("base", lambda check: value(check, check.base), 2),
    _Column("new", lambda check: value(check, check.new), 2),
    _Column("change", lambda check: moved(check), 0, left=True),
    _Column("tolerance", lambda check: tolerance(check), 0),
    _Column("floor", lambda check: floor(check), 3),
    _Column("n", lambda check: str(check.change.samples), 4),
    _Column("verdict", lambda check: check.verdict, 0, left=True),
)


def render(gate: Gate, width: int = 100) -> RenderableType:
    """Return a gate as something that a rich console prints.

    Args:
        gate: What to show.
        width: Columns of the terminal; columns that do not fit are left out, least telling first.
    """
    parts: list[RenderableType] = [sentence("!", text, "bold red", width) for text in gate.banners]
    parts.append(wrapped(heading(gate), width, "bold"))
    if gate.checks:
        parts.extend([Text(), _table(gate.checks, width), Text()])
        parts.append(wrapped(_LEGEND, width, "dim"))
    sentences = [("-", text, "bold red") for text in gate.missing]
    sentences += [
        (_mark(check), _reason(check), _STYLES[check.verdict])
        for check in gate.checks
        if check.reason
    ]
    sentences += [("!", text, "bold yellow") for text in gate.notes]
    if sentences:
        parts.append(Text())
    parts.extend(sentence(mark, text, style, width) for mark, text, style in sentences)
    parts.extend([Text(), Text(outcome(gate), style=_ending(gate))])
    return Group(*parts)


def _ending(gate: Gate) -> str:
    return "bold red" if gate.failed else "bold yellow" if gate.blind else "bold green"


def markdown(gate: Gate) -> str:
    """Return a gate as Markdown: the outcome, the table, what is missing, reasons and notes."""
    blocks = [f"> **{escaped(text)}**" for text in gate.banners]
    blocks.append(f"**{escaped(outcome(gate))}** {escaped(heading(gate))}")
    if gate.checks:
        rows = [[column.read(check) for column in _COLUMNS] for check in gate.checks]
        heads, left = zip(*((column.title, column.left) for column in _COLUMNS), strict=True)
        shown = table(heads, rows, left)
        blocks.append(shown.replace(f"| {FAIL} |", f"| **{FAIL}** |"))
        blocks.append(f"<sub>{_LEGEND}</sub>")
    sentences = [*gate.missing, *(_reason(c) for c in gate.checks if c.reason), *gate.notes]
    if sentences:
        blocks.append(listed(sentences))
    return "\n\n".join(blocks) + "\n"


def to_json(gate: Gate) -> str:
    """Return a gate as indented JSON; keys are the field names of `Gate`, `Check` and `Change`."""
    values = {"format": FORMAT, "failed": gate.failed, **plain(gate)}
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def heading(gate: Gate) -> str:
    """Return one line on what is held against what."""
    return f"NEW ({_count(gate.new_files)}) against BASE ({_count(gate.base_files)})"


def outcome(gate: Gate) -> str:
    """Return one line on how the gate ended."""
    counts = {
        verdict: sum(check.verdict == verdict for check in gate.checks)
        for verdict in (FAIL, UNSURE, PASS)
    }
    parts = [f"{counts[FAIL]} failed"] if counts[FAIL] else []
    parts += [f"{len(gate.missing)} missing"] if gate.missing else []
    parts += [f"{counts[UNSURE]} inconclusive"] if counts[UNSURE] else []
    parts += [f"{counts[PASS]} passed"] if counts[PASS] else []
    seen = "Nothing was seen" if gate.blind else "Passed"
    strict = " (--strict)" if gate.failed and gate.strict and counts[UNSURE] else ""
    end = "Failed" if gate.failed else seen
    return f"{end}: {', '.join(parts) or 'nothing was checked'}{strict}."


def value(check: Check, found: float) -> str:
    """Return a quantity, with four significant digits or every digit before the point."""
    if check.rule.unit == "bytes":
        return f"{found / 2**20:.0f} MiB"
    return f"{found:.0f}" if abs(found) >= 10_000 else f"{found:.4g}"


def moved(check: Check) -> str:
    """Return a change with its interval, such as "+2.1% [+1.0%, +3.2%]", or "+2.1% exact"."""
    change = check.change
    shown = _signed(change.value, change.relative)
    if check.exact:
        return f"{shown} exact"
    if change.interval is None:
        return shown
    low, high = (_signed(end, change.relative) for end in change.interval)
    return f"{shown} [{low}, {high}]"


def tolerance(check: Check) -> str:
    """Return a tolerance with the direction that is bad, such as "+1%" or "±2%"."""
    sign = {1: "+", -1: "-", 0: "±"}[check.rule.bad]
    return sign + amount(check.rule.tolerance, check.rule.relative)


def floor(check: Check) -> str:
    """Return the noise floor of a change, such as "±1.9%"."""
    if check.change.floor is None:
        return words.NOTHING
    return "±" + amount(check.change.floor, check.change.relative)


def _signed(found: float, relative: bool) -> str:
    if relative:
        return f"{100 * found:+.1f}%" if abs(found) >= 0.0005 else "0.0%"
    return f"{found:+.3g}" if found else "0"


def _reason(check: Check) -> str:
    return f"{check.label} {check.rule.metric}: {check.reason}."


def _mark(check: Check) -> str:
    return {PASS: "=", FAIL: "-", UNSURE: "?"}[check.verdict]


def _count(files: Sequence[str]) -> str:
    return files[0] if len(files) == 1 else f"{len(files)} files"


def _table(checks: Sequence[Check], width: int) -> Table:
    columns = list(_COLUMNS)
    if all(check.change.floor is None for check in checks):
        columns = [column for column in columns if column.title != "floor"]

    def natural(column: _Column) -> int:
        return max(cell_len(text) for text in (column.title, *map(column.read, checks)))

    while (
        any(column.rank for column in columns)
        and sum(natural(column) + GAP for column in columns) - GAP >= width
    ):
        columns.remove(max(columns, key=lambda column: column.rank))
    shown = grid()
    for column in columns:
        shown.add_column(
            column.title,
            justify="left" if column.left else "right",
            no_wrap=column.title != "method",
            overflow="fold",
        )
    for check in checks:
        style = _STYLES[check.verdict]
        shown.add_row(
            *(
                Text(column.read(check), style=style if column.title == "verdict" else "")
                for column in columns
            )
        )
    return shown
