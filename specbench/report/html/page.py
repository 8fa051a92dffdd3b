"""The page itself: one file without a network, written from a content and nothing else.

Styles and script stand inside the page, and its content security policy names their digests:
whatever a sample's text or a file's name holds, no browser runs or fetches anything for it.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specbench.report import figures, words
from specbench.report.drawing import PAGE, style
from specbench.report.html import rows
from specbench.report.html.charts import (
    histogram_chart,
    position_table,
    prediction_chart,
    speedup_chart,
    time_chart,
    trade_chart,
)
from specbench.report.html.content import Content

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATES = Path(__file__).with_name("templates")


def render(content: Content) -> str:
    """Return the whole page as HTML.

    The same content gives the same bytes: the page holds no date and no random id.
    """
    from markupsafe import Markup

    style, script = _asset("style.css"), _asset("script.js")
    return _template().render(
        content=content,
        heading=words.heading(content.overall),
        measured=words.measured(content.rows),
        style=Markup(style),
        script=Markup(script),
        style_digest=_digest(style),
        script_digest=_digest(script),
        **_parts(content),
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def _parts(content: Content) -> dict[str, Any]:
    """Return the page's tables and charts by the names that the template uses."""
    with style(PAGE):
        return _drawn(content)


def _drawn(content: Content) -> dict[str, Any]:
    shown = content.rows
    found = figures.histograms(shown)
    present = {figures.class_of(row) for row in shown if not row.is_baseline}
    return {
        "headline": rows.headline(content.overall),
        "quantities": rows.quantities(content.overall),
        "breakdown": rows.breakdown(content.breakdown) if content.breakdown else (),
        "speedup": speedup_chart(figures.speedups(shown)),
        "time": time_chart(figures.time_splits(shown)),
        "histogram": histogram_chart(found),
        "positions": position_table(figures.position_curves(shown)),
        "trades": [trade_chart(trade) for trade in figures.trades(shown)],
        "prediction": prediction_chart(figures.predictions(shown)),
        "pass_at_k": [line for row in shown if (line := words.pass_at_k(row))],
        "classes": [name for name in figures.EXACTNESS if name in present],
        "pictures": content.overall.setting.modality == "image",
    }


@cache
def _asset(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Return the digest by which a content security policy names an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
