"""Where configurations, task files and caches live, in a checkout and in an installed wheel.

`conf/` and `tasks/` stand at the top of the repository for people; the wheel carries them as
package data under `specbench/_data`. This module is the only one that knows both places.
"""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _data_dir(name: str) -> Path:
    packaged = _PACKAGE / "_data" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name


def conf_dir() -> Path:
    """Return the folder of the Hydra configuration groups."""
    return _data_dir("conf")


def tasks_dir() -> Path:
    """Return the folder of the embedded, frozen task files."""
    return _data_dir("tasks")


def weights_dir() -> Path:
    """Return the folder of the embedded models' weights."""
    return _PACKAGE / "zoo" / "weights"


def cache_dir() -> Path:
    """Return the folder for files that can be made again (`SPECBENCH_CACHE` moves it)."""
    configured = os.environ.get("SPECBENCH_CACHE")
    if configured:
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "specbench"
