"""The script of the first minutes on a GPU runs to its end on a CPU, step by step."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check.sh"


def check(tmp_path, *arguments, script=SCRIPT, cwd=None):
    return subprocess.run(
        ["bash", str(script), *arguments],
        cwd=cwd,
        env={**os.environ, "OUT": str(tmp_path)},
        capture_output=True,
        text=True,
    )


def test_without_a_part_it_says_how_it_is_called(tmp_path):
    shown = check(tmp_path)
    assert shown.returncode == 2 and "--rehearse" in shown.stdout


@pytest.mark.parametrize("arguments", [("engine", "--rehears"), ("engine", "methods"), ("both",)])
def test_a_mistyped_word_measures_nothing(tmp_path, arguments):
    shown = check(tmp_path, *arguments)
    assert shown.returncode == 2 and "=== " not in shown.stdout and "--rehearse" in shown.stdout


def test_it_says_how_it_is_called_in_any_folder(tmp_path):
    shown = check(tmp_path, script=SCRIPT.name, cwd=SCRIPT.parent)
    assert shown.returncode == 2 and "--rehearse" in shown.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("timeout") is None, reason="needs coreutils")
@pytest.mark.parametrize(
    "part, steps",
    [
        ("engine", ("CUDA tests", "8B graph kernels")),
        ("methods", ("doctor", "mc_sjd on the Chameleon shape", "pictures")),
    ],
)
def test_the_rehearsal_takes_every_step(tmp_path, part, steps):
    done = check(tmp_path, part, "--rehearse")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert f"{part}: every step done" in done.stdout
    for name in steps:
        assert f"--- {name}: done" in done.stdout
    if part == "engine":
        assert len(list(tmp_path.glob("*.json"))) == 3
    else:
        assert len(list((tmp_path / "results").glob("*.parquet"))) == 6
