"""The process that starts judge and player, watches their use, and ends them.

It runs no foreign code. It reads the request only after it has forked both, so the player's
memory never held the tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from typing import NamedTuple

from . import judge, kernel, player, use, walls, wire

_TICK_SECONDS = 0.01
_KEPT_OUTPUT_BYTES = 4096


class _Children(NamedTuple):
    """The two processes and the supervisor's ends of the pipes."""

    player: int
    judge: int
    request_fd: int
    verdict_fd: int
    output_fd: int
    folder_fd: int
    processes_fd: int | None
    disk: bool


def main() -> None:
    """Serve one request from standard input; write one JSON verdict to standard output.

    The first argument behind the module folder is a `walls.Setup` as JSON.
    """
    started = time.monotonic()
    setup = walls.Setup(**json.loads(sys.argv[2]))
    kernel.die_with_parent()
    kernel.become_subreaper()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        children = _fork_children(setup)
    except OSError as error:
        _report("unavailable", f"cannot start the sandbox's processes: {error}", started, [], "")
        return
    request = json.loads(sys.stdin.buffer.read())
    try:
        wire.send(children.request_fd, request)
        status, detail, mechanisms = _watch(children, setup)
    except OSError as error:
        status, detail, mechanisms = "unavailable", f"the sandbox failed: {error}", []
    finally:
        _end_all(children)
    _report(status, detail, started, mechanisms, _output(children.output_fd))


def _report(status: str, detail: str, started: float, mechanisms: list[str], output: str) -> None:
    verdict = {
        "status": status,
        "detail": detail,
        "seconds": time.monotonic() - started,
        "mechanisms": mechanisms,
        "output": output,
    }
    print(json.dumps(verdict), flush=True)


def _fork_children(setup: walls.Setup) -> _Children:
    processes_fd = None
    with contextlib.suppress(OSError):
        processes_fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    shared = walls.around(setup)
    kernel.forbid_inspection()  # not earlier: it closes the maps of the new user namespace
    folder_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    output_fd = _output_file()
    to_player, to_player_end = os.pipe()
    from_player, from_player_end = os.pipe()
    to_judge, to_judge_end = os.pipe()
    from_judge, from_judge_end = os.pipe()
    player_pid = os.fork()
    if player_pid == 0:
        _become_child({to_player, from_player_end}, output_fd)
        player.play(setup, shared, to_player, from_player_end)
    judge_pid = os.fork()
    if judge_pid == 0:
        _become_child({to_judge, from_judge_end, from_player, to_player_end}, None)
        judge.judge(setup, shared, to_judge, from_judge_end, from_player, to_player_end)
    for fd in (to_player, to_player_end, from_player, from_player_end, to_judge, from_judge_end):
        os.close(fd)
    return _Children(
        player_pid,
        judge_pid,
        to_judge_end,
        from_judge,
        output_fd,
        folder_fd,
        processes_fd,
        "private-root" in shared,
    )


def _become_child(kept: set[int], output_fd: int | None) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    for fd in (1, 2):
        os.dup2(null if output_fd is None else output_fd, fd)
    walls.close_all_but(kept)


def _output_file() -> int:
    """Return a file without a name for what the program prints; its size limit bounds a flood."""
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):
            return os.memfd_create("output")
    path = f"output-{os.getpid()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink(path)
    return fd


def _watch(children: _Children, setup: walls.Setup) -> tuple[str, str, list[str]]:
    deadline = time.monotonic() + setup.wall_seconds
    poll = select.poll()
    poll.register(children.verdict_fd, select.POLLIN | select.POLLHUP)
    while not poll.poll(1000 * _TICK_SECONDS):
        if time.monotonic() > deadline:
            return "timeout", f"no end after {setup.wall_seconds:g} s", []
        excess = _excess(children, setup)
        if excess is not None:
            return (*excess, [])
    verdict = wire.receive(children.verdict_fd)
    if verdict is None:
        return "crashed", f"the tests' process {_ending(children.judge)}", []
    status, detail, mechanisms = verdict
    if status == "gone" and not mechanisms:
        return "unavailable", "the program's process could not be confined", []
    excess = None if status == "passed" else _excess(children, setup)
    if excess is not None:
        return (*excess, mechanisms)
    if status == "gone":
        return (*_how_it_went(children, setup), mechanisms)
    return status, detail, mechanisms


def _excess(children: _Children, setup: walls.Setup) -> tuple[str, str] | None:
    threads = use.threads(children.processes_fd, children.player)
    if threads > setup.limits["threads"]:
        return "process_limit", f"{threads} threads"
    if children.disk:
        entries, size = use.of_disk(children.folder_fd)
    else:
        entries, size = use.of_folder(children.folder_fd, walls.MOST_ENTRIES)
        files = use.unlinked_maps(children.processes_fd, children.player)
        size += files * setup.limits["file_bytes"]
    if entries >= walls.MOST_ENTRIES:
        return "output_limit", f"{entries} files and folders, or one that cannot be read"
    if size >= setup.disk_bytes:
        return "output_limit", f"{size} bytes in files"
    return None


def _how_it_went(children: _Children, setup: walls.Setup) -> tuple[str, str]:
    """Say how the player ended, when it ended before it answered."""
    full = os.fstat(children.output_fd).st_size >= setup.limits["file_bytes"]
    if full:
        return "output_limit", f"printed {os.fstat(children.output_fd).st_size} bytes"
    code = _exit_code(children.player)
    if code == -signal.SIGXCPU or code == -signal.SIGKILL:
        return "timeout", "used up its processor time"
    if code == -signal.SIGXFSZ:
        return "output_limit", "wrote a file beyond the size limit"
    if code >= 0:
        return "exited", f"ended itself with exit code {code} before the tests were done"
    return "crashed", f"ended by signal {-code}"


def _ending(pid: int) -> str:
    code = _exit_code(pid)
    return f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _exit_code(pid: int) -> int:
    for _ in range(100):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return 0


def _end_all(children: _Children) -> None:
    """Kill both processes, their groups, and whatever else descends from this one.

    Orphans become children of this process, so no child left means no descendant left.
    """
    deadline = time.monotonic() + 2.0
    doomed = {children.player, children.judge}
    for pid in doomed:
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
    while time.monotonic() < deadline:
        for pid in doomed:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        doomed = use.descendants(children.processes_fd, os.getpid())


def _output(fd: int) -> str:
    size = min(os.fstat(fd).st_size, _KEPT_OUTPUT_BYTES)
    return os.pread(fd, size, 0).decode("utf-8", "replace")
