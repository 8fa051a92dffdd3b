"""The process that runs the tests and alone says whether they passed.

The generated program runs in another process. The tests call it through a stand-in function that
sends plain values and gets plain values back, so no object, patched builtin, exit code or printed
word of the program ever reaches the place where the verdict is made.
"""

from __future__ import annotations

import builtins
import contextlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from . import walls, wire


class Finding(NamedTuple):
    """What the judge tells the supervisor."""

    status: str
    detail: str


class _PlayerGone(BaseException):
    """The program's process ended; not an Exception, so that no test can swallow it."""


class NotPlainData(Exception):
    """The program answered with something that is not plain data."""


def judge(
    setup: walls.Setup,
    shared: list[str],
    request_fd: int,
    verdict_fd: int,
    read_fd: int,
    write_fd: int,
) -> None:
    """Judge one request and report it; never returns."""
    try:
        walls.raise_walls(setup, shared)
        request = wire.receive(request_fd)
        player = _Player(read_fd, write_fd)
        try:
            outcome = _examine(request, player)
        except _PlayerGone:
            outcome = Finding("gone", "")
        except MemoryError:
            outcome = Finding("memory", "the tests ran out of memory")
        except wire.WireError as error:
            outcome = Finding("failed", f"the program sent {error}")
        except BaseException as error:
            outcome = Finding("failed", _describe(error, request["tests"]))
        wire.send(verdict_fd, [*outcome, player.mechanisms])
    finally:
        os._exit(0)


def _examine(request: dict[str, Any], player: _Player) -> Finding:
    failure = player.start({"programs": request["programs"]})
    if failure is not None:
        return failure
    if request["tests"] is None:
        return Finding("passed", "")
    tests = request["tests"]
    entry_point = request["entry_point"]
    candidate = player.stand_in(entry_point)
    scope: dict[str, Any] = {"__name__": "tests"}
    try:
        _execute(request["prelude"], "<prelude>", scope)
        scope[entry_point] = candidate
        _execute(tests, "<tests>", scope)
        check = scope["check"]
    except Exception as error:
        why = _describe(error, tests)
        return Finding("unavailable", f"the tests themselves do not run: {why}")
    check(candidate)
    return Finding("passed", "")


def _execute(source: str, name: str, scope: dict[str, Any]) -> None:
    try:
        code = compile(source, name, "exec", dont_inherit=True)
    except IndentationError:
        code = compile(source + "\n    pass\n", name, "exec", dont_inherit=True)
    exec(code, scope)


class _Player:
    """The judge's end of the pipes to the program's process."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self.mechanisms: list[str] = []

    def start(self, opening: dict[str, Any]) -> Finding | None:
        """Run the program's top level; None means that it ran to its end."""
        token = os.urandom(16).hex()
        self._send(opening)
        self.mechanisms = list(self._receive()["mechanisms"])
        with contextlib.suppress(_PlayerGone):
            self._send(token)
        reply = self._receive()
        if "raised" in reply:
            status = _STATUS_OF.get(reply["raised"], "failed")
            return Finding(status, _describe_raised(reply))
        if reply.get("finished") != token:
            return Finding("failed", "the program spoke in the place of the sandbox")
        return None

    def stand_in(self, name: str) -> Callable[..., Any]:
        """Return a function that calls the program's function of that name."""

        def candidate(*arguments: Any, **named: Any) -> Any:
            self._send(
                {
                    "name": name,
                    "arguments": [wire.encode(item) for item in arguments],
                    "named": {key: wire.encode(item) for key, item in named.items()},
                }
            )
            reply = self._receive()
            if "raised" in reply:
                raise _same_error(reply)
            try:
                return wire.decode(reply["value"])
            except (wire.WireError, KeyError, RecursionError) as error:
                raise NotPlainData(str(error)) from None

        candidate.__name__ = name
        return candidate

    def _send(self, message: object) -> None:
        try:
            wire.send(self._write_fd, message)
        except BrokenPipeError:
            raise _PlayerGone from None

    def _receive(self) -> dict[str, Any]:
        reply = wire.receive(self._read_fd)
        if reply is None:
            raise _PlayerGone
        if not isinstance(reply, dict):
            raise wire.WireError("a frame that is no reply")
        return reply


_STATUS_OF = {"MemoryError": "memory", "SystemExit": "exited", "KeyboardInterrupt": "exited"}


def _same_error(reply: dict[str, Any]) -> Exception:
    """Return the error that the program raised, where it is one of Python's own."""
    kind = getattr(builtins, str(reply["raised"]), None)
    text = _describe_raised(reply)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(text)
        except Exception:
            return RuntimeError(text)
    return RuntimeError(text)


def _describe_raised(reply: dict[str, Any]) -> str:
    text = str(reply["raised"])
    if reply.get("message"):
        text += f": {reply['message']}"
    if isinstance(reply.get("line"), int):
        text += f" (line {reply['line']} of the program)"
    return text[:600]


def _describe(error: BaseException, tests: str | None) -> str:
    """Return an error in one line, with the line of the tests that raised it."""
    number = 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<tests>":
            number = trace.tb_lineno
        trace = trace.tb_next
    message = str(error)
    text = type(error).__name__ if not message else f"{type(error).__name__}: {message}"
    lines = (tests or "").split("\n")
    if 0 < number <= len(lines):
        text += f" at `{lines[number - 1].strip()}`"
    return text[:600]
