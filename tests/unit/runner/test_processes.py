"""Several fresh processes make one job: nothing is lost, counted twice or measured together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from specbench import store
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.errors import ConfigError, JobsFailed
from specbench.runner import run_job
from specbench.runner.job import run_process
from specbench.runner.setup import Job
from specbench.schema.config import TimingConfig
from tests.unit.runner import toy

SAMPLES, ARMS = 4, 2


def config(folder, processes, repeats=1, **changes):
    timing = TimingConfig(repeats=repeats, warmup=1, threads=1, processes=processes)
    return toy.config(folder, timing=timing, **changes)


def measured(about):
    """Run a job's processes one after the other in this interpreter, which is quick."""
    process, begun = 0, False
    while (step := run_process(about, process, begun)).result is None:
        process, begun = step.pending[0], True
    return step.result


def rows_of(path):
    rows = store.read_parquet(path).rows
    assert not rows.duplicated(["arm", "sample_id", "repeat", "process"]).any()
    return rows


def own(name):
    return toy.method(name.lower(), {"_target_": f"{__name__}.{name}"})


class Signed(Autoregressive):
    """Writes down which process ran, and when it began and ended."""

    def generate(self, models, request, clock):
        began = time.time()
        generation = super().generate(models, request, clock)
        with (Path(os.environ["SIGNED"])).open("a") as file:
            file.write(f"{os.getpid()} {began} {time.time()}\n")
        return generation


@pytest.mark.slow
def test_each_process_is_fresh_and_none_runs_beside_another(tmp_path, monkeypatch):
    signed = tmp_path / "signed"
    monkeypatch.setenv("SIGNED", str(signed))
    result = run_job(config(tmp_path, 2, repeats=2, method=own("Signed")))
    rows = rows_of(result.path)
    assert len(rows) == SAMPLES * ARMS * 2 * 2 and result.failed == 0 and not result.reused
    assert rows.groupby("process").size().tolist() == [16, 16]
    entries = [line.split() for line in signed.read_text().splitlines()]
    order = list(dict.fromkeys(pid for pid, _, _ in entries))
    assert len(order) == 2 and str(os.getpid()) not in order
    spans = {pid: [e for e in entries if e[0] == pid] for pid in order}
    assert max(float(e[2]) for e in spans[order[0]]) < min(float(e[1]) for e in spans[order[1]])
    metadata = store.read_parquet(result.path).metadata
    assert metadata.timing["processes"] == 2
    assert [note["process"] for note in metadata.provenance["processes"]] == [0, 1]
    assert not (tmp_path / "results" / ".journal").exists()


def test_the_result_file_waits_for_the_last_process(tmp_path):
    first = run_process(config(tmp_path, 3), 0)
    assert first.result is None and first.pending == (1, 2)
    assert not list((tmp_path / "results").glob("*.parquet"))
    assert run_process(config(tmp_path, 3), 1, begun=True).pending == (2,)
    last = run_process(config(tmp_path, 3), 2, begun=True)
    assert last.result is not None and last.pending == ()
    assert rows_of(last.result.path).groupby("process").size().tolist() == [8, 8, 8]


def test_the_flip_of_a_pair_counts_sample_repeat_and_process(tmp_path):
    job = Job.of(config(tmp_path, 2, repeats=2))
    flips = [[pair.flip for pair in job.lacking(set(), k)] for k in (0, 1)]
    assert flips[0] == [False, True, False, True, True, False, True, False]
    assert flips[1] == [not flip for flip in flips[0]]


def test_a_job_with_more_processes_measures_only_the_further_ones(tmp_path):
    one = run_job(config(tmp_path, 1))
    before = rows_of(one.path)
    more = measured(config(tmp_path, 2))
    assert more.path == one.path and not more.reused
    after = rows_of(more.path)
    assert after["process"].tolist() == [0] * 8 + [1] * 8
    kept = after[after["process"] == 0].reset_index(drop=True)
    assert kept["started_unix"].tolist() == before["started_unix"].tolist()
    assert store.read_parquet(more.path).metadata.timing["processes"] == 2
    assert run_job(config(tmp_path, 1)).reused
    again = measured(config(tmp_path, 2))
    assert again.reused and rows_of(again.path)["started_unix"].equals(after["started_unix"])
    assert len(list((tmp_path / "results").glob("*.parquet"))) == 1


def test_fresh_processes_of_a_fresh_job_go_on_with_one_journal(tmp_path):
    from dataclasses import replace

    old = run_job(config(tmp_path, 1))
    before = rows_of(old.path)
    new = measured(replace(config(tmp_path, 2), resume=False))
    assert new.path != old.path
    assert len(rows_of(new.path)) == 2 * 8
    assert rows_of(old.path)["started_unix"].equals(before["started_unix"])
    assert not set(rows_of(new.path)["started_unix"]) & set(before["started_unix"])


def test_a_stopped_repetition_is_not_mixed_with_the_finished_file(tmp_path):
    from dataclasses import replace

    old = run_job(config(tmp_path, 1))
    before = rows_of(old.path)
    stopped = run_process(replace(config(tmp_path, 2), resume=False), 0)
    assert stopped.result is None
    both = measured(config(tmp_path, 2))
    assert both.path != old.path and len(rows_of(both.path)) == 2 * 8
    assert rows_of(old.path)["started_unix"].equals(before["started_unix"])


def test_a_stopped_extension_goes_on_where_it_was(tmp_path):
    one = run_job(config(tmp_path, 1))
    before = rows_of(one.path)["started_unix"].tolist()
    stopped = run_process(config(tmp_path, 3), 1)
    assert stopped.result is None and stopped.pending == (2,)
    assert len(rows_of(one.path)) == 8  # the finished file stays until the longer one is whole
    done = measured(config(tmp_path, 3))
    rows = rows_of(done.path)
    assert done.path == one.path and rows["process"].tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert rows["started_unix"].tolist()[:8] == before


def test_failed_samples_are_counted_once_over_all_processes(tmp_path):
    result = measured(config(tmp_path, 2, method=own("Failing")))
    assert result.failed == 1
    assert rows_of(result.path)["error"].notna().sum() == 2
    assert measured(config(tmp_path, 2, method=own("Failing"))).failed == 1


class Failing(Autoregressive):
    """Fails on prompts of one length."""

    def generate(self, models, request, clock):
        if len(request.prompt) == 2:
            raise RuntimeError("out of memory")
        return super().generate(models, request, clock)


class Dying(Autoregressive):
    """Kills the second process at its third request, as the system does without memory."""

    def generate(self, models, request, clock):
        count = Path(os.environ["SIGNED"])
        with count.open("a") as file:
            file.write("x")
        if count.stat().st_size == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(models, request, clock)


@pytest.mark.slow
def test_a_process_that_dies_is_told_and_the_rest_is_measured_later(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNED", str(tmp_path / "count"))
    about = config(tmp_path, 3, method=own("Dying"))
    with pytest.raises(JobsFailed, match="Process 2 of 3 died") as death:
        run_job(about)
    assert "SIGKILL" in death.value.why and death.value.exit_code == 1
    assert not list(about.results_dir.glob("*.parquet"))
    (journal,) = about.results_dir.rglob("*.jsonl")
    kept = [line for line in journal.read_text().splitlines() if line.startswith('{"rows"')]
    assert len(kept) == 4 + 1  # process 0 wholly; of process 1 one pair after the warm-up
    result = run_job(about)
    rows = rows_of(result.path)
    assert len(rows) == 3 * SAMPLES * ARMS
    assert (tmp_path / "count").stat().st_size == 8 + (1 + 3) + (1 + 4)  # warm-ups included


@pytest.mark.slow
def test_what_a_process_raises_is_raised_here(tmp_path):
    from dataclasses import replace

    about = config(tmp_path, 2)
    with pytest.raises(ConfigError, match="'token_sd' needs a draft"):
        run_job(replace(about, model=replace(about.model, draft=None)))


class Broken(Autoregressive):
    """A part with a bug of an error that cannot be pickled."""

    def generate(self, models, request, clock):
        raise type("Odd", (ValueError,), {})("seven by nothing")


@pytest.mark.slow
def test_a_bug_in_a_process_keeps_its_traceback(tmp_path):
    with pytest.raises(RuntimeError, match="Odd: seven by nothing") as bug:
        run_job(config(tmp_path, 2, method=own("Broken")))
    assert "in generate" in str(bug.value.__cause__)


def wait_until_gone(group, seconds=20):
    """Wait until no process of a group is left; return whether none is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


INTERRUPTED = """
import signal
import sys
from pathlib import Path
from specbench.runner import run_job
from tests.unit.runner.test_processes import config, own
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" ignores it
    try:
        run_job(config(Path(sys.argv[1]), 2, repeats=8, method=own("Slow")))
    except KeyboardInterrupt:
        sys.exit(130)
"""


class Slow(Autoregressive):
    """Takes its time."""

    def generate(self, models, request, clock):
        time.sleep(0.1)
        return super().generate(models, request, clock)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["group", "parent"])
def test_an_interruption_reaches_the_process_and_keeps_everything(tmp_path, repo_root, to):
    script = tmp_path / "job.py"
    script.write_text(INTERRUPTED)
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    folder = tmp_path / "results" / ".journal"
    deadline = time.monotonic() + 60
    lines = 0
    while lines < 4 and time.monotonic() < deadline and parent.poll() is None:
        time.sleep(0.02)
        lines = sum(path.read_text().count("\n") for path in folder.glob("*.jsonl"))
    if to == "group":
        os.killpg(parent.pid, signal.SIGINT)
    else:
        parent.send_signal(signal.SIGINT)
    _, errors = parent.communicate(timeout=30)
    assert (parent.returncode, errors) == (130, "")
    (journal,) = folder.glob("*.jsonl")
    assert journal.read_text().count('{"rows"') >= 2
    assert wait_until_gone(parent.pid)


@pytest.mark.slow
def test_without_its_parent_a_process_measures_no_further(tmp_path, repo_root):
    script = tmp_path / "job.py"
    script.write_text(INTERRUPTED)
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    folder = tmp_path / "results" / ".journal"
    deadline = time.monotonic() + 60
    while not any('{"rows"' in path.read_text() for path in folder.glob("*.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    assert wait_until_gone(parent.pid), "the measuring process goes on without its parent"
    (journal,) = folder.glob("*.jsonl")
    assert 1 <= journal.read_text().count('{"rows"') < 8 * SAMPLES
