"""The process that runs the generated program.

It holds nothing worth stealing: not the tests, not the expected values, not the verdict. It runs
the program and answers calls of one function; whatever it says is only taken as the function's
answer.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import types
from typing import Any

from . import walls, wire


def play(read_fd: int, write_fd: int) -> None:
    """Serve one judge until it goes away; never returns."""
    try:
        setup = wire.receive(read_fd)
        if setup is not None:
            _serve(setup, read_fd, write_fd)
    except BaseException:
        os._exit(70)
    os._exit(0)


def _serve(setup: dict[str, Any], read_fd: int, write_fd: int) -> None:
    for name in ("SIGXFSZ", "SIGPIPE"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    mechanisms = walls.raise_walls(walls.limits_of(setup), os.getcwd(), setup["use_kernel"])
    wire.send(write_fd, {"mechanisms": mechanisms})
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    try:
        exec(_first_that_compiles(setup["programs"]), module.__dict__)
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
