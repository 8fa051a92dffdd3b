"""Read files that a user names, and never more than makes sense; write whole files or none.

A pipe may never answer and a device may never end, so neither is opened. Both are refused with an
`OSError`, which whoever reads a file turns into a message already.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MOST_BYTES = 1 << 26
"""The most that is read of a file of settings, in bytes."""


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: If it is no regular file, is larger, or cannot be read.
    """
    check_regular(path)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        limit = f"{most >> 20:,} MiB" if most >= 1 << 20 else f"{most >> 10:,} KiB"
        raise OSError(errno.EFBIG, f"it is larger than {limit}", str(path))
    return content


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """Return the text of a regular file in UTF-8.

    Raises:
        OSError: As `read_bytes`.
        UnicodeDecodeError: If it is not UTF-8.
    """
    return read_bytes(path, most).decode("utf-8")


def check_regular(path: Path) -> None:
    """Refuse a pipe, a socket, a device or a folder before it is opened.

    Raises:
        OSError: If it is one of them, or not there.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device and no regular file", str(path))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`, whose file takes its place if nothing is raised.

    A reader sees the old file or the new one, never half.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
