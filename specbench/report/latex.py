"""Tables for papers: booktabs, values with their intervals, and bold only where a verdict stands.

A method is set in bold as the fastest of its class where its speedup is better than 1 by the
comparison's verdict; all methods of the class whose intervals reach it are bold beside it, since
this run cannot tell them apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from specbench.compare.comparison import BETTER, Comparison, ComparisonRow, Speedup
from specbench.report import words
from specbench.report.columns import SPEEDUP, Column, Where, columns_of
from specbench.report.figures import EXACTNESS, class_of, section_name

_SINGLE_COLUMN = 6
"""Columns of a table that fits one column of a paper; wider ones take the page's width."""

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "≠": r"$\neq$",
    "–": "--",
    "·": r"$\cdot$",
    "×": r"$\times$",
}

_HEAD = """\
% Written by specbench report. Needs \\usepackage{booktabs}; names in other than Latin letters
% need XeLaTeX or LuaLaTeX."""


def render(overall: Comparison, breakdown: Comparison | None = None) -> str:
    """Return the headline table, and one by task or category where there is a breakdown.

    Args:
        overall: All tasks together.
        breakdown: The same by task or category.
    """
    tables = [_HEAD, _headline(overall)]
    if breakdown is not None and len(breakdown.sections) > 1:
        tables.append(_by_section(breakdown))
    return "\n\n".join(tables) + "\n"


def escape(text: str) -> str:
    """Return a text whose characters LaTeX prints and does not obey."""
    plain = " ".join(text.split())
    return "".join(_ESCAPES.get(c, c) for c in plain if c.isprintable())


def interval(value: float, low: float | None, high: float | None, bold: bool = False) -> str:
    """Return a value with the distances to the ends of its interval, in math mode.

    Distances round up in their last digit, so that what is printed holds the interval. The
    interval may leave the value outside, as a shrunken estimate's may; the ends stand then.
    """
    number = f"{value:.2f}"
    shown = rf"\mathbf{{{number}}}" if bold else number
    if low is None or high is None:
        return f"${shown}$"
    if not low <= value <= high:
        return f"${shown}$ [{low:.2f}, {high:.2f}]"
    up, down = _rounded_up(high - float(number)), _rounded_up(float(number) - low)
    return f"${shown}^{{+{up:.2f}}}_{{-{down:.2f}}}$"


def _rounded_up(distance: float) -> float:
    return max(0.0, math.ceil(100 * distance - 1e-9) / 100)


def _headline(comparison: Comparison) -> str:
    rows = comparison.section(comparison.sections[-1])
    bold = _bold(rows)
    columns = [c for c in columns_of(comparison, Where.PAPER) if c.says_something(rows)]
    lines = [[_cell(column, row, row.label in bold) for column in columns] for row in rows]
    caption = (
        f"{_setting(comparison)}. Speedup: total time of the baseline over that of the method on "
        f"the same samples, with its 95\\% interval; floor: the baseline against itself. "
        f"{_sizes(rows)}. Bold: the fastest of a class by a verdict, and what its interval does "
        "not tell from it."
    )
    heads = [escape(column.head) for column in columns]
    return _table(heads, lines, caption, "tab:specbench")


def _cell(column: Column, row: ComparisonRow, bold: bool) -> str:
    cell = column.read(row)
    if column.title == "speedup" and cell.value is not None:
        return interval(cell.value, cell.low, cell.high, bold)
    return escape(cell.brief or cell.text)


def _by_section(comparison: Comparison) -> str:
    sections = comparison.sections
    found = {(row.section, row.label): row for row in comparison.rows}
    labels = list(dict.fromkeys(row.label for row in comparison.section(sections[-1])))
    labels += [row.label for row in comparison.rows if row.label not in labels]
    bold = {name: _bold(comparison.section(name)) for name in sections}
    first = {row.label: row for row in comparison.rows}
    lines = []
    for label in dict.fromkeys(labels):
        cells = [escape(label), class_of(first[label])]
        for name in sections:
            row = found.get((name, label))
            cells.append(_cell(SPEEDUP, row, label in bold[name]) if row else "--")
        lines.append(cells)
    names = [escape(section_name(name, sections)) for name in sections]
    caption = (
        f"{_setting(comparison)}. Speedup by {comparison.by} with its 95\\% interval; verdicts "
        "are adjusted for the number of comparisons."
    )
    heads = ["Method", "Class", *names]
    return _table(heads, lines, caption, "tab:specbench-sections")


def _bold(rows: Sequence[ComparisonRow]) -> set[str]:
    """Return the labels of the fastest of each class and of those that it does not beat."""
    bold: set[str] = set()
    for exactness in EXACTNESS:
        judged = [
            (row.label, row.speedup_e2e)
            for row in rows
            if class_of(row) == exactness
            and row.speedup_e2e is not None
            and row.speedup_e2e.verdict == BETTER
        ]
        if not judged:
            continue
        best = max((found for _, found in judged), key=lambda found: found.value)
        bold |= {label for label, found in judged if _reaches(found, best)}
    return bold


def _reaches(found: Speedup, best: Speedup) -> bool:
    if found is best:
        return True
    if found.interval is None or best.interval is None:
        return False
    return found.interval.high >= best.interval.low


def _setting(comparison: Comparison) -> str:
    return escape(words.heading(comparison))


def _sizes(rows: Sequence[ComparisonRow]) -> str:
    methods = [row for row in rows if not row.is_baseline] or list(rows)
    counts = sorted({row.samples for row in methods})
    shown = str(counts[0]) if len(counts) == 1 else f"{counts[0]}--{counts[-1]}"
    return f"$n={shown}$ samples, {escape(words.measured(rows))}"


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]], caption: str, label: str) -> str:
    body = "\n".join(f"{' & '.join(cells)} \\\\" for cells in lines)
    columns = "ll" + "r" * (len(heads) - 2)
    environment = "table" if len(heads) <= _SINGLE_COLUMN else "table*"
    return "\n".join(
        (
            rf"\begin{{{environment}}}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{{label}}}",
            r"\small",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            f"{' & '.join(heads)} \\\\",
            r"\midrule",
            body,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\end{{{environment}}}",
        )
    )
