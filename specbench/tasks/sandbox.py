"""Run generated Python where it can do no harm, and where it cannot grade itself.

Each run starts a bare interpreter in an empty temporary directory. Its supervisor forks two
confined processes: the player runs the generated program, the judge runs the tests and reaches
the program only through plain values on a pipe. The verdict is the judge's. `docs/tasks.md`
states what holds on which platform.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from specbench.errors import TaskError
from specbench.tasks import readable, removal

_INSIDE = Path(__file__).resolve().parent
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from confined.supervisor import main;"
    " del sys.path[0]; main()"
)
_GRACE_SECONDS = 10.0
KERNEL_WALLS = ("namespaces", "private-root", "capabilities", "landlock", "seccomp")
"""What only Linux offers; `ProgramEnd.mechanisms` names those of them that held."""


@dataclass(frozen=True)
class Limits:
    """What one run may use.

    Attributes:
        wall_seconds: From the start of the program to the end of its tests.
        cpu_seconds: Processor time of each of the two processes.
        memory_bytes: Address space of each of the two processes.
        file_bytes: The largest file, and the most that may be printed.
        disk_bytes: All files in the working directory together.
        open_files: File descriptors.
        threads: Threads of the program. Other processes cannot be started at all.
    """

    wall_seconds: float = 10.0
    cpu_seconds: int = 10
    memory_bytes: int = 512 << 20
    file_bytes: int = 1 << 20
    disk_bytes: int = 16 << 20
    open_files: int = 32
    threads: int = 32


class ProgramEnd(NamedTuple):
    """How a run ended.

    Attributes:
        status: "passed"; "failed" (an assertion or exception, or no valid program); "timeout";
            "memory"; "output_limit"; "process_limit"; "exited" (the program ended itself before
            its tests were done); "crashed" (a signal ended it); "unavailable" (the sandbox or
            the tests could not run, so nothing was learned about the program).
        detail: One line for people.
        output: The beginning of what the program printed.
        seconds: Wall time inside the sandbox.
        mechanisms: What confined the program, by name.
    """

    status: str
    detail: str
    output: str = ""
    seconds: float = 0.0
    mechanisms: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the program ran and its tests held."""
        return self.status == "passed"


def run_python(program: str, limits: Limits = Limits()) -> ProgramEnd:
    """Run one program; it passes when its top level runs to the end without an exception.

    Program and harness share a process here, so a program that attacks the harness on purpose
    (finds the pipe and speaks its protocol) can claim to have ended. Printing, exit codes and
    patched builtins cannot. Where tests decide, use `run_tests`.

    Raises:
        TaskError: If no sandbox can be started on this machine.
    """
    return _run([program], None, "", "", limits)


def run_tests(
    programs: Sequence[str],
    tests: str,
    entry_point: str,
    *,
    prelude: str = "",
    limits: Limits = Limits(),
) -> ProgramEnd:
    """Run tests that call one function of a generated program.

    The tests run in a process of their own. Arguments and results cross as plain values
    (numbers, text, bytes, lists, tuples, dicts, sets, ranges, iterators, fractions, decimals) and
    as copies, so a function that only changes its argument in place changes nothing that the
    tests see.

    Args:
        programs: Readings of one answer; the first that compiles is run.
        tests: Source text that defines `check(candidate)`.
        entry_point: Name of the function under test.
        prelude: Trusted source that the tests may refer to, such as the prompt's helpers. A
            function that ends with its docstring, or with nothing, may stand at its end.
        limits: What program and tests may use.

    Raises:
        TaskError: If no sandbox can be started on this machine.
    """
    return _run(programs, tests, entry_point, prelude, limits)


def mechanisms() -> tuple[str, ...]:
    """Return the names of what confines programs on this machine, found by a trial run."""
    return run_python("pass").mechanisms


def thin_walls(held: Sequence[str]) -> str | None:
    """Say what generated code can do here all the same; None where the kernel confines it."""
    if "seccomp" not in held:
        return (
            "The walls around generated code are thin here: only Python's own audit hook refuses "
            "network, processes and changes to your files, and a program written against it gets "
            "out. \nScore code on Linux, or in a virtual machine."
        )
    if "landlock" not in held and "private-root" not in held:
        return (
            "Generated code can read your files here: this kernel offers neither Landlock nor "
            "user namespaces. \nIt can change nothing and reach no network."
        )
    return None


def _run(
    programs: Sequence[str],
    tests: str | None,
    entry_point: str,
    prelude: str,
    limits: Limits,
    without: Sequence[str] = (),
) -> ProgramEnd:
    if os.name != "posix" or not sys.executable:
        raise TaskError(
            "Generated code cannot be run here",
            "the sandbox needs a POSIX system and a Python interpreter of its own",
            "Score this task on Linux, or set task.scorer=null.",
        )
    stated = asdict(limits)
    setup = {
        "wall_seconds": stated.pop("wall_seconds"),
        "disk_bytes": stated.pop("disk_bytes"),
        "limits": stated,
        "without": list(without),
        **_libraries(),
        **readable.folders(),
    }
    request = {
        "programs": list(programs),
        "tests": tests,
        "entry_point": entry_point,
        "prelude": prelude,
    }
    folder = os.path.realpath(tempfile.mkdtemp(prefix="specbench-"))
    try:
        answer = _supervise(json.dumps(request).encode("ascii"), setup, folder)
    finally:
        left = removal.remove(folder)
    if left is not None:
        return ProgramEnd("unavailable", f"the sandbox's folder {folder} cannot be removed: {left}")
    return answer


@functools.cache
def _libraries() -> dict[str, Any]:
    """Return where the packages lie that programs may import beside the standard library.

    NumPy alone: the reference harness of HumanEval installs it (openai/human-eval,
    requirements.txt), so solutions use it.
    """
    found = importlib.util.find_spec("numpy")
    if found is None or not found.submodule_search_locations:
        return {"library_folder": "", "library_parts": []}
    package = Path(found.submodule_search_locations[0]).resolve()
    parts = [package.name, f"{package.name}.libs"]
    return {
        "library_folder": str(package.parent),
        "library_parts": [part for part in parts if (package.parent / part).is_dir()],
    }


def _supervise(request: bytes, setup: dict[str, Any], folder: str) -> ProgramEnd:
    command = [sys.executable, "-P", "-s", "-S", "-X", "utf8", "-c", _START, str(_INSIDE)]
    command.append(json.dumps(setup))
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"PYTHONHASHSEED": "0"},
            start_new_session=True,
        )
    except OSError as error:
        raise TaskError("The sandbox cannot be started", str(error)) from error
    try:
        stdout, _ = process.communicate(request, timeout=setup["wall_seconds"] + _GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        return ProgramEnd("timeout", "the sandbox itself had to be ended")
    finally:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
    try:
        fields = json.loads(stdout)
    except ValueError:
        return ProgramEnd("crashed", f"the sandbox ended with exit code {process.returncode}")
    return ProgramEnd(**{**fields, "mechanisms": tuple(fields["mechanisms"])})
