"""Charts as inline SVG: scales, ticks, and elements whose text cannot become markup.

Colours are classes that the page's style sheet knows, so that one drawing serves light, dark and
paper. Every text and attribute is escaped where an element is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

TEXT_WIDTH = 6.7
"""Pixels that a character of the charts' 12 px text takes at most, on average."""

Value = str | float | int


@dataclass(frozen=True)
class Scale:
    """Values to pixels, linear or logarithmic.

    Attributes:
        low: Value at `start`.
        high: Value at `end`; above `low`.
        start: Pixel of `low`; may lie beyond `end`, as on a vertical axis.
        end: Pixel of `high`.
        log: Whether equal ratios have equal lengths.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; values beyond the ends stay at the ends."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def linear_scale(values: Sequence[float], start: float, end: float, pad: float = 0.06) -> Scale:
    """Return a linear scale that holds all values with room at both ends."""
    low, high = min(values), max(values)
    room = pad * (high - low) or max(abs(high), 1.0) * 0.05
    return Scale(low - room, high + room, start, end)


def log_scale(values: Sequence[float], start: float, end: float) -> Scale:
    """Return a logarithmic scale that holds all values, which are above 0, and 1."""
    low, high = min(1.0, *values), max(1.0, *values)
    room = max((high / low) ** 0.04, 1.02)
    return Scale(low / room, high * room, start, end, log=True)


def ticks(scale: Scale, most: int = 8) -> list[float]:
    """Return round values inside a scale, at most about `most` of them."""
    if scale.log:
        return _log_ticks(scale, most)
    step = _round_step((scale.high - scale.low) / most)
    first = math.ceil(scale.low / step - 1e-9)
    last = math.floor(scale.high / step + 1e-9)
    return [round(number * step, 10) + 0.0 for number in range(first, last + 1)]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


def _log_ticks(scale: Scale, most: int) -> list[float]:
    for factors in (
        (1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 7, 8, 9, 9.5),
        (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8),
        (1, 1.5, 2, 3, 5, 7),
        (1, 2, 5),
        (1,),
    ):
        first = math.floor(math.log10(scale.low))
        last = math.ceil(math.log10(scale.high))
        found = [
            round(factor * 10.0**power, 10)
            for power in range(first, last + 1)
            for factor in factors
            if scale.low <= factor * 10.0**power <= scale.high
        ]
        if len(found) <= most:
            return found
    return found


def number(value: float) -> str:
    """Return a tick's value without needless digits."""
    return f"{value:.10g}"


def element(name: str, *children: str | Markup, **attributes: Value | None) -> Markup:
    """Return one element, its text and attributes escaped.

    Args:
        name: Name of the element.
        children: Text, which is escaped, or finished elements.
        attributes: Values by name; a trailing underscore is dropped, further ones become hyphens,
            and None leaves the attribute out.
    """
    parts = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(_attribute(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    inner = "".join(escape(child) for child in children)
    return Markup(f"<{name}{''.join(parts)}>{inner}</{name}>")


def group(children: Sequence[Markup], **attributes: Value | None) -> Markup:
    """Return a group of elements."""
    return element("g", *children, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def rect(x: float, y: float, width: float, height: float, class_: str) -> Markup:
    """Return a rectangle."""
    return element("rect", x=x, y=y, width=max(0.0, width), height=max(0.0, height), class_=class_)


def text(x: float, y: float, content: str, anchor: str = "start", class_: str = "") -> Markup:
    """Return a line of text whose baseline is at `y`."""
    where = None if anchor == "start" else anchor
    return element("text", content, x=x, y=y, text_anchor=where, class_=class_ or None)


def fitted(content: str, width: float) -> str:
    """Return a text cut to a width in pixels, with an ellipsis where it is too long."""
    most = max(4, int(width / TEXT_WIDTH))
    return content if len(content) <= most else f"{content[: most - 1].rstrip()}…"


def marker(x: float, y: float, exactness: str, hollow: bool = False, radius: float = 5) -> Markup:
    """Return a class's own shape: circle, square, triangle, or a diamond where it is unknown."""
    class_ = f"shape {exactness}{' hollow' if hollow else ''}"
    if exactness == "exact":
        return element("circle", cx=x, cy=y, r=radius, class_=class_)
    if exactness == "greedy":
        side = 1.8 * radius
        return rect(x - side / 2, y - side / 2, side, side, class_)
    high, wide = 1.15 * radius, 1.2 * radius
    if exactness == "unknown":
        corners = f"{x:.1f},{y - wide:.1f} {x + wide:.1f},{y:.1f} {x:.1f},{y + wide:.1f} "
        return element("polygon", points=f"{corners}{x - wide:.1f},{y:.1f}", class_=class_)
    corners = f"{x:.1f},{y - high:.1f} {x + wide:.1f},{y + high:.1f} {x - wide:.1f},{y + high:.1f}"
    return element("polygon", points=corners, class_=class_)


def cross(x: float, y: float, radius: float = 5) -> Markup:
    """Return the baseline's shape, a cross."""
    path = (
        f"M{x - radius:.1f} {y - radius:.1f}l{2 * radius} {2 * radius}"
        f"m0 {-2 * radius}l{-2 * radius} {2 * radius}"
    )
    return element("path", d=path, class_="shape baseline")


def mark(label: str, exactness: str, tip: str, children: Sequence[Markup]) -> Markup:
    """Return one method's marks with its tooltip, which the page's filter can find."""
    title = element("title", tip)
    return group([title, *children], class_="mark", data_label=label, data_class=exactness)


def drawing(
    key: str, title: str, description: str, size: tuple[float, float], body: Sequence[Markup]
) -> Markup:
    """Return a whole chart, named and described for those who do not see it.

    Args:
        key: An id, unique on the page.
        title: What the chart shows.
        description: What can be read from it.
        size: Width and height in pixels.
        body: Its elements.
    """
    width, height = size
    return element(
        "svg",
        element("title", title, id=f"{key}-title"),
        element("desc", description, id=f"{key}-desc"),
        *body,
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
        class_="chart",
    )


def _attribute(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".rstrip("0").rstrip(".")
    return str(value)
