"""What a confined program uses: threads, descendants, entries and bytes on disk.

`/proc` is asked through a descriptor that was opened before the walls went up; it is None where
there is no such folder.
"""

from __future__ import annotations

import contextlib
import os
import stat


def threads(processes_fd: int | None, pid: int) -> int:
    """Return the number of threads of a process; 0 where that is unknown."""
    lines = _read(processes_fd, f"{pid}/status").splitlines()
    counts = [int(line.split()[1]) for line in lines if line.startswith("Threads:")]
    return counts[0] if counts else 0


def descendants(processes_fd: int | None, root: int) -> set[int]:
    """Return all processes that descend from one."""
    parents: dict[int, int] = {}
    if processes_fd is None:
        return set()
    for name in filter(str.isdigit, os.listdir(processes_fd)):
        with contextlib.suppress(ValueError, IndexError):
            line = _read(processes_fd, f"{name}/stat")
            parents[int(name)] = int(line.rpartition(")")[2].split()[1])
    found = {root}
    while grown := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= grown
    return found - {root}


def unlinked_maps(processes_fd: int | None, pid: int) -> int:
    """Return how many files without a name a process keeps mapped; their sizes are unknown."""
    lines = _read(processes_fd, f"{pid}/maps").splitlines()
    deleted = (line.split(maxsplit=5) for line in lines if line.endswith(" (deleted)"))
    return len({(fields[3], fields[4]) for fields in deleted})


def of_disk(folder_fd: int) -> tuple[int, int]:
    """Return the entries on a disk of its own and their bytes; files without a name count."""
    disk = os.fstatvfs(folder_fd)
    return disk.f_files - disk.f_ffree - 1, (disk.f_blocks - disk.f_bfree) * disk.f_frsize


def of_folder(folder_fd: int, most: int) -> tuple[int, int]:
    """Return the entries beneath a folder and their bytes on disk.

    It goes by descriptors, so that no path is too long. A folder that cannot be looked into, and
    one more than there are descriptors for, counts as `most` entries.
    """
    entries = size = 0
    waiting = [os.dup(folder_fd)]
    try:
        while waiting and entries < most:
            here = waiting.pop()
            try:
                for name in os.listdir(here):
                    entries += 1
                    with contextlib.suppress(FileNotFoundError):
                        found = os.stat(name, dir_fd=here, follow_symlinks=False)
                        size += found.st_blocks * 512
                        if stat.S_ISDIR(found.st_mode):
                            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                            waiting.append(os.open(name, flags, dir_fd=here))
            finally:
                os.close(here)
    except OSError:
        entries = most
    finally:
        for fd in waiting:
            os.close(fd)
    return entries, size


def _read(processes_fd: int | None, path: str) -> str:
    if processes_fd is None:
        return ""
    try:
        fd = os.open(path, os.O_RDONLY, dir_fd=processes_fd)
        with open(fd, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
