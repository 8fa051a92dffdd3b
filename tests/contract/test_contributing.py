"""The worked examples of CONTRIBUTING.md, run exactly as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from specbench.paths import weights_dir

BLOCK = re.compile(r"^```(\w+)(?: (file|entry)=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
METRIC = "## Worked example: a derived metric"


def written(folder, page):
    """Write the files of a part of the page; return its commands and the entries that it adds."""
    commands, entries = [], {}
    for language, kind, file, text in BLOCK.findall(page):
        if kind == "file":
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif kind == "entry":
            entries[file] = text
        elif language == "console":
            commands += [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    return commands, entries


@pytest.fixture(scope="module")
def page(repo_root):
    return (repo_root / "CONTRIBUTING.md").read_text().partition(METRIC)


@pytest.fixture(scope="module")
def example(tmp_path_factory, page):
    folder = tmp_path_factory.mktemp("example")
    return folder, written(folder, page[0])[0]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, repo_root, page):
    """A checkout with the page's metric in it: links to this one, but for what the page changes."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "specbench").mkdir()
    for path in (repo_root / "specbench").iterdir():
        if path.name not in ("compare", "__pycache__"):
            (folder / "specbench" / path.name).symlink_to(path)
    for name in ("specbench/compare", "tests/unit/compare"):
        shutil.copytree(repo_root / name, folder / name, ignore=shutil.ignore_patterns("test_*"))
    for name in ("conf", "tasks", "pyproject.toml"):
        (folder / name).symlink_to(repo_root / name)
    shutil.copytree(repo_root / "results" / "reference" / "gate", folder / "results")
    commands, entries = written(folder, page[2])
    for file, text in entries.items():
        source = (folder / file).read_text()
        assert source.endswith("\n)\n")
        (folder / file).write_text(f"{source[:-2]}{text.rstrip()},\n)\n")
    return folder, commands


def run(folder, command, *paths):
    words = shlex.split(command)
    environment = dict(os.environ)
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    assert words[0] == "specbench"
    environment["PYTHONPATH"] = os.pathsep.join([*paths, environment.get("PYTHONPATH", "")])
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


def test_a_metric_is_one_entry_and_its_test(checkout):
    folder, commands = checkout
    assert len(commands) == 3
    for command in commands:
        done = run(folder, command, str(folder))
        assert done.returncode == 0, done.stderr
        assert "orwards per token" in done.stdout or "forwards_per_token" in done.stdout
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    program = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_output_has_a_new_metric(checkout):
    """The one entry reaches list, JSON, CSV, the table, Markdown's kin, and the page."""
    folder, _ = checkout
    script = """
import io
from pathlib import Path
from rich.console import Console
from specbench.compare import compare, registry
from specbench.report import csv, json, table
from specbench.report.html import gather, render
from specbench.store import read_many

results = read_many([Path("results")])
comparison = compare(results)
assert "forwards_per_token" in registry.names()
assert '"forwards_per_token": ' in json.render(comparison)
assert "quantities_forwards_per_token" in csv.render(comparison)
stream = io.StringIO()
Console(file=stream, width=300).print(table.render(comparison, 300))
assert "fwd/tok" in stream.getvalue()
assert "fwd/tok: forwards of the target and the draft per new token" in stream.getvalue()
page = render(gather(results, outputs=False))
assert "fwd/tok" in page and "forwards_per_token: Forwards per token" in page
"""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    program = [sys.executable, "-c", script]
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
