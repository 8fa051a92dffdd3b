"""The comparison as GitHub-flavoured Markdown, for a README or an issue."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from specbench.compare.comparison import OVERALL, Comparison
from specbench.errors import printable
from specbench.report import words
from specbench.report.columns import Where, columns_of, legend


def render(comparison: Comparison) -> str:
    """Return the comparison as Markdown: heading, tables, legend, banners and warnings."""
    blocks = [f"> **{escaped(banner)}**" for banner in comparison.banners]
    blocks.append(escaped(words.heading(comparison)))
    columns = columns_of(comparison, Where.MARKDOWN)
    for name in comparison.sections:
        rows = comparison.section(name)
        shown = "all tasks" if name == OVERALL else name
        blocks.append(f"**{escaped(shown)}** ({words.measured(rows)})")
        cells = [[column.read(row).text for column in columns] for row in rows]
        blocks.append(table([c.head for c in columns], cells, [c.left for c in columns]))
        lines = [f"- {escaped(line)}" for row in rows if (line := words.pass_at_k(row))]
        if lines:
            blocks.append("\n".join(lines))
    explained = [column for column in columns if column.title != "class"]
    blocks.append(f"<sub>{escaped(legend(explained, comparison.rows))}</sub>")
    if comparison.warnings:
        blocks.append(listed(comparison.warnings))
    return "\n\n".join(blocks) + "\n"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[bool]) -> str:
    """Return a table; `left` says which columns stand flush left."""
    aligned = [":--" if flush else "--:" for flush in left]
    lines = [[escaped(head) for head in heads], aligned]
    lines += [[escaped(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def listed(sentences: Iterable[str]) -> str:
    """Return sentences as a list."""
    return "\n".join(f"- {escaped(sentence)}" for sentence in sentences)


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
