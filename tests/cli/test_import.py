"""`specbench import`: files in, result files out, and what is odd on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from specbench.importing import FORMATS
from tests.unit.importing.factory import rest_baseline, rest_method, vllm_run, write

Call = Callable[..., Result]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A baseline and a method of twelve questions."""
    plain = write(tmp_path / "plain.jsonl", *(rest_baseline(at) for at in range(81, 93)))
    fast = write(tmp_path / "fast.jsonl", *(rest_method(at) for at in range(81, 93)))
    return [str(plain), str(fast)]


def test_what_is_imported_can_be_listed_compared_and_read_as_json(
    specbench: Call, files: list[str], tmp_path: Path
) -> None:
    folder = str(tmp_path / "results")
    done = specbench("import", *files, "--results-dir", folder)
    assert done.exit_code == 0, done.output
    assert "rest" in done.stdout and "vicuna-7b-v1.5" in done.stdout
    assert "last index of a loop" in done.stderr and "last index" not in done.stdout
    assert "12 of 12 answers" in done.stderr
    (path,) = (tmp_path / "results").iterdir()
    assert f"Wrote {path}" in done.stderr
    listed = specbench("list", "results", "--results-dir", folder)
    assert listed.exit_code == 0 and "rest" in listed.stdout
    for options in ((), ("--json",), ("--markdown",), ("--csv", "-")):
        compared = specbench("compare", folder, *options)
        assert compared.exit_code == 0, compared.output
        assert "rest" in compared.stdout


def test_a_law_that_is_not_known_is_listed_as_such(specbench: Call, tmp_path: Path) -> None:
    log = write(tmp_path / "log.json", vllm_run())
    folder = str(tmp_path / "results")
    assert specbench("import", str(log), "--results-dir", folder).exit_code == 0
    listed = specbench("list", "results", "--results-dir", folder, "--json")
    assert json.loads(listed.stdout)[0]["temperature"] is None
    assert specbench("compare", folder).exit_code == 0


def test_json_names_the_files_and_what_was_read(
    specbench: Call, files: list[str], tmp_path: Path
) -> None:
    done = specbench("import", *files, "--results-dir", str(tmp_path / "r"), "--json")
    (one,) = json.loads(done.stdout)
    assert Path(one["path"]).is_file()
    assert (one["method"], one["baseline"], one["samples"], one["rows"]) == ("rest", "ar", 12, 24)
    assert one["source"]["format"] == "rest"
    assert done.stderr == ""


def test_a_dry_run_writes_nothing(specbench: Call, files: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "results"
    done = specbench("import", *files, "--results-dir", str(folder), "--dry-run")
    assert done.exit_code == 0
    assert "Would write rest__" in done.stderr
    assert not folder.exists()
    done = specbench("import", *files, "--results-dir", str(folder), "--dry-run", "--json")
    assert json.loads(done.stdout)[0]["path"] is None
    assert not folder.exists()


def test_a_bad_line_is_one_error_and_no_file(
    specbench: Call, files: list[str], tmp_path: Path
) -> None:
    with Path(files[1]).open("a") as file:
        file.write("{")
    folder = tmp_path / "results"
    done = specbench("import", *files, "--results-dir", str(folder))
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "line 13" in done.stderr and "--skip-bad" in done.stderr
    assert not folder.exists()
    done = specbench("import", *files, "--results-dir", str(folder), "--skip-bad")
    assert done.exit_code == 0
    assert "Line 13 was left out" in done.stderr


def test_wrong_options_are_refused(specbench: Call, files: list[str]) -> None:
    wrong = specbench("import", *files, "--format", "medsua", "--dry-run")
    assert wrong.exit_code == 2
    assert "Did you mean 'medusa'" in wrong.stderr
    assert specbench("import", *files, "--method", " ", "--dry-run").exit_code == 2
    assert specbench("import", *files, "--temperature", "-1", "--dry-run").exit_code == 2
    assert specbench("import", "--dry-run").exit_code == 2
    named = specbench("import", *files, "--baseline", "none.jsonl", "--dry-run")
    assert named.exit_code == 2
    assert "There is no file" in named.stderr


def test_pairs_that_do_not_belong_together_exit_with_three(
    specbench: Call, files: list[str], tmp_path: Path
) -> None:
    other = write(tmp_path / "other.jsonl", rest_method(1))
    done = specbench("import", files[0], str(other), "--dry-run")
    assert done.exit_code == 3
    assert "no question in common" in done.stderr


def test_a_folder_that_cannot_be_written_is_an_error(
    specbench: Call, files: list[str], tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    done = specbench("import", *files, "--results-dir", str(blocked))
    assert done.exit_code == 2
    assert "Cannot write" in done.stderr


def test_help_names_every_format(specbench: Call) -> None:
    text = " ".join(specbench("import", "--help").output.split())
    for name in FORMATS:
        assert name in text
