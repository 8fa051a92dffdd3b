"""A measurement that was held up inside of its timed region is named, and only that one."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time

import pytest

from specbench.compare import compare
from specbench.store import read_parquet
from tests.unit.compare.factory import job_rows, metadata, result_set, slowed


def warnings_of(folder, rows):
    found = compare([result_set(folder, rows, metadata())]).warnings
    return [line for line in found if "held up while timed" in line]


def test_a_stopped_measurement_is_named(tmp_path):
    rows = job_rows()
    assert not warnings_of(tmp_path, rows)
    place = next(
        i
        for i, row in enumerate(rows)
        if (row["sample_id"], row["repeat"], row["arm"]) == ("s004", 1, "method")
    )
    rows[place] = slowed(rows[place], 12)
    (line,) = warnings_of(tmp_path, rows)
    assert "token_sd" in line and "s004, method, repeat 1 (1" in line
    assert line.count("repeat 1") == 1 and "more." not in line


def test_many_are_counted_and_the_slowest_named(tmp_path):
    rows = job_rows()
    for place, row in enumerate(rows):
        if row["repeat"] == 0 and row["arm"] == "baseline" and row["sample_id"] < "s005":
            rows[place] = slowed(row, 5 + int(row["sample_id"][-1]))
    (line,) = warnings_of(tmp_path, rows)
    assert "s004, baseline, repeat 0" in line and "s003" in line and "s002" in line
    assert "and 2 more" in line and "s001" not in line


@pytest.mark.parametrize("repeats", [1, 2])
def test_few_repeats_cannot_tell(tmp_path, repeats):
    rows = job_rows(repeats=repeats)
    rows[0] = slowed(rows[0], 50)
    assert not warnings_of(tmp_path, rows)


@pytest.mark.parametrize("repeats", [1, 3])
def test_one_round_that_was_held_up_is_named(tmp_path, repeats):
    rows = job_rows(repeats=repeats)
    place = next(i for i, row in enumerate(rows) if row["sample_id"] == "s007")
    rounds = [dict(entry) for entry in rows[place]["rounds"]]
    usual = sum(rounds[2][f"{part}_ns"] or 0 for part in ("draft", "target", "host", "sampling"))
    rounds[2]["host_ns"] += 39 * usual
    rows[place] = {**rows[place], "rounds": rounds}
    (line,) = warnings_of(tmp_path, rows)
    arm = rows[place]["arm"]
    assert f": s007, {arm}, repeat 0, round 2 (40.0x)" in line and ";" not in line


def test_a_slow_prefill_is_no_outlying_round(tmp_path):
    rows = job_rows()
    for place, row in enumerate(rows):
        first, *rest = row["rounds"]
        rows[place] = {**row, "rounds": [{**first, "target_ns": 100 * first["target_ns"]}, *rest]}
    assert not warnings_of(tmp_path, rows)


def journaled(folder):
    lines = [line for path in folder.glob(".journal/*.jsonl") for line in path.open()][1:]
    whole = [json.loads(line)["rows"] for line in lines if line.endswith("\n")]
    return [row for rows in whole for row in rows]


@pytest.mark.slow
def test_a_stopped_process_is_told_by_its_round(tmp_path, repo_root):
    """Five stops, each as long as forty rounds, at random moments on the embedded pair."""
    words = [sys.executable, "-m", "specbench", "run", "method=token_sd", "task=tiny"]
    words += ["task.limit=24", "timing.repeats=1", f"results_dir={tmp_path}", "progress=false"]
    run = subprocess.Popen(words, cwd=repo_root, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(rows := journaled(tmp_path)) < 6:
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    step = max(row["total_ns"] / row["new_tokens"] for row in rows) / 1e9
    chance = random.Random(0)
    for _ in range(5):
        time.sleep(chance.uniform(5, 30) * step)
        run.send_signal(signal.SIGSTOP)
        time.sleep(40 * step)
        run.send_signal(signal.SIGCONT)
    assert run.wait(240) == 0
    (path,) = tmp_path.glob("*.parquet")
    found = [line for line in compare([read_parquet(path)]).warnings if "held up" in line]
    assert len(found) == 1 and ", round " in found[0]
