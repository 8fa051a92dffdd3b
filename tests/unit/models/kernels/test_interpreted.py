"""Every Triton kernel computes its definition: run on the CPU by Triton's interpreter.

The interpreter is chosen when a kernel is defined, so that its tests need a process of their
own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("interpreted_*.py"))


def run(repo_root: Path, marked: str, *files: Path) -> None:
    """Run the tests of some files in a process that interprets kernels."""
    options = ["-p", "no:cacheprovider", "-p", "no:xdist", "-m", marked]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *map(str, files)],
        env=environment,
        cwd=repo_root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


def test_kernels_compute_their_definition(repo_root):
    run(repo_root, "not slow", *FILES)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_broken_kernels_are_seen_and_more_cases_pass(file, repo_root):
    run(repo_root, "slow", file)


def test_there_is_something_to_run():
    assert len(FILES) == 3
