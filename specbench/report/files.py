"""Files of a report: written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from specbench.bounded import replacing
from specbench.errors import ResultsError


def check_writable(path: Path) -> None:
    """Check that a file can be made at a path before anything is computed.

    Raises:
        ResultsError: If the path is a folder, or its folder is absent or closed to writing.
    """
    if path.is_dir():
        raise ResultsError(
            f"Cannot write '{path}'", "it is a folder", f"Name a file: {path / 'report.html'}."
        )
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise ResultsError(f"Cannot write '{path}'", f"'{folder}' is not a folder", _FIX)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResultsError(f"Cannot write '{path}'", f"'{folder}' is closed to writing", _FIX)


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file atomically; its folder is made where it does not exist.

    Returns:
        The path.

    Raises:
        ResultsError: If it cannot be written. What stood there before stands there still.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise ResultsError(f"Cannot write '{path}'", error.strerror or str(error), _FIX) from error
    return path


_FIX = "Choose another place."
