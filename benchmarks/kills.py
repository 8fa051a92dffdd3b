"""How many measurements does a run lose or count twice when it is killed?

Real runs of the command line on the embedded pair are killed at random moments by SIGKILL and
started again until they end: with one process, with two (the parent, one of its processes, or all
at once), and while generated programs are scored. After each kill the journal is read; in the end
the result file is. Lost: a measurement that stood in a journal and is not in the file as it stood.
Doubled: one that is there twice, or was measured again. Wrong: a run that failed, or a file whose
tokens or scores differ from those of a run that nobody disturbed. Left over: a process or a
journal. Folders: temporary ones of programs that ran when the run was killed, which nobody could
remove any more.

    python -m benchmarks.kills [--kills 100] [--only two-processes]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from specbench.cli import app

JOBS = {
    "one process": ["task=tiny", "task.limit=6", "timing.repeats=2", "max_new_tokens=8"],
    "two processes": ["task=tiny", "task.limit=6", "timing.processes=2", "max_new_tokens=8"],
    "while it scores": ["task=tiny_code", "task.limit=10", "timing.repeats=2", "max_new_tokens=40"],
}
KEY = ("arm", "sample_id", "repeat", "process")
SAME = (*KEY, "output_ids", "target_forwards", "draft_tokens", "score", "error")
PATIENCE = 300.0  # seconds for one run on a busy machine

Key = tuple[str, str, int, int]


@dataclass
class Figures:
    """What came of one kind of job."""

    kills: int = 0
    measuring: int = 0  # kills after the first measurement and before the last
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    left_over: int = 0
    folders: int = 0


class Run:
    """A forked process that runs the command line."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def wait(self, seconds: float) -> int | None:
        """Wait for its end, at most so long."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.status


@dataclass
class Job:
    """One job in a folder of its own, killed and started again."""

    folder: Path
    overrides: list[str]
    safe: dict[Key, float] = field(default_factory=dict)

    def command(self) -> list[str]:
        """Return the words of the command line."""
        words = ["specbench", "run", "method=token_sd", *self.overrides, "timing.threads=1"]
        return [*words, f"results_dir={self.folder}", "progress=false"]

    def start(self) -> Run:
        """Start the run as the leader of a group of processes; what is imported is there."""
        (self.folder / "temporary").mkdir(parents=True, exist_ok=True)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            output = os.open(self.folder / "output", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.environ["TMPDIR"] = str(self.folder / "temporary")
            tempfile.tempdir = None
            sys.argv = self.command()
            try:
                app.main()
            except SystemExit as end:
                sys.stdout.flush()
                os._exit(int(end.code or 0))
        return Run(pid)

    def journaled(self) -> list[tuple[Key, float]]:
        """Read whole lines of the journal, as any reader of JSON would."""
        rows = []
        for path in self.folder.glob(".journal/*.jsonl"):
            with contextlib.suppress(FileNotFoundError):
                for line in path.read_bytes().split(b"\n")[1:-1]:
                    rows += json.loads(line)["rows"]
        return [(_key(row), row["started_unix"]) for row in rows]

    def written(self) -> list[dict[str, object]]:
        """Return the rows of the result files."""
        return [
            row for path in self.folder.glob("*.parquet") for row in pq.read_table(path).to_pylist()
        ]

    def left(self, pattern: str) -> int:
        """Count files and folders of a name that are still there."""
        return sum(1 for _ in self.folder.glob(pattern))


def _key(row: dict[str, object]) -> Key:
    return tuple(row[name] for name in KEY)  # type: ignore[return-value]


def _same(rows: list[dict[str, object]]) -> list[str]:
    return sorted(json.dumps([row[name] for name in SAME]) for row in rows)


def _group(leader: int) -> list[int]:
    """List the living processes of a group, its leader first."""
    done = subprocess.run(["ps", "-eo", "pid,pgid,stat"], capture_output=True, text=True)
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    return sorted(int(p) for p, group, state in rows if int(group) == leader and state[0] != "Z")


def _kill(leader: int, chance: random.Random) -> None:
    """Kill the parent, one of its processes, or all."""
    members = _group(leader)
    kind = chance.choice(["parent", "one", "all"])
    victims = members if kind == "all" else [leader]
    if kind == "one" and len(members) > 1:
        victims = [chance.choice(members[1:])]
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)


def _gone(leader: int, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while _group(leader):
        if time.monotonic() > deadline:
            os.killpg(leader, signal.SIGKILL)
            return False
        time.sleep(0.1)
    return True


def _wait_for_rows(job: Job, run: Run, rows: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while run.poll() is None and len(job.journaled()) < rows and time.monotonic() < deadline:
        time.sleep(0.02)


def measure(name: str, kills: int, chance: random.Random) -> Figures:
    """Kill one kind of job until it was killed often enough, then let it end."""
    figures = Figures()
    with tempfile.TemporaryDirectory() as place:
        plain = Job(Path(place) / "plain", JOBS[name])
        sys.argv = plain.command()
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
            app.main()
        expected = plain.written()
        assert expected, "the job itself failed"
        seconds = time.time() - min(float(row["started_unix"]) for row in expected)  # type: ignore[arg-type]
        for job in _jobs(Path(place), JOBS[name]):
            _disturb(job, figures, kills, len(expected), seconds, "scores" in name, chance)
            rows = job.written()
            at = [(_key(row), row["started_unix"]) for row in rows]
            figures.lost += sum(item not in at for item in job.safe.items())
            figures.doubled += len(at) - len({key for key, _ in at})
            figures.wrong += _same(rows) != _same(expected)
            figures.left_over += job.left(".journal/*.jsonl")
            figures.folders += job.left("temporary/specbench-*")
            if figures.kills >= kills:
                return figures
    raise AssertionError


def _jobs(place: Path, overrides: list[str]) -> Iterator[Job]:
    number = 0
    while True:
        number += 1
        yield Job(place / str(number), overrides)


def _disturb(
    job: Job,
    figures: Figures,
    kills: int,
    total: int,
    seconds: float,
    scoring: bool,
    chance: random.Random,
) -> None:
    """Start one job until it ends, and kill it at each start."""
    while not job.written():
        run = job.start()
        if figures.kills < kills:
            _wait_for_rows(job, run, total if scoring else min(len(job.safe) + 1, total))
            if run.wait(chance.uniform(0.0, 0.2 * seconds)) is None:
                _kill(run.pid, chance)
                figures.kills += 1
        status = run.wait(PATIENCE)
        figures.left_over += not _gone(run.pid)
        rows = job.journaled()
        figures.measuring += 0 < len(rows) < total
        now = dict(rows)
        figures.doubled += len(rows) - len(now)
        if not job.written():
            figures.lost += sum(now.get(key) != started for key, started in job.safe.items())
            figures.wrong += status == 0
        job.safe |= now


def main() -> None:
    """Print the figures as a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="kills of each kind of job")
    parser.add_argument("--only", choices=JOBS, help="one kind of job")
    options = parser.parse_args()
    print("| job | kills | while it measured | lost | doubled | wrong | left over | folders |")
    print("| :-- | --: | --: | --: | --: | --: | --: | --: |")
    for name in [options.only] if options.only else JOBS:
        f = measure(name, options.kills, random.Random(0))
        cells = [f.kills, f.measuring, f.lost, f.doubled, f.wrong, f.left_over, f.folders]
        print("|", " | ".join([name, *map(str, cells)]), "|", flush=True)


if __name__ == "__main__":
    main()
