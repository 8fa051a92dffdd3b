"""One picture of a run: baseline and method side by side under one prompt and seed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SHEET_SAMPLES = 24
"""Samples on a contact sheet, where nothing else is asked for."""

_SMALLEST, _LARGEST = 144, 256
"""Pixels of a picture's longer side on the sheet: smaller ones are magnified, larger reduced."""

_COLUMNS = 4
_MARGIN, _GAP, _INNER = 16, 20, 4
_TEXT, _LINE, _MOST_LINES = 13, 17, 4


@dataclass(frozen=True)
class Entry:
    """One caption and the pictures under it.

    Attributes:
        caption: What was asked for.
        pictures: uint8 [height, width, 3], one for each label of the sheet; None where an arm
            has none.
    """

    caption: str
    pictures: tuple[NDArray[np.uint8] | None, ...]


def contact_sheet(
    entries: Sequence[Entry], labels: Sequence[str], title: str = ""
) -> NDArray[np.uint8]:
    """Return the sheet, uint8 [height, width, 3].

    Args:
        entries: What to show, in reading order; at least one picture among them.
        labels: Name of each arm, written under its pictures.
        title: What stands at the top, in as many lines as a caption may have; empty for none.
    """
    tile = _tile_size(entries)
    font = ImageFont.load_default(_TEXT)
    width = len(labels) * tile[0] + (len(labels) - 1) * _INNER
    captions = [_wrapped(entry.caption, width, font) for entry in entries]
    above = max(map(len, captions)) * _LINE + _INNER
    height = above + tile[1] + _LINE
    columns = min(_COLUMNS * 2 // len(labels), len(entries))
    rows = -(-len(entries) // columns)
    across = columns * width + (columns - 1) * _GAP
    heading = _wrapped(title, across, font)
    top = _MARGIN + (len(heading) * _LINE + _INNER if heading else 0)
    size = (2 * _MARGIN + across, top + rows * height + (rows - 1) * _GAP + _MARGIN)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for line, text in enumerate(heading):
        draw.text((_MARGIN, _MARGIN + line * _LINE), text, "black", font)
    for place, (entry, caption) in enumerate(zip(entries, captions, strict=True)):
        row, column = divmod(place, columns)
        left = _MARGIN + column * (width + _GAP)
        upper = top + row * (height + _GAP)
        for line, text in enumerate(caption):
            draw.text((left, upper + line * _LINE), text, "black", font)
        upper += above
        for label, pixels in zip(labels, entry.pictures, strict=True):
            if pixels is not None:
                sheet.paste(_scaled(pixels, tile), (left, upper))
            name = _fitting(label, tile[0], font)
            draw.text((left, upper + tile[1] + 1), name, (110, 110, 110), font)
            left += tile[0] + _INNER
    return np.asarray(sheet)


def _tile_size(entries: Sequence[Entry]) -> tuple[int, int]:
    """Return width and height of every picture on the sheet."""
    first = next(pixels for entry in entries for pixels in entry.pictures if pixels is not None)
    height, width = first.shape[:2]
    longer = max(height, width)
    scale: float = -(-_SMALLEST // longer) if longer < _SMALLEST else min(1.0, _LARGEST / longer)
    return round(width * scale), round(height * scale)


def _scaled(pixels: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    """Magnify by repeating pixels, which hides nothing; reduce with a filter."""
    larger = size[0] >= pixels.shape[1]
    how = Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS
    return Image.fromarray(pixels).resize(size, how)


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _fitting(text: str, width: int, font: Font) -> str:
    """Return the text, cut with an ellipsis where it is too long."""
    if font.getlength(text) <= width:
        return text
    room: float = width
    sizes = range(1, len(text) + 1)
    kept = bisect_right(sizes, room, key=lambda size: font.getlength(f"{text[:size]}..."))
    return f"{text[:kept].rstrip()}..."


def _wrapped(text: str, width: int, font: Font) -> list[str]:
    """Return the lines of a text, the last one cut where it does not fit."""
    lines: list[str] = []
    words = text.split()
    while words and len(lines) < _MOST_LINES - 1:
        count = 1
        while count < len(words) and font.getlength(" ".join(words[: count + 1])) <= width:
            count += 1
        lines.append(_fitting(" ".join(words[:count]), width, font))
        words = words[count:]
    if words:
        lines.append(_fitting(" ".join(words), width, font))
    return lines
