"""`specbench calibrate`, from the command line to the file."""

from __future__ import annotations

import json
from pathlib import Path


def test_a_calibration_is_written_where_runs_look(specbench, tmp_path: Path) -> None:
    done = specbench(
        "calibrate",
        "method=sequoia",
        "method.nodes=8",
        "method.max_depth=3",
        "task=tiny_math",
        "sampling.temperature=1",
        "max_new_tokens=12",
        f"results_dir={tmp_path}",
        "--samples",
        "3",
    )
    assert done.exit_code == 0, done.output
    (path,) = (tmp_path / "calibration").glob("*.json")
    assert str(path) in done.output
    written = json.loads(path.read_text())
    assert written["name"] == "sequoia" and written["model"] == "tiny_text"
    assert set(written["digests"]) == {"target", "draft"}
    assert set(written["values"]["target_seconds"]) == {"2", "4", "8"}
    assert len(written["provenance"]["samples"]) == 3
    assert written["provenance"]["task"] == "tiny_math"


def test_the_samples_are_not_those_that_a_run_begins_with(specbench, tmp_path: Path) -> None:
    done = specbench(
        "calibrate",
        "method=sequoia",
        "method.nodes=2",
        "task=tiny_math",
        "task.limit=4",
        "max_new_tokens=6",
        f"results_dir={tmp_path}",
        "--samples",
        "2",
        "--folder",
        str(tmp_path / "elsewhere"),
    )
    assert done.exit_code == 0, done.output
    (path,) = (tmp_path / "elsewhere").glob("*.json")
    numbers = [
        int(name.split("/")[-1]) for name in json.loads(path.read_text())["provenance"]["samples"]
    ]
    assert min(numbers) >= 4


def test_a_method_without_such_parts_says_so(specbench, tmp_path: Path) -> None:
    done = specbench("calibrate", "method=token_sd", f"results_dir={tmp_path}")
    assert done.exit_code == 2
    assert "nothing to calibrate" in done.output


SMALL = (
    "calibrate",
    "method=sequoia",
    "method.nodes=4",
    "method.max_depth=2",
    "task=tiny_math",
    "max_new_tokens=8",
)


def test_the_limit_of_the_task_counts_and_the_time_is_said_before(specbench, tmp_path) -> None:
    done = specbench(*SMALL, "task.limit=2", f"results_dir={tmp_path}")
    assert done.exit_code == 0, done.output
    (path,) = (tmp_path / "calibration").glob("*.json")
    assert len(json.loads(path.read_text())["provenance"]["samples"]) == 2
    # 2 answers for the acceptance, and the trees of 2 and 4 nodes on both again
    assert "up to 48 tokens on 2 samples, about" in done.stderr
    assert done.stdout.strip() == str(path)


def test_what_would_take_days_is_refused_before_it_begins(specbench, tmp_path) -> None:
    words = ("--minutes", "0.00001", f"results_dir={tmp_path}")
    done = specbench(*SMALL, *words)
    assert done.exit_code == 2
    assert "The calibration would take about" in done.stderr and "--samples" in done.stderr
    assert not (tmp_path / "calibration").exists()


def test_a_long_calibration_says_how_far_it_is(specbench, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("specbench.runner.calibrate._TOLD_EVERY", 0.0)
    done = specbench(*SMALL, "task.limit=2", f"results_dir={tmp_path}")
    assert "of at most 48 tokens, at most" in done.stderr
