"""Published definitions of one name side by side: in a terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from specbench.compare.comparison import OVERALL
from specbench.compare.explain import ExplainedRow, Explanation
from specbench.report import words
from specbench.report.grid import GAP, grid, wrapped
from specbench.report.json import plain
from specbench.report.markdown import escaped, table

FORMAT = 1
"""Version of the keys of the JSON."""

_HEADINGS = {
    "mal": "Acceptance length: one name, {count} definitions, the same rounds",
    "speedup": "Speedup: one name, {count} definitions, the same pairs",
}


def render(explanation: Explanation, width: int = 100) -> RenderableType:
    """Return the definitions' values by method, and below what each one is and who uses it.

    Args:
        explanation: What to show.
        width: Columns of the terminal; methods that do not fit follow in further tables.
    """
    parts: list[RenderableType] = [Text(banner, style="bold red") for banner in explanation.banners]
    parts.append(Text(_heading(explanation), style="bold"))
    for section in _sections(explanation):
        rows = [row for row in explanation.rows if row.section == section]
        for chunk in _chunks(rows, width - _title_width(explanation) - GAP):
            shown = "all tasks" if section == OVERALL else section
            parts.extend([Text(), Text(shown, style="bold cyan"), _table(explanation, chunk)])
    parts.append(Text())
    for definition in explanation.definitions:
        line = Text.assemble((definition.title, "bold"), f": {definition.formula}. ")
        line.append(definition.users, style="dim")
        parts.append(wrapped(line, width))
    return Group(*parts)


def markdown(explanation: Explanation) -> str:
    """Return the same as Markdown: a table for each section and a list of definitions."""
    blocks = [f"> **{escaped(banner)}**" for banner in explanation.banners]
    blocks.append(f"**{_heading(explanation)}**")
    for section in _sections(explanation):
        rows = [row for row in explanation.rows if row.section == section]
        shown = "all tasks" if section == OVERALL else section
        lines = [
            [definition.title, *(_cell(row, place) for row in rows)]
            for place, definition in enumerate(explanation.definitions)
        ]
        heads = [shown, *(row.label for row in rows)]
        blocks.append(table(heads, lines, [True] + [False] * len(rows)))
    blocks.append(
        "\n".join(
            f"- **{definition.title}** (`{definition.name}`): {definition.formula}. "
            f"{definition.users}"
            for definition in explanation.definitions
        )
    )
    return "\n\n".join(blocks) + "\n"


def as_json(explanation: Explanation) -> str:
    """Return the same as JSON: definitions, and each method's values by a definition's name."""
    names = [definition.name for definition in explanation.definitions]
    values = {
        "format": FORMAT,
        "topic": explanation.topic,
        "definitions": plain(explanation.definitions),
        "rows": [
            {
                "section": row.section,
                "label": row.label,
                "values": dict(zip(names, plain(row.values), strict=True)),
            }
            for row in explanation.rows
        ],
        "banners": list(explanation.banners),
    }
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _heading(explanation: Explanation) -> str:
    return _HEADINGS[explanation.topic].format(count=len(explanation.definitions))


def _sections(explanation: Explanation) -> list[str]:
    return list(dict.fromkeys(row.section for row in explanation.rows))


def _title_width(explanation: Explanation) -> int:
    return max(cell_len(definition.title) for definition in explanation.definitions)


def _chunks(rows: Sequence[ExplainedRow], width: int) -> Iterator[list[ExplainedRow]]:
    """Yield as many methods as fit beside each other, at least one."""
    chunk: list[ExplainedRow] = []
    used = 0
    for row in rows:
        needed = max(cell_len(row.label), 6) + GAP
        if chunk and used + needed > width:
            yield chunk
            chunk, used = [], 0
        chunk.append(row)
        used += needed
    if chunk:
        yield chunk


def _table(explanation: Explanation, rows: Sequence[ExplainedRow]) -> Table:
    shown = grid()
    shown.add_column("definition", no_wrap=True)
    for row in rows:
        shown.add_column(Text(row.label), justify="right", overflow="fold")
    for place, definition in enumerate(explanation.definitions):
        shown.add_row(definition.title, *(_cell(row, place) for row in rows))
    return shown


def _cell(row: ExplainedRow, place: int) -> str:
    value = row.values[place]
    return words.NOTHING if value is None else f"{value:.3f}"
