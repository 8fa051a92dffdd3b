"""The worked examples of CONTRIBUTING.md, run exactly as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from specbench.paths import weights_dir

BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def example(tmp_path_factory, repo_root):
    folder = tmp_path_factory.mktemp("example")
    commands = []
    for language, file, text in BLOCK.findall((repo_root / "CONTRIBUTING.md").read_text()):
        if file:
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif language == "console":
            commands += [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    return folder, commands


def run(folder, command):
    words = shlex.split(command)
    environment = dict(os.environ)
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    assert words[0] == "specbench"
    program = [sys.executable, "-m", "specbench", *words[1:]]
    return subprocess.run(
        program, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_the_examples_are_complete(example):
    folder, commands = example
    assert len(commands) == 4
    assert (folder / "echo_drafter.py").is_file()
    assert (folder / "conf/method/pld_recent.yaml").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not weights_dir().is_dir(), reason="the embedded weights are not there")
def test_every_command_runs_and_every_method_is_faithful(example):
    folder, commands = example
    for command in commands:
        done = run(folder, command)
        assert done.returncode == 0, done.stderr
    files = sorted(Path(folder / "results").glob("*.parquet"))
    methods = set()
    for file in files:
        rows = pd.read_parquet(file)
        method = rows[rows["arm"] == "method"]
        methods |= set(method["method"])
        assert set(method["fidelity"]) <= {"identical", "tie"}
    assert methods == {"pld", "pld_recent", "echo"}
