"""The process that runs the generated program.

It holds nothing worth stealing: not the tests, not the expected values, not the verdict. It runs
the program and answers calls of one function; whatever it says is only taken as the function's
answer.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import os
import signal
import sys
import types
from collections.abc import Sequence
from typing import Any

from . import walls, wire


class _Libraries(importlib.abc.MetaPathFinder):
    """Finds the installed packages that programs may import, and no others beside them."""

    def __init__(self, folder: str, parts: Sequence[str]) -> None:
        self._folder = folder
        self._parts = frozenset(parts)

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        """Find a top-level package of the list."""
        if path is not None or name not in self._parts:
            return None
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        package = os.path.join(self._folder, name)
        return importlib.util.spec_from_file_location(
            name, os.path.join(package, "__init__.py"), submodule_search_locations=[package]
        )


def play(setup: walls.Setup, shared: list[str], read_fd: int, write_fd: int) -> None:
    """Serve one judge until it goes away; never returns."""
    try:
        opening = wire.receive(read_fd)
        if opening is not None:
            _serve(setup, shared, opening["programs"], read_fd, write_fd)
    except BaseException:
        os._exit(70)
    os._exit(0)


def _serve(
    setup: walls.Setup, shared: list[str], programs: list[str], read_fd: int, write_fd: int
) -> None:
    for name in ("SIGXFSZ", "SIGPIPE"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    sys.meta_path.append(_Libraries(setup.library_folder, setup.library_parts))
    mechanisms = walls.raise_walls(setup, shared)
    wire.send(write_fd, {"mechanisms": mechanisms})
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    try:
        exec(_first_that_compiles(programs), module.__dict__)
    except BaseException as error:
        wire.send(write_fd, _raised(error))
        return
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    token = wire.receive(read_fd)
    wire.send(write_fd, {"finished": token})
    while (call := wire.receive(read_fd)) is not None:
        wire.send(write_fd, _answer(module, call))


def _first_that_compiles(programs: list[str]) -> types.CodeType:
    failure: BaseException = SyntaxError("there is no program")
    for program in programs:
        try:
            return compile(program, "<solution>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
            failure = error
    raise failure


def _answer(module: types.ModuleType, call: dict[str, Any]) -> dict[str, Any]:
    try:
        arguments = [wire.decode(item) for item in call["arguments"]]
        named = {name: wire.decode(item) for name, item in call["named"].items()}
        return {"value": wire.encode(getattr(module, call["name"])(*arguments, **named))}
    except BaseException as error:
        return _raised(error)


def _raised(error: BaseException) -> dict[str, Any]:
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<solution>":
            line = trace.tb_lineno
        trace = trace.tb_next
    error.__traceback__ = None
    try:
        message = str(error)[:500]
    except BaseException:
        message = ""
    return {"raised": type(error).__name__, "message": message, "line": line}
