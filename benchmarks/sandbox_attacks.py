"""How many attack programs leave the sandbox, forge a pass, or leave something over?

Runs every program of `benchmarks.attacks`, and every wrong answer there, with all walls and with
each wall taken away, as the user who calls it. Escaped: it changed, read, stopped, started or
reached something outside, or stored more than it may. Forged: a wrong function passed. Left over: a
process or a folder was still there. Unscored: it got no verdict, where it should get 0.

    python -m benchmarks.sandbox_attacks [--names] [--without landlock]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from benchmarks import attacks
from specbench.tasks import sandbox
from specbench.tasks.sandbox import Limits, ProgramEnd

WITHOUT: dict[str, tuple[str, ...]] = {
    "all walls": (),
    "without namespaces": ("namespaces",),
    "without a private root": ("private-root",),
    "without dropped capabilities": ("capabilities",),
    "without Landlock": ("landlock",),
    "with Landlock's version 5": ("landlock-scopes",),
    "the same, no namespaces": ("landlock-scopes", "namespaces"),
    "without seccomp": ("seccomp",),
    "without all of these": sandbox.KERNEL_WALLS,
}
LIMITS = Limits(wall_seconds=3.0, cpu_seconds=3, memory_bytes=256 << 20)
MARKS = ("escaped", "forged", "left_over", "unscored")
TESTS = "def check(candidate):\n    assert candidate(1) == 2\n"


class Effect(NamedTuple):
    """What one program achieved."""

    verdict: ProgramEnd
    escaped: bool
    forged: bool
    left_over: bool

    @property
    def unscored(self) -> bool:
        """Whether the program got no verdict."""
        return self.verdict.status == "unavailable"


@dataclass
class Outside:
    """What a program must not reach, and whether it did."""

    folder: Path
    secret: str = field(default_factory=lambda: secrets.token_hex(8))
    size: int = field(default_factory=lambda: 10_000_000 + secrets.randbelow(80_000_000))

    def __enter__(self) -> Outside:
        """Lay out the files, listen, and start a process."""
        self.target = self.folder / "outside"
        self.target.mkdir()
        (self.target / "victim").write_text("kept")
        (self.target / "secret").write_text(self.secret + "\n")
        os.truncate(self.target / "secret", self.size)
        self.home = self.folder / "home"
        self.home.mkdir()
        self.listeners = [socket.socket(socket.AF_INET), socket.socket(socket.AF_INET, 2)]
        self.listeners[0].bind(("127.0.0.1", 0))
        self.listeners[0].listen()
        self.port = self.listeners[0].getsockname()[1]
        self.listeners[1].bind(("127.0.0.1", self.port))
        self.listeners.append(socket.socket(socket.AF_UNIX, 2))
        self.listeners[2].bind(str(self.folder / "socket"))
        for listener in self.listeners:
            listener.setblocking(False)
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.state = self._state()
        return self

    def __exit__(self, *exception: object) -> None:
        """Take it all away again."""
        self.process.kill()
        self.process.wait()
        for listener in self.listeners:
            listener.close()

    def preamble(self) -> str:
        """Return the lines that tell a program where everything is."""
        return attacks.PREAMBLE.format(
            outside=str(self.target),
            victim=self.process.pid,
            port=self.port,
            socket=str(self.folder / "socket"),
            package=str(Path(sandbox.__file__).parents[1]),
        )

    def reached(self, verdict: ProgramEnd) -> bool:
        """Say whether a program that ended so got out."""
        told = ("ESCAPED", self.secret, str(self.size))
        if any(word in verdict.output for word in told) or self._state() != self.state:
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.02)
        return self.process.poll() is not None or any(map(_heard, self.listeners))

    def _state(self) -> list[tuple[object, ...]]:
        found = []
        for path in sorted(self.target.rglob("*")):
            about = path.lstat()
            held = path.read_bytes() if path.name == "victim" and path.is_file() else b""
            found.append((str(path), about.st_mode, about.st_mtime_ns, about.st_size, held))
        return found


def _heard(listener: socket.socket) -> bool:
    try:
        listener.accept() if listener.type == socket.SOCK_STREAM else listener.recv(9)
    except BlockingIOError:
        return False
    return True


def supervisors() -> set[str]:
    """Return the sandbox's processes that belong to this process or to nobody."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{name}/cmdline").read_bytes()
            parent = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1]
            if b"confined.supervisor" in command and int(parent) in (1, os.getpid()):
                found.add(name)
    return found


def attempt(program: str, without: tuple[str, ...], limits: Limits = LIMITS) -> Effect:
    """Let one program attack a fresh outside."""
    with tempfile.TemporaryDirectory(prefix="attack-", ignore_cleanup_errors=True) as scratch:
        before, earlier = supervisors(), tempfile.tempdir
        with Outside(Path(scratch)) as outside:
            wrong = "def f(x):\n    return 0\n"
            source = f"{outside.preamble()}\n{program}\n"
            source += "" if "def f(x)" in program else wrong
            tempfile.tempdir = str(outside.home)
            try:
                verdict = sandbox._run([source], TESTS, "f", "", limits, without)
            finally:
                tempfile.tempdir = earlier
            left = any(outside.home.iterdir()) or bool(supervisors() - before)
            return Effect(verdict, outside.reached(verdict), verdict.passed, left)


def programs() -> Iterator[tuple[str, str]]:
    """Yield every attack by name."""
    yield from attacks.ATTACKS.items()
    for number, body in enumerate(attacks.WRONG_ANSWERS):
        yield f"answers: {number}", f"def f(x):\n    {body}\n"


def main() -> None:
    """Print one line for each set of walls."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", action="store_true", help="name the programs that got through")
    parser.add_argument("--without", help="only this set: part of its title")
    asked = parser.parse_args()
    print(f"user {os.getuid()}, Linux {os.uname().release}, Python {sys.version.split()[0]}")
    print(f"{'walls':32} tried" + "".join(f" {mark:>9}" for mark in MARKS))
    for title, without in WITHOUT.items():
        if asked.without and asked.without not in title:
            continue
        effects = {name: attempt(program, without) for name, program in programs()}
        counts = [sum(getattr(effect, mark) for effect in effects.values()) for mark in MARKS]
        print(f"{title:32} {len(effects):5}" + "".join(f" {count:9}" for count in counts))
        for name, effect in effects.items() if asked.names else ():
            marks = [mark for mark in MARKS if getattr(effect, mark)]
            if marks:
                print(f"    {name}: {', '.join(marks)} ({effect.verdict.detail[:80]})")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
