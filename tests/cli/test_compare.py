"""`specbench compare` and the table of a run, on real result files of made-up measurements."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from specbench.cli.run import print_comparison
from tests.unit.compare.factory import job_rows, metadata, result_set

Call = Callable[..., Result]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """One greedy job and one at temperature 1."""
    greedy = result_set(tmp_path, job_rows(), metadata(), "greedy")
    sampled = metadata(law="temperature 1", law_hash="bb22", temperature=1.0, job_id="ba9876543210")
    return [greedy.path, result_set(tmp_path, job_rows(), sampled, "sampled").path]


def test_a_table_goes_to_stdout(specbench: Call, files: list[Path]) -> None:
    result = specbench("compare", str(files[0]))
    assert result.exit_code == 0, result.output
    assert "token_sd" in result.stdout and "ar" in result.stdout
    assert result.stderr == ""


def test_every_format_names_the_method(specbench: Call, files: list[Path], tmp_path: Path) -> None:
    plain = json.loads(specbench("compare", str(files[0]), "--json").stdout)
    assert [row["label"] for row in plain["rows"]] == ["ar", "token_sd"]
    rows = list(
        csv.DictReader(io.StringIO(specbench("compare", str(files[0]), "--csv", "-").stdout))
    )
    assert [row["label"] for row in rows] == ["ar", "token_sd"]
    assert "| token" in specbench("compare", str(files[0]), "--markdown").stdout
    written = tmp_path / "table.md"
    result = specbench("compare", str(files[0]), "--markdown", "--output", str(written))
    assert result.stdout == ""
    assert "token" in written.read_text()


def test_different_laws_are_refused_with_three(specbench: Call, files: list[Path]) -> None:
    words = ["compare", *map(str, files)]
    refused = specbench(*words)
    assert refused.exit_code == 3
    assert refused.stdout == ""
    assert "law" in refused.stderr
    allowed = specbench(*words, "--allow", "law")
    assert allowed.exit_code == 0, allowed.output


def test_an_unknown_name_to_allow_is_told(specbench: Call, files: list[Path]) -> None:
    result = specbench("compare", str(files[0]), "--allow", "devic")
    assert result.exit_code == 2
    assert "device" in result.stderr


@pytest.mark.parametrize("content", [b"", b"PAR1 and no end", b"not parquet at all\n"])
def test_a_foreign_file_is_named(specbench: Call, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.parquet"
    path.write_bytes(content)
    result = specbench("compare", str(path))
    assert result.exit_code == 2
    assert "foreign.parquet" in result.stderr.splitlines()[0]


def test_a_file_that_cannot_be_written_is_told(specbench: Call, files: list[Path]) -> None:
    result = specbench("compare", str(files[0]), "--csv", str(files[0] / "below" / "a.csv"))
    assert result.exit_code == 2
    assert "Cannot write" in result.stderr


def test_results_are_listed(specbench: Call, files: list[Path]) -> None:
    folder = files[0].parent
    (folder / "broken.parquet").write_bytes(b"")
    result = specbench("list", "results", "--results-dir", str(folder), "--json")
    assert {entry["temperature"] for entry in json.loads(result.stdout)} == {0.0, 1.0}
    assert "broken.parquet" in result.stderr


def test_a_sweep_over_laws_prints_a_table_for_each(
    files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    print_comparison(files)
    assert capsys.readouterr().out.count("tiny_math") == 2
    print_comparison(files[:1])
    assert capsys.readouterr().out.count("tiny_math") == 1
