"""The comparison as GitHub-flavoured Markdown, for a README or an issue."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from specbench.compare.comparison import OVERALL, Comparison, ComparisonRow
from specbench.errors import printable
from specbench.report import words

_Column = tuple[str, str, Callable[[ComparisonRow], str]]
_COLUMNS: tuple[_Column, ...] = (
    ("Method", ":--", lambda row: row.label),
    ("Exactness", ":--", words.exactness),
    ("n", "--:", lambda row: str(row.samples)),
    ("Speedup [95%]", ":--", lambda row: words.speedup(row, row.speedup_e2e)),
    ("Verdict", ":--", lambda row: row.speedup_e2e.verdict if row.speedup_e2e else words.NOTHING),
    ("Floor", "--:", lambda row: words.floor(row.speedup_e2e)),
    ("mean tok/s", ":--", lambda row: words.estimate(row.speedup_mean_rate)),
    ("pooled tok/s", ":--", lambda row: words.estimate(row.speedup_pooled_rate)),
    ("NFE", "--:", lambda row: words.number(row.quantities.nfe, 1)),
    ("tok/NFE", "--:", lambda row: words.number(row.quantities.step_compression)),
    ("MAL", "--:", lambda row: words.number(row.quantities.mal)),
    ("tok/s", "--:", lambda row: words.rate(row.quantities.tokens_per_second_decode)),
    ("TTFT", "--:", lambda row: words.milliseconds(row.quantities.ttft_ms)),
    ("Score", ":--", words.score),
    ("Fidelity", "--:", words.fidelity),
    ("Failed", "--:", lambda row: str(row.failed)),
)

_EXPLAINED = (
    "speedup",
    "floor",
    "mean tok/s",
    "pooled tok/s",
    "NFE",
    "tok/NFE",
    "MAL",
    "tok/s",
    "TTFT",
    "score",
    "fidelity",
)


def render(comparison: Comparison) -> str:
    """Return the comparison as Markdown: heading, tables, legend, banners and warnings."""
    blocks = [f"> **{escaped(banner)}**" for banner in comparison.banners]
    blocks.append(escaped(words.heading(comparison)))
    columns = _columns(comparison)
    for name in comparison.sections:
        rows = comparison.section(name)
        shown = "all tasks" if name == OVERALL else name
        blocks.append(f"**{escaped(shown)}** ({words.measured(rows)})")
        blocks.append(_table(rows, columns))
        lines = [f"- {escaped(line)}" for row in rows if (line := words.pass_at_k(row))]
        if lines:
            blocks.append("\n".join(lines))
    below = ("pass@k",) if any(row.pass_at_k for row in comparison.rows) else ()
    titles = {title for title, _, _ in columns}
    absent = {*words.TEXT_COLUMNS, *words.IMAGE_COLUMNS, *words.IMPORTED_COLUMNS} - titles
    explained = [title for title in _EXPLAINED if title not in absent]
    explained += words.metrics_of(comparison.rows)
    blocks.append(f"<sub>{escaped(words.legend((*explained, *below), comparison.rows))}</sub>")
    if comparison.warnings:
        blocks.append("\n".join(f"- {escaped(warning)}" for warning in comparison.warnings))
    return "\n\n".join(blocks) + "\n"


def _columns(comparison: Comparison) -> list[_Column]:
    """Return the columns for what the models generate, metrics of pictures after the score."""
    left_out = words.left_out(comparison.setting)
    columns = [column for column in _COLUMNS if column[0] not in left_out]
    place = [title for title, _, _ in columns].index("Score") + 1
    metrics = [_metric(name) for name in words.metrics_of(comparison.rows)]
    return [*columns[:place], *metrics, *columns[place:]]


def _metric(name: str) -> _Column:
    return escaped(name), ":--", lambda row: words.metric(row, name)


def _table(rows: Sequence[ComparisonRow], columns: Sequence[_Column]) -> str:
    lines = [
        _line([title for title, _, _ in columns]),
        _line([alignment for _, alignment, _ in columns]),
    ]
    lines.extend(_line([escaped(read(row)) for _, _, read in columns]) for row in rows)
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


_SPECIAL = re.compile(r"([\\|*_`<~$]|\](?=[(\[:])|^(?:[#>=+]|-(?=[\s-]))|&(?=#?\w+;))")
_CALLED = re.compile(
    r"(?<!\w)@(?=\w)(?!\d+(?![\w-]))|@(?=[\w-]+\.)|#(?=\d)|\bGH-(?=\d)|:(?=//)|\bwww(?=\.)"
)
_APART = "\u200b"
"""A space without width: it keeps GitHub from reading a name, an issue or an address."""


def escaped(text: str) -> str:
    """Return one line in which no name of a file is read as Markdown.

    Line ends and control characters are shown; links, pictures, headings and HTML stay characters;
    nobody is mentioned, and no address becomes a link.
    """
    return uncalled(_SPECIAL.sub(r"\\\1", " ".join(text.split("\n")).strip()))


def uncalled(text: str) -> str:
    """Return one line that mentions nobody and holds no address that becomes a link."""
    line = printable(" ".join(text.split("\n")))
    return _CALLED.sub(lambda found: found[0] + _APART, line)
