"""A root of its own: the readable folders, read-only, and one small disk that ends with its user.

Where user namespaces allow mounts, programs see nothing else of the machine, not even by `stat`,
and the kernel bounds what they store, however they store it. Flags are those of the kernel's
headers (`linux/mount.h`).
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable

_READ_ONLY, _NO_SETUID, _NO_DEVICES = 1, 2, 4
_BIND, _RECURSIVE, _PRIVATE = 1 << 12, 1 << 14, 1 << 18
_DETACH = 2
_MOUNT_SETATTR, _AT_RECURSIVE, _AT_FDCWD = 442, 0x8000, -100

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def enter_private_root(
    folder: str,
    disk_bytes: int,
    entries: int,
    readable: Iterable[str],
    hidden: Iterable[str],
    libraries: Iterable[str],
) -> bool:
    """Make a few folders this process's whole file system; its namespaces must be its own already.

    Args:
        folder: The working directory; keeps its path and becomes an empty disk.
        disk_bytes: Size of that disk.
        entries: The most files and folders on it.
        readable: What is shown, read-only, each at its own path.
        hidden: Folders beneath those that appear empty.
        libraries: Folders beneath the hidden ones that are shown all the same.

    Returns:
        Whether it worked. If not, nothing has changed for the caller.
    """
    if _libc is None:
        return False
    try:
        _mount("none", "/", None, _RECURSIVE | _PRIVATE)
        _mount("specbench", folder, "tmpfs", _NO_SETUID | _NO_DEVICES, "size=1m,mode=755")
    except OSError:
        return False
    try:
        for path in readable:
            _show(path, folder)
        for path in hidden:
            if os.path.isdir(folder + path):
                _mount("specbench", folder + path, "tmpfs", _NO_SETUID, "size=1m,mode=755")
        for path in libraries:
            _show(path, folder)
        disk = folder + folder
        os.makedirs(disk, exist_ok=True)
        _make_read_only(folder)
        options = f"size={disk_bytes},nr_inodes={entries + 1},mode=700"
        _mount("specbench", disk, "tmpfs", _NO_SETUID | _NO_DEVICES, options)
        os.chdir(folder)
        _check(_libc.pivot_root(b".", b"."))
        _check(_libc.umount2(b".", _DETACH))
        os.chdir(folder)
    except OSError:
        _libc.umount2(os.fsencode(folder), _DETACH)
        os.chdir(folder)
        return False
    return True


def _show(path: str, root: str) -> None:
    """Bind one file or folder to the same path beneath another root; skip what is there."""
    target = root + path
    if not os.path.exists(path) or os.path.lexists(target):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path) and os.path.dirname(path) == "/":
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    _mount(path, target, None, _BIND | _RECURSIVE)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    assert _libc is not None
    kind_bytes = None if kind is None else kind.encode()
    done = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind_bytes,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _check(done)


def _make_read_only(folder: str) -> None:
    assert _libc is not None
    attributes = struct.pack("QQQQ", _READ_ONLY | _NO_SETUID, 0, 0, 0)
    path = os.fsencode(folder)
    size = ctypes.c_size_t(len(attributes))
    _check(_libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, path, _AT_RECURSIVE, attributes, size))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
