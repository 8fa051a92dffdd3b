"""A chart of matplotlib as part of a page: inline SVG that the page's style sheet colours.

Styles become attributes, since the page's policy lets no inline style in; colours that stand for
roles become variables of the style sheet; shapes that are used by reference are written where they
stand, so that no id occurs twice; and the shapes of one method become one group with its name.
Every text and attribute is escaped where an element is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree

from markupsafe import Markup, escape

from specbench.report.drawing import PAGE, Chart

_ROLES = {color: role for role, color in PAGE.colors.items()}
_ROLES[PAGE.colors["unknown"]] = "dim"
_LINK = "{http://www.w3.org/1999/xlink}href"
_DROPPED = {"metadata", "defs", "style"}
_KEPT_STYLES = re.compile(r"fill|stroke|opacity|text-anchor|font-size")


def drawing(key: str, title: str, description: str, chart: Chart) -> Markup:
    """Return a whole chart, named and described for those who do not see it.

    Args:
        key: An id, unique on the page.
        title: What the chart shows.
        description: What can be read from it.
        chart: The chart; it was drawn in the look of the page.
    """
    root = ElementTree.fromstring(chart.saved("svg"))
    shapes = {f"#{node.get('id')}": node for node in root.iter() if node.get("id")}
    return element(
        "svg",
        element("title", title, id=f"{key}-title"),
        element("desc", description, id=f"{key}-desc"),
        *_children(root, shapes, chart),
        viewBox=root.get("viewBox"),
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
        class_="chart",
    )


def element(name: str, *children: str | Markup, **attributes: str | None) -> Markup:
    """Return one element, its text and attributes escaped.

    Args:
        name: Name of the element.
        children: Text, which is escaped, or finished elements.
        attributes: Values by name; a trailing underscore is dropped, further ones become hyphens,
            and None leaves the attribute out.
    """
    parts = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    ]
    return Markup(f"<{name}{''.join(parts)}>{''.join(map(escape, children))}</{name}>")


def _children(
    node: ElementTree.Element, shapes: dict[str, ElementTree.Element], chart: Chart
) -> Iterable[Markup]:
    """Yield a node's children, those of one method together where the first of them stands."""
    groups: dict[str, list[ElementTree.Element]] = {}
    for child in node:
        groups.setdefault(child.get("id") or str(id(child)), []).append(child)
    for key, members in groups.items():
        drawn = [part for child in members if (part := _drawn(child, shapes, chart))]
        mark = chart.marks.get(key)
        if mark is None:
            yield from drawn
            continue
        yield element(
            "g",
            element("title", mark.tip),
            *drawn,
            class_="mark" if mark.label else "tip",
            data_label=mark.label or None,
            data_class=mark.exactness or None,
        )


def _drawn(
    node: ElementTree.Element, shapes: dict[str, ElementTree.Element], chart: Chart
) -> Markup:
    name = node.tag.rpartition("}")[2]
    if name in _DROPPED:
        return Markup("")
    if name == "use":
        shape = shapes[node.get(_LINK, "")]
        where = f"translate({node.get('x', '0')} {node.get('y', '0')})"
        return element("path", d=shape.get("d"), transform=where, **_look(node))
    known = {key: node.get(key) for key in ("d", "transform", "x", "y", "points")}
    children = list(_children(node, shapes, chart))
    if name == "g" and not children:
        return Markup("")
    return element(
        name, node.text or "" if name == "text" else "", *children, **known, **_look(node)
    )


def _look(node: ElementTree.Element) -> dict[str, str]:
    """Return the attributes of a node's style; the colour of a role is one of the page's."""
    found: dict[str, str] = {}
    for part in (node.get("style") or "").split(";"):
        name, _, value = (text.strip() for text in part.partition(":"))
        if _KEPT_STYLES.match(name):
            found[name] = f"var(--{_ROLES[value]})" if value in _ROLES else value
    if found.get("fill") == "var(--hit)":
        return {"class": "hit"}
    return found
