"""Pictures as PNG files: written whole or not at all, read with an explanation of what is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from specbench.errors import ResultsError
from specbench.store.folder import unwritable


def save_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a picture atomically.

    Args:
        path: The file; its folder is made where it does not exist.
        pixels: uint8 [height, width, 3].

    Raises:
        ResultsError: If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=3)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        kept = "The journal keeps every measurement."
        raise unwritable(path, error, kept) from error


def read_png(path: Path) -> NDArray[np.uint8]:
    """Return the pixels of a file, uint8 [height, width, 3].

    Raises:
        ResultsError: If there is no such picture.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise ResultsError(
            f"Cannot read the picture '{path}'",
            error.strerror or str(error),
            "Run the same command again: it draws what is missing.",
        ) from error


def is_png(path: Path) -> bool:
    """Return whether a file is a whole picture: one that was torn while it was copied is not."""
    try:
        with Image.open(path) as image:
            image.verify()
    except (OSError, SyntaxError):
        return False
    return True
