"""One job in several fresh processes, one after the other.

A process keeps for its whole life where its memory lies and which kernels it chose; repeats inside
of it are blind to that. So K interpreters start, each only when the one before has ended, load the
models, measure their share under their own index, and leave it in the job's journal. The last one
writes the result file. This process loads no model and measures nothing: it shows the progress,
waits, and passes an interruption on.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple, Self

from specbench.ending import ENDING, disregard, end_with_parent, heed
from specbench.errors import JobsFailed
from specbench.runner.job import JobResult, ProcessStep, run_process
from specbench.runner.progress import JobProgress
from specbench.schema.config import RunConfig

_PATIENCE = 20.0  # seconds in which an interrupted process ends by itself


class Shown(NamedTuple):
    """A call of the progress, on its way from the process that measures to the one that shows.

    Attributes:
        name: Which one: "open" or a method of `Progress`.
        arguments: Its arguments.
    """

    name: str
    arguments: tuple[str | int | float, ...]


class Stopped(NamedTuple):
    """What stopped a process.

    Attributes:
        error: The exception.
        trace: Its traceback in that process.
    """

    error: BaseException
    trace: str


class TraceOfProcess(Exception):
    """Carries the traceback of an error in another process, as that error's cause."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def run_job(config: RunConfig) -> JobResult:
    """Measure one method on one model and task.

    With `timing.processes` above 1 this process measures nothing itself.

    Raises:
        SpecbenchError: If something that the user can mend prevents the job or stops a process;
            `JobsFailed` where one died.
        KeyboardInterrupt: If interrupted; the journal is intact and the job can be resumed.
    """
    if config.timing.processes == 1:
        only = run_process(config).result
        assert only is not None
        return only
    show = _Show(config)
    process, begun = 0, False
    try:
        while True:
            step = _step(config, process, begun, show)
            if step.result is not None:
                return step.result
            process, begun = step.pending[0], True
    finally:
        show.close()


def _step(config: RunConfig, process: int, begun: bool, show: _Show) -> ProcessStep:
    """Let one fresh process measure its share, and return what it says of the job."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_measure, args=(config, process, begun, theirs))
    with _interrupts_held():
        child.start()
    theirs.close()
    try:
        answer = _listen(ours, show)
    except BaseException:
        _stop(child, ours)
        raise
    ours.close()
    child.join()
    if isinstance(answer, ProcessStep):
        return answer
    if answer is None:
        raise _death(process, config.timing.processes, child.exitcode)
    if isinstance(answer.error, KeyboardInterrupt):
        raise answer.error
    raise answer.error from TraceOfProcess(answer.trace)


def _listen(connection: Connection, show: _Show) -> ProcessStep | Stopped | None:
    """Show what a process tells until it ends; None where it ended without a word.

    The process waits for an answer to everything that it tells, so that nothing is drawn while it
    measures.
    """
    while True:
        try:
            told = connection.recv()
            if not isinstance(told, Shown):
                assert isinstance(told, (ProcessStep, Stopped)), told
                return told
            show.call(told)
            connection.send(True)
        except (EOFError, OSError):
            return None


def _stop(child: BaseProcess, connection: Connection) -> None:
    """Interrupt a process and wait until it has ended; a second interruption does not wait."""
    try:
        if child.pid is not None and child.is_alive():
            os.kill(child.pid, signal.SIGTERM)  # a job in the background ignores SIGINT
        connection.close()
        child.join(_PATIENCE)
    finally:
        if child.is_alive():
            child.kill()
            child.join()


def _death(process: int, processes: int, code: int | None) -> JobsFailed:
    why = f"it ended with the exit status {code}"
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        why = f"it was stopped by {name}"
        if name == "SIGKILL":
            why += ", as the system does when memory runs out"
    return JobsFailed(
        f"Process {process + 1} of {processes} died while it measured",
        why,
        "Every finished measurement is kept; run the same command again for the rest.",
    )


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Start a process with interruptions held back until it can answer them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _measure(config: RunConfig, process: int, begun: bool, connection: Connection) -> None:
    """Measure one process's share; runs in a fresh interpreter."""
    try:
        heed(ENDING)
        end_with_parent()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        answer: ProcessStep | Stopped = run_process(
            config, process, begun, lambda *extent: _Told(connection, *extent)
        )
    except KeyboardInterrupt as error:
        answer = Stopped(error, "")
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # nobody waits any more; the journal has what was measured
    except BaseException as error:
        answer = Stopped(_portable(error), traceback.format_exc())
    disregard()
    with suppress(OSError):
        connection.send(answer)


def _portable(error: BaseException) -> BaseException:
    """Return the error itself where it survives the way to another process, else its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class _Told:
    """The progress as the measuring process sees it: a pipe, and someone at its other end."""

    def __init__(self, connection: Connection, label: str, total: int, done: int) -> None:
        self._connection = connection
        self._tell("open", label, total, done)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def say(self, activity: str) -> None:
        self._tell("say", activity)

    def warn(self, line: str) -> None:
        self._tell("warn", line)

    def note(self, line: str) -> None:
        self._tell("note", line)

    def advance(self, measurements: int, tokens: int, seconds: float) -> None:
        self._tell("advance", measurements, tokens, seconds)

    def _tell(self, name: str, *arguments: str | int | float) -> None:
        self._connection.send(Shown(name, arguments))
        self._connection.recv()


class _Show:
    """One bar for all processes, opened when the first one knows how much there is to measure."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._bar: JobProgress | None = None
        self._warned: set[str] = set()

    def call(self, told: Shown) -> None:
        if told.name == "open":
            if self._bar is None:
                label, total, done = told.arguments
                label = f"{label}, {self._config.timing.processes} processes"
                self._bar = JobProgress(label, int(total), int(done), self._config.progress)
                self._bar.__enter__()
            return
        assert self._bar is not None
        if told.name == "warn":
            kind = str(told.arguments[0]).partition(":")[0]
            if kind in self._warned:
                return  # every process records it, one line says it
            self._warned.add(kind)
        getattr(self._bar, told.name)(*told.arguments)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
