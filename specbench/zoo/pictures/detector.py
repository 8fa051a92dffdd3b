"""Find the things in a picture and judge it: rules without weights.

The world's light is grey and its things are not. So the part of a pixel that is not grey says
which colour stands there and how much of the pixel it covers, whatever the lighting. Connected
pixels of one colour are compared with every shape at every size and place near their box; the
overlap with the best one is the detector's confidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from specbench.zoo.pictures.geneval_rules import Box, PictureVerdict, judge_things
from specbench.zoo.pictures.render import OUTLINES, PALETTE
from specbench.zoo.pictures.scene import COLORS, SHAPES

CONFIDENCE = 0.62
"""Overlap with its shape that a thing needs to be one."""

_COVERED = 0.42
_SMALLEST_AREA = 40
_SMALLEST, _LARGEST = 11, 30
_SIZE_SEARCH = 2
_SHIFTS = (-1.0, -0.5, 0.0, 0.5, 1.0)
_WINDOW = 36

Floats = NDArray[np.float32]


class Found(NamedTuple):
    """A thing that the detector sees.

    Attributes:
        shape: One of `SHAPES`.
        color: One of `COLORS`.
        x: Pixels from the left edge to the centre.
        y: Pixels from the upper edge to the centre.
        size: Width and height in pixels.
        area: Pixels of its colour.
        confidence: Overlap with the shape, intersection over union, 0 to 1.
    """

    shape: str
    color: str
    x: float
    y: float
    size: float
    area: float
    confidence: float


def detect(picture: NDArray[np.uint8]) -> list[Found]:
    """Find the things of a picture, the most confident first.

    Args:
        picture: RGB, (height, width, 3).
    """
    cover, color = _covered(picture)
    found = []
    for index, name in enumerate(COLORS):
        labels, number = ndimage.label((color == index) & (cover > _COVERED))
        if number == 0:
            continue
        areas = np.bincount(labels.ravel())
        for label in np.flatnonzero(areas[1:] >= _SMALLEST_AREA) + 1:
            if (thing := _fit(labels == label, cover, name)) is not None:
                found.append(thing)
    return sorted(found, key=lambda thing: -thing.confidence)


def judge(wanted: Mapping[str, Any], picture: NDArray[np.uint8]) -> PictureVerdict:
    """Judge a picture by what was wanted of it."""
    return judge_found(wanted, detect(picture))


def judge_found(wanted: Mapping[str, Any], things: Sequence[Found]) -> PictureVerdict:
    """Judge the things of a picture, the most confident first."""
    found = {shape: [thing for thing in things if thing.shape == shape] for shape in SHAPES}
    return judge_things(wanted, found, lambda group, _: [thing.color for thing in group], box_of)


def box_of(thing: Found) -> Box:
    """Return where a thing is: left, upper, right and lower edge in pixels."""
    half = thing.size / 2
    return thing.x - half, thing.y - half, thing.x + half, thing.y + half


@cache
def _directions() -> tuple[Floats, Floats]:
    """The part of each colour that is not grey: unit vectors (colours, 3), and lengths."""
    colors = np.array([PALETTE[name] for name in COLORS], dtype=np.float32)
    parts = colors - colors.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(parts, axis=1)
    return parts / lengths[:, None], lengths


def _covered(picture: NDArray[np.uint8]) -> tuple[Floats, NDArray[np.intp]]:
    """How much of every pixel a colour covers, 0 to 1, and the index of that colour."""
    pixels = picture.astype(np.float32)
    parts = pixels - pixels.mean(axis=2, keepdims=True)
    units, lengths = _directions()
    smooth = ndimage.uniform_filter(parts, size=(3, 3, 1), mode="nearest")
    color = (smooth @ units.T).argmax(axis=2)
    cover = (parts * units[color]).sum(axis=2) / lengths[color]
    return np.clip(cover, 0.0, 1.0), color


class _Templates(NamedTuple):
    """Every shape of one size at every small shift, (shapes * shifts, window, window)."""

    covers: Floats
    shapes: tuple[str, ...]
    shifts: tuple[tuple[float, float], ...]


@cache
def _templates(size: int) -> _Templates:
    half, middle = size / 2.0, _WINDOW / 2.0
    steps = np.arange(_WINDOW, dtype=np.float32) + 0.5 - middle
    covers, shapes, shifts = [], [], []
    for shape in SHAPES:
        for down in _SHIFTS:
            for across in _SHIFTS:
                distance = OUTLINES[shape](
                    (steps[None, :] - across) / half, (steps[:, None] - down) / half
                )
                covers.append(np.clip(0.5 - distance * half, 0.0, 1.0))
                shapes.append(shape)
                shifts.append((across, down))
    return _Templates(np.stack(covers).astype(np.float32), tuple(shapes), tuple(shifts))


def _fit(mask: NDArray[np.bool_], cover: Floats, color: str) -> Found | None:
    """The best shape for the pixels of one colour; None where no shape is close."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    size = round((int(height) + int(width)) / 2)
    if not _SMALLEST <= size <= _LARGEST or max(height, width) > _WINDOW - 4:
        return None
    near = ndimage.binary_dilation(mask)
    top = int(rows[0] + rows[-1] + 1) // 2 - _WINDOW // 2
    left = int(columns[0] + columns[-1] + 1) // 2 - _WINDOW // 2
    padded = np.pad(np.where(near, cover, 0.0), _WINDOW).astype(np.float32)
    window = padded[top + _WINDOW : top + 2 * _WINDOW, left + _WINDOW : left + 2 * _WINDOW]
    total = window.sum()
    best = Found("", color, 0.0, 0.0, 0.0, float(mask.sum()), CONFIDENCE)
    for tried in range(size - _SIZE_SEARCH, size + _SIZE_SEARCH + 1):
        covers, shapes, shifts = _templates(tried)
        shared = np.minimum(covers, window).sum(axis=(1, 2))
        overlap = shared / (covers.sum(axis=(1, 2)) + total - shared)
        index = int(overlap.argmax())
        if overlap[index] > best.confidence:
            across, down = shifts[index]
            best = best._replace(
                shape=shapes[index],
                x=left + _WINDOW / 2 + across,
                y=top + _WINDOW / 2 + down,
                size=float(tried),
                confidence=float(overlap[index]),
            )
    return best if best.shape else None
