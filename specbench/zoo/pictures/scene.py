"""What a picture of the world shows: things, their caption, and what a judge looks for.

The six tasks and their wording are GenEval's (Ghosh et al., 2023, section 3). A caption is a
*combination* ("a circle left of a square") in one of twelve *wordings* (four openings, three
backgrounds). A quarter of the combinations of the three tasks about two things is held out:
training never draws them, in no wording.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from types import MappingProxyType
from typing import Any, NamedTuple

SIZE = 48
"""Width and height of a picture, in pixels."""

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
"""GenEval's tasks, by its own tags."""

SHAPES = ("circle", "square", "triangle", "ring", "cross")
COLORS = ("red", "yellow", "green", "cyan", "blue", "purple")
BACKGROUNDS = ("dark", "bright")
RELATIONS = ("left of", "right of", "above", "below")
COUNTS = MappingProxyType({2: "two", 3: "three", 4: "four"})
CLASSES = tuple(f"{color} {shape}" for color, shape in product(COLORS, SHAPES))
"""Names of the classes of class-conditional sampling, by class id."""

HELD_OUT_TASKS = ("two_object", "position", "color_attr")
HELD_OUT_SHARE = 0.25

_OPENINGS = ("a photo of", "a picture of", "a drawing of", "a painting of")
_EXTENTS = MappingProxyType({"small": 16, "large": 24})
_LARGE = (16, 20, 24)
_MEDIUM = (16, 20)
_SMALL = (16,)
_MARGIN = 2
_GAP = 4
_TRIES = 1000

Wanted = Mapping[str, Any]


@dataclass(frozen=True)
class Thing:
    """One object of a scene.

    Attributes:
        shape: One of `SHAPES`.
        color: One of `COLORS`.
        x: Pixels from the left edge of the picture to the centre.
        y: Pixels from the upper edge to the centre.
        size: Width and height in pixels.
    """

    shape: str
    color: str
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Scene:
    """One picture before it is drawn.

    Attributes:
        task: One of `TASKS`.
        things: The objects.
        caption: The prompt that the picture answers.
        wanted: What a judge looks for, in the form of GenEval's metadata: `include`, a list of
            requirements (`class`, `count`, and perhaps `color` or `position`), and perhaps
            `exclude`.
        background: "dark" or "bright" where the caption says so.
    """

    task: str
    things: tuple[Thing, ...]
    caption: str
    wanted: Wanted
    background: str | None = None


class Named(NamedTuple):
    """One thing as a caption names it; what it leaves open is drawn at random."""

    shape: str
    color: str | None = None
    number: int = 1
    extent: str | None = None

    @property
    def phrase(self) -> str:
        """The words: "a red circle", "three rings"."""
        if self.number > 1:
            plural = "crosses" if self.shape == "cross" else f"{self.shape}s"
            return f"{COUNTS[self.number]} {plural}"
        words = ["a", self.extent, self.color, self.shape]
        return " ".join(word for word in words if word)


class Combination(NamedTuple):
    """What a caption asks for, apart from its wording."""

    task: str
    named: tuple[Named, ...]
    relation: str | None = None

    @property
    def phrase(self) -> str:
        """The words between the opening and the background."""
        if self.relation is not None:
            return f" {self.relation} ".join(named.phrase for named in self.named)
        return " and ".join(named.phrase for named in self.named)

    @property
    def wanted(self) -> Wanted:
        """The requirements, in the form and the order of GenEval's metadata."""
        include: list[dict[str, Any]] = []
        for named in self.named:
            requirement: dict[str, Any] = {"class": named.shape, "count": named.number}
            if named.color is not None:
                requirement["color"] = named.color
            include.append(requirement)
        if self.relation is not None:
            include.reverse()
            include[1]["position"] = [self.relation, 0]
        wanted: dict[str, Any] = {"include": include}
        if self.task == "counting":
            (named,) = self.named
            wanted["exclude"] = [{"class": named.shape, "count": named.number + 1}]
        return wanted


class Wording(NamedTuple):
    """How a caption says it."""

    opening: str
    background: str | None

    def caption(self, combination: Combination) -> str:
        """The whole caption of a combination."""
        ending = "" if self.background is None else f" on a {self.background} background"
        return f"{self.opening} {combination.phrase}{ending}"


WORDINGS = tuple(Wording(*words) for words in product(_OPENINGS, (None, *BACKGROUNDS)))


@cache
def combinations(task: str) -> tuple[Combination, ...]:
    """Every combination of a task, held-out ones included."""
    pairs = list(permutations(SHAPES, 2))
    match task:
        case "single_object":
            extents = (None, *_EXTENTS)
            alone = [Named(shape, extent=extent) for shape, extent in product(SHAPES, extents)]
        case "counting":
            alone = [Named(shape, number=number) for shape, number in product(SHAPES, COUNTS)]
        case "colors":
            alone = [Named(shape, color) for shape, color in product(SHAPES, COLORS)]
        case "two_object":
            return tuple(Combination(task, (Named(a), Named(b))) for a, b in pairs)
        case "position":
            return tuple(
                Combination(task, (Named(a), Named(b)), relation)
                for (a, b), relation in product(pairs, RELATIONS)
            )
        case _:
            assert task == "color_attr", task
            return tuple(
                Combination(task, (Named(a, first), Named(b, second)))
                for (a, b), (first, second) in product(pairs, permutations(COLORS, 2))
            )
    return tuple(Combination(task, (named,)) for named in alone)


@cache
def left_out(task: str) -> tuple[Combination, ...]:
    """The combinations of a task that training never draws: the first quarter by hash."""
    if task not in HELD_OUT_TASKS:
        return ()
    everything = combinations(task)
    by_hash = sorted(everything, key=lambda item: hashlib.sha256(item.phrase.encode()).digest())
    return tuple(by_hash[: round(len(everything) * HELD_OUT_SHARE)])


@cache
def _trained(task: str) -> tuple[Combination, ...]:
    excluded = frozenset(left_out(task))
    return tuple(item for item in combinations(task) if item not in excluded)


@cache
def vocabulary() -> tuple[str, ...]:
    """Every word of every caption, classes included, sorted."""
    captions = [*_captions(), *(class_caption(class_id) for class_id in range(len(CLASSES)))]
    return tuple(sorted({word for caption in captions for word in caption.split()}))


def class_caption(class_id: int) -> str:
    """The prompt of a class: "class 7"."""
    return f"class {class_id}"


def draw_scene(source: random.Random, task: str | None = None, *, held_out: bool = False) -> Scene:
    """Draw a scene of one task, or of any.

    Args:
        source: Where the randomness comes from.
        task: One of `TASKS`; None draws it uniformly.
        held_out: Whether to draw from the held-out combinations, and only from them. The task
            must then be one of `HELD_OUT_TASKS`.
    """
    chosen = task or source.choice(HELD_OUT_TASKS if held_out else TASKS)
    candidates = left_out(chosen) if held_out else _trained(chosen)
    assert candidates, f"nothing of {chosen} is held out"
    return compose(source, source.choice(candidates), source.choice(WORDINGS))


def class_wanted(class_id: int) -> Wanted:
    """What a judge looks for in a picture of a class."""
    return _of_class(class_id).wanted


def class_scene(source: random.Random, class_id: int) -> Scene:
    """Draw a scene of one class; its caption is the class id in words ("class 7")."""
    combination = _of_class(class_id)
    background = source.choice((None, *BACKGROUNDS))
    things = _things(source, combination)
    return Scene("colors", things, class_caption(class_id), combination.wanted, background)


def _of_class(class_id: int) -> Combination:
    color, shape = CLASSES[class_id].split()
    return Combination("colors", (Named(shape, color),))


def scene_of(source: random.Random, caption: str) -> Scene:
    """Draw a scene that a caption asks for; any caption of the world, held out or not.

    Raises:
        KeyError: If the world has no such caption.
    """
    opening, _, number = caption.partition(" ")
    if opening == "class" and number.isdecimal() and int(number) < len(CLASSES):
        return class_scene(source, int(number))
    return compose(source, *_captions()[caption])


@cache
def _captions() -> Mapping[str, tuple[Combination, Wording]]:
    return {
        wording.caption(combination): (combination, wording)
        for task in TASKS
        for combination in combinations(task)
        for wording in WORDINGS
    }


def compose(source: random.Random, combination: Combination, wording: Wording) -> Scene:
    """Draw what a caption leaves open: colours, sizes and places."""
    things = _things(source, combination)
    caption = wording.caption(combination)
    return Scene(combination.task, things, caption, combination.wanted, wording.background)


def _things(source: random.Random, combination: Combination) -> tuple[Thing, ...]:
    total = sum(named.number for named in combination.named)
    choices = {1: _LARGE, 2: _MEDIUM}.get(total, _SMALL)
    sizes = [source.choice(choices) for _ in range(total)]
    if (extent := combination.named[0].extent) is not None:
        sizes = [_EXTENTS[extent]]
    if combination.relation is not None:
        places = _related(source, sizes, combination.relation)
    else:
        places = _apart(source, sizes) if total < 3 else _quarters(source, sizes)
    shapes = [named.shape for named in combination.named for _ in range(named.number)]
    colors = [_color(source, named) for named in combination.named]
    if total > len(colors):
        same = source.random() < 0.5
        colors = colors * total if same else [source.choice(COLORS) for _ in range(total)]
    return tuple(
        Thing(shape, color, x, y, size)
        for shape, color, (x, y), size in zip(shapes, colors, places, sizes, strict=True)
    )


def _color(source: random.Random, named: Named) -> str:
    return named.color or source.choice(COLORS)


def _place(source: random.Random, size: int) -> tuple[int, int]:
    reach = _MARGIN + size // 2
    x, y = (source.randrange(reach, SIZE - reach + 1, 2) for _ in range(2))
    return x, y


def _apart(source: random.Random, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Places anywhere, with a gap between their squares."""
    for _ in range(_TRIES):
        places = [_place(source, size) for size in sizes]
        if len(sizes) == 1:
            return places
        (x1, y1), (x2, y2) = places
        if max(abs(x1 - x2), abs(y1 - y2)) >= sum(sizes) / 2 + _GAP:
            return places
    raise AssertionError("no room for the things")


def _quarters(source: random.Random, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Places in different quarters of the picture."""
    half = SIZE // 2
    corners = source.sample([(0, 0), (half, 0), (0, half), (half, half)], len(sizes))
    places = []
    for (left, top), size in zip(corners, sizes, strict=True):
        reach = _MARGIN + size // 2
        x, y = (source.randrange(reach, half - reach + 1, 2) for _ in range(2))
        places.append((left + x, top + y))
    return places


def _related(source: random.Random, sizes: Sequence[int], relation: str) -> list[tuple[int, int]]:
    """Places of which the first stands in a relation to the second, clearly."""
    first_leads = relation in ("left of", "above")
    lengths = tuple(sizes) if first_leads else tuple(reversed(sizes))
    room = SIZE - 2 * _MARGIN - sum(sizes) - _GAP
    before = source.randrange(0, room + 1, 2)
    between = source.randrange(0, room - before + 1, 2)
    near = _MARGIN + before + lengths[0] // 2
    far = near + sum(sizes) // 2 + _GAP + between
    along = (near, far) if first_leads else (far, near)
    reach = _MARGIN + max(sizes) // 2
    aside = source.randrange(reach, SIZE - reach + 1, 2)
    shifted = min(max(aside + source.randrange(-8, 9, 2), reach), SIZE - reach)
    if relation in ("left of", "right of"):
        return [(along[0], aside), (along[1], shifted)]
    return [(aside, along[0]), (shifted, along[1])]
