"""Which code measured: this program's revision and sources, and those of a user's own parts."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import specbench

_OWN = "specbench"
_SHORT = 9


def software() -> dict[str, Any]:
    """Return the version, the git state and a digest of the program's own sources.

    The digest tells two uncommitted states apart, and two installations without git.
    """
    folder = Path(specbench.__file__).resolve().parent
    return {"specbench": specbench.__version__, "git": git_state(), "sources": _digest(folder)}


def other_code(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return a sentence where a job goes on with other code than it began with, else nothing."""
    if before.get("sources") in (None, now["sources"]):
        return ""
    return (
        f"other code: this job was begun with {_named(before)} and goes on with {_named(now)}; "
        "each process's is recorded. Begin anew with --fresh where the change may move a number."
    )


def _named(software: Mapping[str, Any]) -> str:
    git = software.get("git")
    if not isinstance(git, Mapping):
        return f"version {software.get('specbench')} ({software.get('sources')})"
    dirty = f" and uncommitted changes ({software.get('sources')})" if git.get("dirty") else ""
    return f"revision {str(git.get('revision'))[:_SHORT]}{dirty}"


def codes(values: Any) -> dict[str, str]:
    """Return a digest of the code behind every `_target_` that is not specbench's own.

    The code is the file that the path names; where that is part of a package, all Python files of
    the outermost package, since a part may import its neighbours.
    """
    found = {}
    for path in sorted(set(_targets(values))):
        place = _place(path.rpartition(".")[0])
        if place is not None:
            found[path] = _digest(place)
    return found


def git_state() -> dict[str, Any] | None:
    """Return revision and dirty flag of the checkout that runs, or None for an installed one."""
    top = Path(specbench.__file__).resolve().parent.parent
    if not (top / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(top), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return done.stdout.strip()

    try:
        return {"revision": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _targets(values: Any) -> Iterator[str]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            if key == "_target_" and not str(value).startswith(f"{_OWN}."):
                yield str(value)
            else:
                yield from _targets(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _targets(value)


def _place(module: str) -> Path | None:
    """Return the file or the outermost package of a module; None where it has no file."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        try:
            spec = importlib.util.find_spec(".".join(parts[:depth]))
        except (ImportError, ValueError):
            return None
        if spec is None:
            return None
        if spec.has_location and spec.origin:
            file = Path(spec.origin)
            return file.parent if spec.submodule_search_locations else file
    return None


@cache
def _digest(place: Path) -> str:
    """Return SHA-256 over a file, or over the Python files of a folder and their names."""
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    sha = hashlib.sha256()
    for file in files:
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        sha.update(f"{file.relative_to(place.parent).as_posix()} {content}\n".encode())
    return f"sha256:{sha.hexdigest()[:16]}"
