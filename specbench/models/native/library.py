"""The native step's library: compiled once on this machine, kept, and loaded.

The source is plain C++ without anybody's headers. The system's compiler makes it for the very
processor, so the file's name is a digest of the source, the command and all that the compiler
predefines here; another processor or compiler finds no file and compiles its own.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from specbench.paths import cache_dir

SOURCE = Path(__file__).with_name("step.cpp")
"""What is compiled; it includes the headers beside it."""

_COMPILERS = ("c++", "g++", "clang++")
_PATIENCE = 600


class Unavailable(Exception):
    """There is no native step here; the message says why, as a clause."""


@cache
def load() -> ctypes.CDLL:
    """Return the library, compiled where no earlier run did.

    Raises:
        Unavailable: If there is no compiler, or it fails, or what it made cannot be loaded.
    """
    command = _command()
    name = f"{_digest(command)}.so"
    kept = cache_dir() / "native" / name
    if kept.is_file():
        try:
            return _opened(kept)
        except OSError:
            pass  # a broken file is made again
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            made = _compiled(command, Path(folder) / name)
            os.replace(made, kept)  # whole, whoever compiles beside us
        return _opened(kept)
    except OSError:
        with tempfile.TemporaryDirectory() as folder:
            try:
                return _opened(_compiled(command, Path(folder) / name))
            except OSError as error:
                raise Unavailable(f"the compiled library cannot be loaded: {error}") from error


def _command() -> list[str]:
    """Return the compiler's command, without its files."""
    names = (os.environ["CXX"],) if os.environ.get("CXX") else _COMPILERS
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise Unavailable(f"no C++ compiler was found ({', '.join(names)})")
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    return [found, native, "-O3", "-std=c++20", "-shared", "-fPIC", "-pthread"]


def _digest(command: list[str]) -> str:
    predefined = _run([*command, "-dM", "-E", "-x", "c++", os.devnull])
    files = [SOURCE, *sorted(SOURCE.parent.glob("*.h"))]
    parts = (" ".join(command).encode(), predefined, *(file.read_bytes() for file in files))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _compiled(command: list[str], target: Path) -> Path:
    _run([*command, str(SOURCE), "-o", str(target)])
    return target


def _run(command: list[str]) -> bytes:
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"the compiler {command[0]} could not run: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise Unavailable(f"the compiler {command[0]} failed: {said[0]}")
    return done.stdout


def _opened(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name in ("panel_outputs", "lanes"):
        getattr(library, name).restype = ctypes.c_int64
    share_threads(library)
    return library


def share_threads(library: ctypes.CDLL) -> None:
    """Let the library work in the threads of the process's OpenMP, where it has one.

    Threads of another pool would compete with those of torch, which spin for a while after
    every operation of its own.
    """
    process = ctypes.CDLL(None)
    try:
        library.use_threads(
            process.GOMP_parallel, process.omp_get_thread_num, process.omp_get_num_threads
        )
    except AttributeError:
        library.use_threads(None, None, None)
