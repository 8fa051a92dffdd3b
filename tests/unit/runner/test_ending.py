"""The program ends in order: by any signal, without its parent, and without its results folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from unittest import mock

import pytest

from specbench import ending
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.errors import Ended, ResultsError
from specbench.runner import run_job
from specbench.store import Journal
from tests.unit.runner import toy
from tests.unit.runner.test_processes import wait_until_gone

SCRIPT = """
import sys
from pathlib import Path
from specbench.cli import app, run
from tests.unit.runner.test_ending import slow

def job(folder: Path, processes: int, seconds: float) -> None:
    from specbench.runner import run_job
    run_job(slow(folder, processes, seconds))

if __name__ == "__main__":
    app.app.command("slow")(job)
    app.main()
"""


class Slow(Autoregressive):
    """Takes its time after its first answer, with a generated program's folder on the disk."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.answers = 0

    def generate(self, models, request, clock):
        from specbench.tasks import sandbox

        self.answers += 1
        seconds = self.seconds if self.answers > 1 else 0
        with mock.patch.object(sandbox, "_supervise", lambda *_: time.sleep(seconds)):
            sandbox.run_python("pass")
        return super().generate(models, request, clock)


def slow(folder, processes, seconds):
    decoder = {"_target_": "tests.unit.runner.test_ending.Slow", "seconds": seconds}
    timing = toy.TimingConfig(repeats=40, warmup=0, processes=processes)
    return toy.config(folder, method=toy.method("own", decoder), timing=timing)


def started(tmp_path, repo_root, processes, seconds, lines=1):
    """Start a job as a command, wait until it has measured, and return it with its journals."""
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    (tmp_path / "temporary").mkdir()
    process = subprocess.Popen(
        [sys.executable, str(script), "slow", str(tmp_path), str(processes), str(seconds)],
        env={**os.environ, "PYTHONPATH": str(repo_root), "TMPDIR": str(tmp_path / "temporary")},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    folder = tmp_path / "results" / ".journal"
    deadline = time.monotonic() + 90
    while sum(path.read_text().count('{"rows"') for path in folder.glob("*.jsonl")) < lines:
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process, folder


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_run_like_an_interruption(tmp_path, repo_root, processes, name):
    process, folder = started(tmp_path, repo_root, processes, 0.1)
    number = getattr(signal, name)
    begun = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert f"Ended by {name}. Every finished measurement is kept" in errors
    assert "Traceback" not in errors
    assert wait_until_gone(process.pid, 5), "a process goes on"
    assert time.monotonic() - begun < 20
    (journal,) = folder.glob("*.jsonl")
    assert journal.read_bytes().endswith(b"\n")
    left = [path.name for path in (tmp_path / "temporary").iterdir()]
    assert not [one for one in left if one.startswith("specbench-")]


@pytest.mark.slow
def test_a_process_ends_with_its_parent_inside_of_a_long_sample(tmp_path, repo_root):
    """The parent is ended without a word while its process decodes for a minute."""
    process, _ = started(tmp_path, repo_root, 2, 60)
    process.kill()
    process.wait()
    begun = time.monotonic()
    assert wait_until_gone(process.pid, 30)
    assert time.monotonic() - begun < 8
    left = [path.name for path in (tmp_path / "temporary").iterdir()]
    assert not [one for one in left if one.startswith("specbench-")]


def test_an_ignored_signal_stays_ignored_and_a_second_one_disturbs_nothing():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        ending.heed()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        with pytest.raises(KeyboardInterrupt) as end:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        assert isinstance(end.value, Ended) and end.value.number == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)  # nothing happens
        time.sleep(0.05)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


TOGETHER = """
import os, signal
from specbench.ending import ENDING, heed
from specbench.errors import Ended

signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
for number in sorted(ENDING):
    os.kill(os.getpid(), number)
heed(ENDING)
try:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
except Ended as end:
    print(end.number)
"""


def test_signals_that_arrive_together_end_once_and_without_a_word(repo_root):
    """Python prints an error where a signal is ignored between its arrival and its turn."""
    done = subprocess.run(
        [sys.executable, "-c", TOGETHER], cwd=repo_root, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) in ending.ENDING


def test_a_removed_results_folder_stops_the_run_and_says_what_is_lost(tmp_path, monkeypatch):
    config = toy.config(tmp_path)
    original = Journal.append_many
    calls = []

    def removing(journal, rows):
        calls.append(rows)
        if len(calls) == 3:
            shutil.rmtree(config.results_dir)
        original(journal, rows)

    monkeypatch.setattr(Journal, "append_many", removing)
    with pytest.raises(ResultsError, match="was removed during the run") as stop:
        run_job(config)
    assert len(calls) == 3 and stop.value.exit_code == 2
    assert "all 6 finished measurements of this job are lost" in stop.value.why
    assert "keeps" not in str(stop.value)
    assert not config.results_dir.exists()


def test_a_folder_removed_before_the_last_write_is_told_too(tmp_path, monkeypatch):
    config = toy.config(tmp_path)
    original = Journal.append_many
    calls = []

    def removing(journal, rows):
        original(journal, rows)
        calls.append(rows)
        if len(calls) == 8:
            shutil.rmtree(config.results_dir)

    monkeypatch.setattr(Journal, "append_many", removing)
    with pytest.raises(ResultsError, match="was removed") as stop:
        run_job(config)
    assert "all 16 finished measurements" in stop.value.why


def test_a_moved_results_folder_keeps_what_it_holds(tmp_path, monkeypatch):
    config = toy.config(tmp_path)
    original = Journal.append_many
    calls = []

    def moving(journal, rows):
        calls.append(rows)
        if len(calls) == 3:
            config.results_dir.rename(tmp_path / "elsewhere")
        original(journal, rows)

    monkeypatch.setattr(Journal, "append_many", moving)
    with pytest.raises(ResultsError, match="was moved away") as stop:
        run_job(config)
    assert "keeps 4 finished measurements" in stop.value.why
    monkeypatch.setattr(Journal, "append_many", original)
    (tmp_path / "elsewhere").rename(config.results_dir)
    assert run_job(config).failed == 0
