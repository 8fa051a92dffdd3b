"""Put the walls up around a process, in the one order that works."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from typing import Any

from . import hook, kernel, mounts

MOST_ENTRIES = 500


@dataclass(frozen=True)
class Setup:
    """What is known of a run before it has a program.

    Attributes:
        limits: Resource limits of each confined process, by name.
        wall_seconds: From the start of the program to the end of its tests.
        disk_bytes: All files in the working directory together.
        without: Walls that are left out, to test what remains: those that `around` and
            `raise_walls` name, and "landlock-scopes".
        readable: Files and folders that the interpreter and its libraries read.
        hidden: Folders in them that hold tests or other packages; never readable.
        shown: What the readable folders hold beside the hidden ones.
        listed: Folders of which the names may be read, for the interpreter to find its modules.
        library_folder: Where the packages are installed that programs may import.
        library_parts: Those packages' folders in it.
    """

    limits: dict[str, int]
    wall_seconds: float
    disk_bytes: int
    without: list[str]
    readable: list[str]
    hidden: list[str]
    shown: list[str]
    listed: list[str]
    library_folder: str
    library_parts: list[str]

    @property
    def libraries(self) -> list[str]:
        """The folders of the packages that programs may import."""
        return [os.path.join(self.library_folder, part) for part in self.library_parts]


def close_all_but(kept: set[int]) -> None:
    """Close every file descriptor above the standard three, except `kept`."""
    for fd in range(3, 256):
        if fd not in kept:
            try:
                os.close(fd)
            except OSError:
                continue


def around(setup: Setup) -> list[str]:
    """Raise the walls that processes started from here on share.

    Returns:
        The names of those that hold, of "namespaces" and "private-root".
    """
    if "namespaces" in setup.without or not kernel.enter_namespaces():
        return []
    names = ["namespaces"]
    if "private-root" not in setup.without and mounts.enter_private_root(
        os.getcwd(),
        setup.disk_bytes,
        MOST_ENTRIES,
        setup.readable,
        setup.hidden,
        setup.libraries,
    ):
        names.append("private-root")
    return names


def raise_walls(setup: Setup, shared: list[str]) -> list[str]:
    """Confine this process for good; the working directory is all that it may change.

    Returns:
        The names of the mechanisms that hold: `shared`, "capabilities", "landlock", "seccomp",
        "audit-hook", "limits".
    """
    folder = os.getcwd()
    parent = os.getppid()
    names = list(shared)
    if "capabilities" not in setup.without and kernel.drop_capabilities():
        names.append("capabilities")
    kernel.die_with_parent()
    if os.getppid() != parent:
        os._exit(70)
    _limit_resources(setup.limits)
    names.append("limits")
    os.environ.clear()
    confined = False
    if "landlock" not in setup.without:
        newest = 5 if "landlock-scopes" in setup.without else 99
        readable = [*setup.shown, *setup.libraries]
        confined = kernel.confine_files(folder, readable, setup.listed, newest)
    if confined:
        names.append("landlock")
    closed = confined or "private-root" in shared
    if "seccomp" not in setup.without and kernel.filter_system_calls(read_only=not closed):
        names.append("seccomp")
    else:
        hook.install(folder, [*setup.readable, *setup.libraries], setup.hidden)
        for module in (kernel, mounts):  # they hold the C library, whose calls no hook sees
            vars(module).clear()
        names.append("audit-hook")
    return names


def _limit_resources(limits: dict[str, Any]) -> None:
    memory, cpu = int(limits["memory_bytes"]), int(limits["cpu_seconds"])
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, cpu, cpu + 1),
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_DATA, memory, memory),
        (resource.RLIMIT_FSIZE, limits["file_bytes"], limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, limits["open_files"], limits["open_files"]),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        try:
            resource.setrlimit(kind, (soft, hard))
        except (ValueError, OSError):
            continue
