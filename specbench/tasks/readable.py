"""Which files a confined interpreter needs to read, and which of their neighbours it must not."""

from __future__ import annotations

import functools
import glob
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_SYSTEM = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64")
_DATA = ("/usr/share/zoneinfo", "/usr/share/locale", "/etc/localtime", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_PACKAGE = Path(__file__).resolve().parents[1]


@functools.cache
def folders() -> dict[str, list[str]]:
    """Return the part of a sandbox's setup that says what may be read.

    Installed packages are hidden: this one brings tasks with their tests.
    """
    standard = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    prefixes = {sys.base_prefix, sys.base_exec_prefix}
    libraries = {os.path.join(prefix, "lib") for prefix in prefixes} | standard | set(_SYSTEM)
    hidden = {str(_PACKAGE), str(_PACKAGE.parent)}
    for library in libraries:
        for name in ("site-packages", "dist-packages"):
            for place in (name, os.path.join("python3*", name)):
                found = glob.glob(os.path.join(library, place))
                hidden.update(os.path.realpath(path) for path in found)
    readable = [*sorted(libraries), *_DATA, *_DEVICES]
    shown = dict.fromkeys(part for path in readable for part in _beside(path, hidden))
    return {
        "readable": readable,
        "hidden": sorted(hidden),
        "shown": list(shown),
        "listed": sorted(standard),
    }


def _beside(path: str, hidden: set[str]) -> Iterator[str]:
    """Yield a path, or in its place what lies in it beside the hidden folders."""
    real = os.path.realpath(path)
    if real in hidden or not os.path.exists(real):
        return
    if not any(folder.startswith(real + os.sep) for folder in hidden):
        yield real
        return
    if os.access(real, os.R_OK | os.X_OK):
        for name in sorted(os.listdir(real)):
            yield from _beside(os.path.join(real, name), hidden)
