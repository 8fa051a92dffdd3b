"""Put the walls up around the calling process, in the one order that works."""

from __future__ import annotations

import os
import resource
import sys
import sysconfig
from collections.abc import Sequence
from typing import Any, NamedTuple

from . import hook, kernel


class Limits(NamedTuple):
    """What one confined process may use."""

    cpu_seconds: int
    memory_bytes: int
    file_bytes: int
    open_files: int
    threads: int


def limits_of(request: dict[str, Any]) -> Limits:
    """Return the limits that a request states."""
    return Limits(*(int(request["limits"][name]) for name in Limits._fields))


def close_all_but(kept: set[int]) -> None:
    """Close every file descriptor above the standard three, except `kept`."""
    for fd in range(3, 256):
        if fd not in kept:
            try:
                os.close(fd)
            except OSError:
                continue


def raise_walls(
    limits: Limits, folder: str, use_kernel: bool, libraries: Sequence[str] = ()
) -> list[str]:
    """Confine this process for good.

    Args:
        limits: Resource limits.
        folder: The only folder that may be written to.
        use_kernel: False leaves out what only Linux has, to test what remains elsewhere.
        libraries: Further folders that may be read.

    Returns:
        The names of the mechanisms that hold: "namespaces", "capabilities", "landlock",
        "seccomp", "audit-hook", "limits".
    """
    parent = os.getppid()
    names = []
    if use_kernel and kernel.enter_namespaces():
        names.append("namespaces")
    if use_kernel and kernel.drop_capabilities():
        names.append("capabilities")
    kernel.die_with_parent()
    if os.getppid() != parent:
        os._exit(70)
    _limit_resources(limits)
    names.append("limits")
    os.environ.clear()
    confined = use_kernel and kernel.confine_files(folder, [*_readable(), *libraries])
    if confined:
        names.append("landlock")
    if use_kernel and kernel.filter_system_calls(read_only=not confined):
        names.append("seccomp")
    else:
        hook.install(folder)
        names.append("audit-hook")
    return names


def _readable() -> list[str]:
    installed = {sys.base_prefix, sys.base_exec_prefix}
    installed |= {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    system = ["/usr", "/lib", "/lib64", "/etc/localtime", "/etc/ld.so.cache"]
    devices = ["/dev/zero", "/dev/random", "/dev/urandom"]
    return sorted(installed) + system + devices


def _limit_resources(limits: Limits) -> None:
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 1),
        (resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes),
        (resource.RLIMIT_DATA, limits.memory_bytes, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files, limits.open_files),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        try:
            resource.setrlimit(kind, (soft, hard))
        except (ValueError, OSError):
            continue
