"""Arrays that take long to make and never change, kept on disk under the digest of their making."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specbench.bounded import replacing
from specbench.paths import cache_dir

FOLDER = "metrics"


def key_of(*parts: Any) -> str:
    """Return the digest of what determines an array; the parts must be JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cached(key: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Return the array of a key, made where the cache lacks it.

    A damaged file is made again. Where the cache cannot be written the array is made every time.

    Args:
        key: Digest of everything that determines the array (`key_of`).
        make: Makes it.
    """
    path = cache_dir() / FOLDER / f"{key}.npy"
    try:
        found: NDArray[Any] = np.load(path, allow_pickle=False)
        return found
    except (OSError, ValueError, EOFError):
        pass
    array = make()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, array, allow_pickle=False)
    return array
