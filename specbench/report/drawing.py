"""What a chart is drawn on: matplotlib's axes, in the look of the page or of papers.

Papers get the widths of one and of two columns, letters as paths and the same bytes for the same
results. The page gets colours by role, which its style sheet knows in light, dark and on paper, and
the marks of each method as a group with its name, which its filter finds. Classes differ by shape
as well as by colour. An interval that leaves the axis ends at the axis' end.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from specbench.report import figures

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

SINGLE, DOUBLE = 3.3, 6.9
"""Inches of one column and of two."""

MOST_NAMED = {False: 8, True: 12}
"""Points that are named in a plot for papers, and in one of the page."""

MARKERS = {"exact": "o", "greedy": "s", "lossy": "^", "unknown": "D"}

_PAPER = {
    "exact": "#0072B2",
    "greedy": "#009E73",
    "lossy": "#D55E00",
    "unknown": "#595F69",
    "draft": "#E69F00",
    "target": "#0072B2",
    "sampling": "#CC79A7",
    "host": "#9AA0A8",
    "floor": "#C9CED6",
    "rule": "#DDDDDD",
    "dim": "#666666",
    "ink": "#000000",
    "paper": "#FFFFFF",
    "hit": "#FFFFFF",
}
DASHED = (0, (4, 3))

_TICKS = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 7, 10, 20, 50, 100)
_FEWEST_TICKS = 3


class Look(NamedTuple):
    """For whom a chart is drawn.

    Attributes:
        page: Whether it stands in the page.
        colors: A colour for each role.
        single: Inches of a chart of usual width.
        double: Inches of one with many rows.
    """

    page: bool
    colors: Mapping[str, str]
    single: float
    double: float


PAPER = Look(False, _PAPER, SINGLE, DOUBLE)
PAGE = Look(True, {role: f"#0000{n:02x}" for n, role in enumerate(_PAPER, 1)}, 9.0, 9.0)
"""Its colours are numbers of roles, which `specbench.report.html.svg` names again."""


class Mark(NamedTuple):
    """What belongs to one method of a chart: its name, its class, and what it says."""

    label: str
    exactness: str
    tip: str


@dataclass(frozen=True)
class Chart:
    """A chart that is drawn.

    Attributes:
        axes: Where it is drawn.
        look: For whom.
        marks: The marks of each method by the id of their shapes.
    """

    axes: Axes
    look: Look
    marks: dict[str, Mark]

    @classmethod
    def of(cls, look: Look, height: float, width: float = 0.0) -> Chart:
        """Return an empty chart of some inches."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width or look.single, height), layout="constrained")
        FigureCanvasAgg(figure)
        return cls(figure.add_subplot(), look, {})

    def add(self, mark: Mark, artists: Sequence[Artist]) -> None:
        """Name the shapes of one method."""
        key = f"mark-{len(self.marks)}"
        self.marks[key] = mark
        for artist in artists:
            artist.set_gid(key)

    def point(self, x: float, y: float, exactness: str, filled: bool = True) -> Artist:
        """Draw a method's point in the shape and colour of its class."""
        color = self.look.colors[exactness]
        face = color if filled else self.look.colors["paper"]
        return self.axes.plot(x, y, MARKERS[exactness], color=color, mfc=face, ms=4.5, mew=1)[0]

    def classes(self, present: set[str]) -> None:
        """Add a legend of the classes, which the page has above its charts."""
        if self.look.page:
            return
        handles = [
            self.axes.plot(
                [], [], MARKERS[name], color=self.look.colors[name], ms=4, ls="", label=name
            )[0]
            for name in figures.EXACTNESS
            if name in present
        ]
        corner: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderpad": 0}
        self.axes.legend(handles=handles, ncols=4, **corner)

    def rows(self, labels: Sequence[str]) -> None:
        """Name one row for each method, from top to bottom."""
        names = [fitted(label) for label in reversed(labels)]
        self.axes.set_yticks(range(len(labels)), names)
        self.axes.set_ylim(-0.7, len(labels) - 0.3)
        self.axes.grid(axis="y", visible=False)

    def ratios(self, which: str) -> None:
        """Make an axis logarithmic with ticks at round ratios."""
        from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

        axis = self.axes.xaxis if which == "x" else self.axes.yaxis
        (self.axes.set_xscale if which == "x" else self.axes.set_yscale)("log")
        low, high = self.axes.get_xlim() if which == "x" else self.axes.get_ylim()
        inside = [tick for tick in _TICKS if low <= tick <= high]
        while len(inside) > 8:
            inside = [tick for place, tick in enumerate(inside) if tick == 1 or place % 2]
        few = len(inside) < _FEWEST_TICKS
        steps = LogLocator(subs=[n / 10 for n in range(10, 100)], numticks=8)
        axis.set_major_locator(steps if few else FixedLocator(inside))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}x"))

    def names(self, spots: Sequence[tuple[float, float, str]]) -> None:
        """Name points beside them, without names that would lie on another's."""
        from matplotlib.transforms import Bbox

        taken: list[Bbox] = []
        figure: Any = self.axes.figure
        figure.draw_without_rendering()
        inside = self.axes.get_window_extent()
        for x, y, label in spots[: MOST_NAMED[self.look.page]]:
            for offset in ((4, 3), (4, -8), (-4, 3), (-4, -8)):
                text = self.axes.annotate(
                    label,
                    (x, y),
                    offset,
                    textcoords="offset points",
                    fontsize=7 if self.look.page else 6,
                    ha="left" if offset[0] > 0 else "right",
                    annotation_clip=False,
                )
                box = text.get_window_extent()
                free = not any(box.overlaps(other) for other in taken)
                if free and inside.x0 <= box.x0 and box.x1 <= inside.x1:
                    taken.append(box)
                    break
                text.remove()

    def saved(self, kind: str) -> bytes:
        """Return the chart as a file; its shapes end where their data do and are not clipped."""
        for artist in self.axes.findobj(include_self=False):
            artist.set_clip_on(False)
        stream = io.BytesIO()
        metadata: dict[str, Any] = {"Software": None} if kind == "png" else {"Date": None}
        if kind == "svg":
            metadata["Creator"] = "specbench"
        figure: Any = self.axes.figure
        figure.savefig(stream, format=kind, metadata=metadata)
        return stream.getvalue()


@contextmanager
def style(look: Look) -> Iterator[None]:
    """Draw charts in a look, whatever the user's own settings are."""
    import matplotlib

    colors = look.colors
    wanted = {
        "font.size": 8,
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7.5 if look.page else 7,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": not look.page,
        "axes.linewidth": 0.6,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.edgecolor": colors["dim"] if look.page else colors["ink"],
        "xtick.major.size": 0 if look.page else 3.5,
        "ytick.major.size": 0 if look.page else 3.5,
        "grid.color": colors["rule"],
        "grid.linewidth": 0.5,
        "svg.fonttype": "none" if look.page else "path",
        "svg.hashsalt": "specbench",
        "text.usetex": False,
        "text.parse_math": False,
        "figure.dpi": 100,
        "savefig.dpi": 300,
        "savefig.transparent": look.page,
        "backend": "Agg",
    }
    settings: dict[Any, Any] = {**matplotlib.rcParamsDefault, **wanted}
    with matplotlib.rc_context(settings):
        yield


def fitted(label: str, most: int = 44) -> str:
    """Return a label cut to a number of characters."""
    return label if len(label) <= most else f"{label[: most - 1].rstrip()}…"
