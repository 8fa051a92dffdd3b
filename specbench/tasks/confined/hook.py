"""The fallback where the kernel offers no system-call filter: Python's own audit events.

An audit hook cannot be removed once it is set, but it sees only what the interpreter reports, so
it stops accidents and ordinary mischief, not an attack written against it.
"""

from __future__ import annotations

import os
import sys

_REFUSED_PREFIXES = ("socket.", "ctypes.", "ftplib.", "http.", "smtplib.", "urllib.", "pty.")
_REFUSED = {
    *("os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system"),
    *("os.kill", "os.killpg", "signal.pthread_kill", "subprocess.Popen"),
    *("os.chmod", "os.chown", "os.link", "os.symlink", "os.truncate", "os.utime"),
    *("os.setxattr", "os.removexattr", "resource.prlimit", "resource.setrlimit"),
    *("os.putenv", "os.startfile", "sys.addaudithook", "syslog.openlog"),
}
_CHANGES = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "shutil.rmtree", "shutil.move"}
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def install(folder: str) -> None:
    """Refuse network, processes, signals and every change outside `folder`."""
    root = os.path.realpath(folder) + os.sep
    realpath, fsdecode = os.path.realpath, os.fsdecode

    def outside(path: object) -> bool:
        if isinstance(path, int):
            return False
        return not (realpath(fsdecode(path)) + os.sep).startswith(root)  # type: ignore[arg-type]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in _REFUSED or event.startswith(_REFUSED_PREFIXES):
            raise PermissionError(f"the sandbox refuses {event}")
        if event == "open":
            path, mode, flags = arguments
            writes = isinstance(flags, int) and flags & _WRITE_FLAGS
            if writes and path is not None and outside(path):
                raise PermissionError(f"the sandbox refuses to write outside its folder: {path!r}")
        elif event in _CHANGES and any(
            outside(path) for path in arguments if isinstance(path, (str, bytes))
        ):
            raise PermissionError(f"the sandbox refuses {event} outside its folder")

    sys.addaudithook(hook)
