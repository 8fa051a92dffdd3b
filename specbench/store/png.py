"""Pictures as PNG files: written whole or not at all, read with an explanation of what is wrong."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from specbench.bounded import replacing
from specbench.errors import ResultsError
from specbench.store.folder import unwritable

MOST_PIXELS = 2**24
"""Pixels of the largest picture that is read, 4096 x 4096."""

_MOST_BYTES = 2**27
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def save_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a picture atomically.

    Args:
        path: The file; its folder is made where it does not exist.
        pixels: uint8 [height, width, 3].

    Raises:
        ResultsError: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG", compress_level=3)
    except OSError as error:
        raise unwritable(path, error, "The journal keeps every measurement.") from error


def read_png(path: Path) -> NDArray[np.uint8]:
    """Return the pixels of a file, uint8 [height, width, 3].

    Raises:
        ResultsError: If there is no such picture, or it is no regular file, no PNG, or too large.
    """
    try:
        with _opened(path) as image:
            return np.asarray(image.convert("RGB"))
    except _UNREADABLE as error:
        raise ResultsError(
            f"Cannot read the picture '{path}'",
            getattr(error, "strerror", None) or str(error),
            "Run the same command again: it draws what is missing.",
        ) from error


def is_png(path: Path) -> bool:
    """Return whether a file is a whole picture: one that was torn while it was copied is not."""
    try:
        with _opened(path) as image:
            image.verify()
    except _UNREADABLE:
        return False
    return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture whose sizes are looked at before anything of it is decoded.

    A result file may name anything: a pipe that never answers is not waited for, and a picture
    that would take gigabytes is refused by its header.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is not a regular file")
        head = file.read(24)
        if head[:8] != _SIGNATURE or head[12:16] != b"IHDR":
            raise ValueError("it is not a PNG file")
        width, height = struct.unpack(">II", head[16:24])
        if width * height > MOST_PIXELS or about.st_size > _MOST_BYTES:
            raise ValueError(
                f"it has {width} x {height} pixels in {about.st_size} bytes; "
                f"up to {MOST_PIXELS} pixels in {_MOST_BYTES} bytes are read"
            )
        file.seek(0)
        with Image.open(file, formats=["PNG"]) as image:
            yield image
