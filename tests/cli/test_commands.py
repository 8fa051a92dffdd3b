"""The commands that measure nothing: list, show, compare's words, doctor, help."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from specbench.cli import doctor
from specbench.cli.run import _complete

Call = Callable[..., Result]


@pytest.mark.parametrize(
    ("kind", "name"), [("methods", "token_sd"), ("models", "tiny_text"), ("tasks", "gsm8k")]
)
def test_a_list_names_every_entry(specbench: Call, kind: str, name: str) -> None:
    result = specbench("list", kind)
    assert result.exit_code == 0
    assert name in result.stdout
    entries = json.loads(specbench("list", kind, "--json").stdout)
    assert name in [entry["name"] for entry in entries]


def test_no_results_is_no_error(specbench: Call, tmp_path: Path) -> None:
    result = specbench("list", "results", "--results-dir", str(tmp_path))
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "no results" in result.stderr


def test_an_unknown_kind_is_told(specbench: Call) -> None:
    result = specbench("list", "method")
    assert result.exit_code == 2
    assert "Did you mean 'methods'?" in result.stderr
    assert specbench("show", "methods", "ar").exit_code == 2


def test_show_prints_the_parts_and_the_parameters(specbench: Call) -> None:
    text = specbench("show", "method", "token_sd").stdout
    for word in ("exact", "arxiv.org/abs/2211.17192", "drafters.model.ModelDrafter"):
        assert word in text
    assert "method.draft_length=4" in text
    assert json.loads(specbench("show", "method", "token_sd", "--json").stdout)["needs"] == [
        "draft"
    ]


@pytest.mark.parametrize(("kind", "name"), [("model", "vicuna_7b"), ("task", "gsm8k")])
def test_show_prints_a_licence(specbench: Call, kind: str, name: str) -> None:
    result = specbench("show", kind, name)
    assert result.exit_code == 0, result.output
    assert "licence" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "x", "--by", "tsk"], "--by cannot be 'tsk'"),
        (["compare", "x", "--json", "--markdown"], "One format at a time"),
        (["compare", "x", "--output", "y"], "--output has nothing to write"),
        (["compare", "no_such_file.parquet"], ""),
    ],
)
def test_wrong_words_of_compare_end_with_two(
    specbench: Call, words: list[str], message: str
) -> None:
    result = specbench(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {message}")


def test_a_mistyped_command_gets_its_nearest_neighbour(specbench: Call) -> None:
    result = specbench("rnu")
    assert result.exit_code == 2
    assert "Did you mean 'run'?" in result.stderr


@pytest.mark.parametrize("command", [(), ("run",), ("compare",), ("list",), ("show",), ("doctor",)])
def test_every_command_has_help(specbench: Call, command: tuple[str, ...]) -> None:
    result = specbench(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_words_are_never_read_as_markup(specbench: Call) -> None:
    result = specbench("show", "method", "[red]x[/red]")
    assert "[red]x[/red]" in result.stderr


def test_overrides_complete() -> None:
    assert "method=" in _complete("me")
    assert _complete("method=token_s") == ["method=token_sd"]
    assert _complete("baseline=ar") == ["baseline=ar"]
    assert _complete("nothing=") == []


def test_the_doctor_reports_and_exits(specbench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[doctor.Finding]:
        raise RuntimeError("no sandbox")

    for name in ("_weights", "_sandbox", "_device"):
        monkeypatch.setattr(doctor, name, lambda: [])
    monkeypatch.setattr(doctor, "_results_folder", lambda folder: doctor.Finding("f", "ok", "fine"))
    good = specbench("doctor", "--json")
    assert good.exit_code == 0, good.output
    checks = {check["name"]: check for check in json.loads(good.stdout)["checks"]}
    assert checks["python"]["status"] == "ok"
    assert "offline by HF_HUB_OFFLINE" in checks["hub"]["found"]
    monkeypatch.setattr(doctor, "_sandbox", broken)
    bad = specbench("doctor")
    assert bad.exit_code == 1
    assert "no sandbox" in bad.stdout


def test_a_hub_that_does_not_answer_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE")
    monkeypatch.setattr(doctor.socket, "create_connection", refuse)
    (check,) = doctor._hub()
    assert check.status == "note"
    assert "timed out" in check.found


def test_the_console_script_answers(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from specbench.cli.app import main; main()", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.startswith("specbench ")
