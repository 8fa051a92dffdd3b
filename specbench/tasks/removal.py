"""Remove a folder whatever a program left in it: any depth, any names, any permissions."""

from __future__ import annotations

import os


def remove(folder: str) -> OSError | None:
    """Remove a folder from the bottom up.

    It goes by file descriptors and single names, so no path grows long; it holds one folder open
    at a time and does not recurse, so no depth is too deep.

    Returns:
        The error that stopped it; None where the folder is gone.
    """
    try:
        _remove(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        return error
    return None


def _remove(folder: str) -> None:
    opening = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    os.chmod(folder, 0o700)
    here = os.open(folder, opening)
    names: list[str] = []
    try:
        while True:
            inner = _first_folder(here)
            if inner is not None:
                os.chmod(inner, 0o700, dir_fd=here)
                following = os.open(inner, opening, dir_fd=here)
                names.append(inner)
            elif names:
                following = os.open("..", opening, dir_fd=here)
                os.rmdir(names.pop(), dir_fd=following)
            else:
                break
            os.close(here)
            here = following
    finally:
        os.close(here)
    os.rmdir(folder)


def _first_folder(fd: int) -> str | None:
    """Remove files up to the first folder among them; return its name."""
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                return entry.name
            os.unlink(entry.name, dir_fd=fd)
    return None
