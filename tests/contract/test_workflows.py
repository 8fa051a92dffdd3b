"""The workflows say what exists: valid YAML, pinned actions, commands and flags that are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from specbench.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
REFERENCE = ROOT / "results" / "reference" / "gate"


def steps(text: str) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(text)["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def commands(path: Path) -> list[list[str]]:
    """The words of every `specbench` command of a workflow, or of a page and its workflows."""
    text = path.read_text(encoding="utf-8")
    lines: list[str] = []
    workflows = [text]
    if path.suffix == ".md":
        workflows = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
        lines = [line.removeprefix("$ ") for line in text.replace("\\\n", " ").splitlines()]
    for workflow in workflows:
        lines += [line for step in steps(workflow) for line in step.get("run", "").splitlines()]
    split = [shlex.split(line, comments=True) for line in lines if line.startswith("specbench ")]
    return [words[1:] for words in split]


def flags_of(name: str) -> set[str]:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    return {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}


def test_there_are_workflows() -> None:
    assert {path.name for path in WORKFLOWS} >= {"benchmark.yml", "ci.yml"}
    assert {words[0] for words in commands(ROOT / ".github/workflows/benchmark.yml")} == {
        "run",
        "compare",
        "audit",
        "report",
    }


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_and_nothing_else(path: Path) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert document["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in document["jobs"].values())
    assert all("timeout-minutes" in job for job in document["jobs"].values())
    for step in steps(path.read_text(encoding="utf-8")):
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])


@pytest.mark.parametrize(
    "path", [*WORKFLOWS, ROOT / "docs" / "gate.md"], ids=lambda path: path.name
)
def test_every_command_and_flag_exists(path: Path) -> None:
    for words in commands(path):
        flags = {word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
        assert flags <= flags_of(words[0]), words


def step_words(name: str) -> list[str]:
    return next(
        words for words in commands(ROOT / ".github/workflows/benchmark.yml") if words[0] == name
    )


def moved(words: list[str], folder: Path) -> list[str]:
    """The same command, with what it writes in another folder and the reference where it is."""
    return [
        word.replace("results/reference/gate", str(REFERENCE))
        .replace("results/gate", str(folder / "gate"))
        .replace("results/gha", str(folder / "gha"))
        for word in words
    ]


def test_the_gate_of_the_workflow_holds_the_reference_against_itself(tmp_path: Path) -> None:
    (tmp_path / "gate").symlink_to(REFERENCE)
    result = CliRunner().invoke(app, moved(step_words("compare"), tmp_path))
    assert result.exit_code == 0, result.output
    assert "inconclusive" not in result.stdout.splitlines()[-1]
    assert {path.name for path in (tmp_path / "gha").iterdir()} >= {
        "bigger_is_better.json",
        "smaller_is_better.json",
    }


@pytest.mark.slow
def test_the_workflow_measures_what_its_gate_lets_pass(tmp_path: Path) -> None:
    runner = CliRunner()
    measured = runner.invoke(app, moved(step_words("run"), tmp_path))
    assert measured.exit_code == 0, measured.output
    result = runner.invoke(app, moved(step_words("compare"), tmp_path))
    assert result.exit_code == 0, result.output
