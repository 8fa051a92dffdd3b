"""The fallback where the kernel offers no system-call filter: Python's own audit events.

An audit hook cannot be removed once it is set, but it sees only what the interpreter reports, so
it stops accidents and ordinary mischief, not an attack written against it. What the interpreter
does not report is taken away by name.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import types
from collections.abc import Sequence
from typing import Any

_REFUSED_PREFIXES = (
    *("socket.", "ctypes.", "ftplib.", "http.", "smtplib.", "urllib.", "pty.", "syslog."),
    *("cpython.PyInterpreterState_New", "gc.get_", "sqlite3."),
)
_REFUSED = (
    *("os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system"),
    *("os.kill", "os.killpg", "signal.pthread_kill", "subprocess.Popen"),
    *("os.chmod", "os.chown", "os.chflags", "os.link", "os.symlink", "os.truncate", "os.utime"),
    *("os.setxattr", "os.removexattr", "os.lockf", "fcntl.flock", "fcntl.lockf", "fcntl.ioctl"),
    *("resource.prlimit", "resource.setrlimit", "os.startfile", "sys.addaudithook"),
)
_REFUSED_MODULES = (
    *("_posixsubprocess", "_posixshmem", "_multiprocessing", "_ssl", "_ctypes", "ctypes"),
    *("_dbm", "_gdbm", "_tkinter", "_curses", "readline", "_xxsubinterpreters", "_interpreters"),
    *("_testcapi", "_testinternalcapi", "_testclinic", "_testlimitedcapi"),
)
"""Modules that start processes or change files without a word to the hook."""
_UNREPORTED = (
    *("mkfifo", "mknod", "chroot", "setns", "unshare", "pidfd_open", "setpgid", "setsid"),
    *("setpriority", "nice", "sched_setaffinity", "sched_setscheduler", "sched_setparam"),
    *("posix_openpt", "openpty", "login_tty", "setpgrp", "tcsetpgrp", "memfd_create"),
)
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "shutil.rmtree", "shutil.move")
_LOOKS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.chdir", "glob.glob")
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PLAIN_FCNTL = (0, 1, 2, 3, 4, 1030)
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC."""


def install(folder: str, readable: Sequence[str], hidden: Sequence[str]) -> None:
    """Refuse network, processes, signals, every change outside a folder, and most reading.

    Args:
        folder: What may be changed.
        readable: Files and folders that may be read too.
        hidden: Files and folders that may not; the longest path that fits decides.
    """
    _take_away()
    stat, getcwd, plain_text = os.stat, os.getcwd, _plain_text
    root = os.path.realpath(folder) + "/"
    places = {path: True for place in readable for path in (place, os.path.realpath(place))}
    places |= {path: False for place in hidden for path in (place, os.path.realpath(place))}
    ranked = tuple((path + "/", places[path]) for path in sorted(places, key=len, reverse=True))
    refused, prefixes, modules, changes = _REFUSED, _REFUSED_PREFIXES, _REFUSED_MODULES, _CHANGES
    looks, write_flags, plain_fcntl = _LOOKS, _WRITE_FLAGS, _PLAIN_FCNTL
    is_instance, text, data, number = isinstance, str, bytes, int
    refusal, import_refusal, os_error = PermissionError, ImportError, OSError

    def plain(path: object) -> str:
        """Return an absolute path without dots, a slash at its end."""
        words = plain_text(path)
        if words[:1] != "/":
            words = getcwd() + "/" + words
        parts: list[str] = []
        for part in words.split("/"):
            if part == "..":
                del parts[-1:]
            elif part and part != ".":
                parts += [part]
        return "/" + "/".join(parts) + "/"

    def inside(path: object) -> bool:
        """Say whether a path lies beneath the folder; there are no links in it to follow."""
        words = plain(path)
        return words.startswith(root) and words != root

    def may_be_read(path: object) -> bool:
        words = plain(path)
        if words.startswith(root):
            return True
        for place, allowed in ranked:
            if words.startswith(place):
                return allowed
        return False

    def is_folder(path: object) -> bool:
        try:
            return stat(path).st_mode & 0o170000 == 0o040000  # type: ignore[arg-type]
        except os_error:
            return False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in refused or event.startswith(prefixes):
            raise refusal("the sandbox refuses " + event)
        if event == "import" and arguments[0] in modules:
            raise import_refusal("the sandbox refuses this module")
        if event == "fcntl.fcntl" and arguments[1] not in plain_fcntl:
            raise refusal("the sandbox refuses this fcntl command")
        if event == "open":
            path, mode, flags = arguments
            if path is None or is_instance(path, number):
                return
            if is_instance(flags, number) and flags & write_flags and not inside(path):
                raise refusal("the sandbox refuses to write outside its folder")
            if mode is None and is_folder(path):
                raise refusal("the sandbox refuses to open a folder")
            if not may_be_read(path):
                raise refusal("the sandbox refuses to read this file")
        elif event in looks:
            path = arguments[0]
            if path is not None and not is_instance(path, number) and not may_be_read(path):
                raise refusal("the sandbox refuses " + event + " here")
        elif event in changes:
            for argument in arguments:
                if is_instance(argument, (text, data)) and not inside(argument):
                    raise refusal("the sandbox refuses " + event + " outside its folder")

    sys.addaudithook(hook)


def _plain_text(path: object) -> str:
    """Return the text of a path without asking a subclass for it."""
    if isinstance(path, str):
        path = str.encode(path, "utf-8", "surrogateescape")
    elif not isinstance(path, bytes):
        path = os.fsencode(path)  # type: ignore[arg-type]
    return bytes.decode(path, "utf-8", "surrogateescape")


def _refuse(*arguments: object) -> None:
    raise PermissionError("the sandbox refuses other processes")


def _take_away() -> None:
    """Remove what no audit event reports: functions by name, modules already imported."""
    for module in (os, sys.modules["posix"], signal):
        for name in (*_UNREPORTED, "pidfd_send_signal"):
            if hasattr(module, name):
                delattr(module, name)
    for name in _REFUSED_MODULES:
        sys.modules.pop(name, None)
    harmless = types.ModuleType("_posixsubprocess")  # so that `import subprocess` still works
    harmless.fork_exec = _refuse  # type: ignore[attr-defined]
    sys.modules["_posixsubprocess"] = harmless
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
