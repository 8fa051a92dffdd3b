"""`specbench compare --fail-on`, `--gha` and `specbench history` on made-up result files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from specbench.schema.result import METHOD
from tests.unit.compare.factory import job_rows, metadata, result_set, slowed

Call = Callable[..., Result]


def folder_of(path: Path, forwards: int = 50, slower: float = 1.0, **about: Any) -> Path:
    path.mkdir()
    rows = [
        slowed(row, slower) | {"target_forwards": forwards} if row["arm"] == METHOD else row
        for row in job_rows()
    ]
    return result_set(path, rows, metadata(**about), "job").path.parent


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "base")


def test_nothing_changed_ends_with_0(specbench: Call, base: Path) -> None:
    result = specbench("compare", str(base), str(base), "--fail-on", "nfe:1%")
    assert result.exit_code == 0, result.output
    assert "Passed: 1 passed." in result.stdout
    assert result.stderr == ""


def test_a_regression_ends_with_1_after_its_table(
    specbench: Call, base: Path, tmp_path: Path
) -> None:
    worse = folder_of(tmp_path / "worse", 51, 1.1)
    rules = ["--fail-on", "nfe:1%", "--fail-on", "speedup_e2e:3%", "--fail-on", "mal:1%"]
    result = specbench("compare", str(base), str(worse), *rules)
    assert result.exit_code == 1
    assert "Failed: 2 failed, 1 passed." in result.stdout
    assert "token_sd nfe; token_sd speedup_e2e" in result.stderr
    values = json.loads(specbench("compare", str(base), str(worse), *rules, "--json").stdout)
    assert values["failed"] is True
    assert [check["verdict"] for check in values["checks"]] == ["fail", "fail", "pass"]
    page = specbench("compare", str(base), str(worse), *rules, "--markdown").stdout
    assert "| token\\_sd | nfe |" in page and "**fail**" in page


def test_a_regression_is_written_before_the_command_ends(
    specbench: Call, base: Path, tmp_path: Path
) -> None:
    worse, page = folder_of(tmp_path / "worse", 51), tmp_path / "gate.md"
    words = ["compare", str(base), str(worse), "--fail-on", "nfe:1%"]
    result = specbench(*words, "--markdown", "-o", str(page), "--gha", "--gha-dir", str(tmp_path))
    assert result.exit_code == 1
    assert "fail" in page.read_text() and (tmp_path / "summary.md").exists()


def test_another_law_ends_with_3(specbench: Call, base: Path, tmp_path: Path) -> None:
    other = folder_of(tmp_path / "other", law_hash="bb22")
    result = specbench("compare", str(base), str(other), "--fail-on", "nfe:1%")
    assert (result.exit_code, result.stdout) == (3, "")
    allowed = specbench("compare", str(base), str(other), "--fail-on", "nfe:1%", "--allow", "law")
    assert allowed.exit_code == 0 and "Allowed difference" in allowed.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--fail-on", "nfee:1%"], "Did you mean 'nfe'?"),
        (["--fail-on", "nfe:-1%"], "nfe:+1%"),
        (["--fail-on", "nfe:1%", "--csv", "-"], "--csv"),
        (["--fail-on", "nfe:1%", "--by", "overall"], "--by"),
        (["--base", "x"], "--fail-on"),
        (["--strict"], "--fail-on"),
        (["--fail-on", "speedup_e2e:3"], "speedup_e2e:3%"),
        (["--fail-on", "acceptance_rate:1"], "acceptance_rate:1%"),
        (["--fail-on", "mal:20"], "cannot fall by more"),
        (["--fail-on", "mal:100%"], "cannot fall by more"),
    ],
)
def test_what_makes_no_sense_ends_with_2(
    specbench: Call, base: Path, words: list[str], told: str
) -> None:
    result = specbench("compare", str(base), str(base), *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_a_gate_that_saw_nothing_says_so_and_fails_where_that_is_asked(
    specbench: Call, tmp_path: Path
) -> None:
    path = tmp_path / "once"
    path.mkdir()
    once = [row for row in job_rows() if row["repeat"] == 0]
    base = str(result_set(path, once, metadata(), "job").path.parent)
    words = ["compare", base, base, "--fail-on", "speedup_e2e:3%"]
    loose = specbench(*words)
    assert (loose.exit_code, "Nothing was seen: 1 inconclusive." in loose.stdout) == (0, True)
    strict = specbench(*words, "--strict")
    assert strict.exit_code == 1
    assert "Failed: 1 inconclusive (--strict)." in strict.stdout
    assert "token_sd speedup_e2e (inconclusive)" in strict.stderr
    assert "Measure more" in strict.stderr and "became worse" not in strict.stderr


def test_tolerances_of_100_percent_and_more_are_written_out(specbench: Call, base: Path) -> None:
    result = specbench("compare", str(base), str(base), "--fail-on", "nfe:250%")
    assert (result.exit_code, "+250%" in result.stdout) == (0, True)


def test_three_sources_need_a_base(specbench: Call, base: Path) -> None:
    sources = [str(base / "job.parquet")] * 3
    refused = specbench("compare", *sources, "--fail-on", "nfe:1%")
    assert refused.exit_code == 2 and "--base" in refused.stderr
    named = specbench("compare", *sources, "--base", str(base), "--fail-on", "nfe:1%")
    assert named.exit_code == 0, named.output


def test_gha_writes_a_file_for_each_polarity(
    specbench: Call, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "step.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    result = specbench("compare", str(base), "--gha", "--gha-dir", str(tmp_path / "gha"))
    assert result.exit_code == 0, result.output
    bigger = json.loads((tmp_path / "gha" / "bigger_is_better.json").read_text())
    smaller = json.loads((tmp_path / "gha" / "smaller_is_better.json").read_text())
    for points in (bigger, smaller):
        for point in points:
            assert (
                {"name", "unit", "value"}
                <= set(point)
                <= {
                    "name",
                    "unit",
                    "value",
                    "range",
                    "extra",
                }
            )
            assert isinstance(point["value"], float)
    names = {point["name"].rpartition(" / ")[2] for point in bigger}
    assert {"speedup_e2e", "mal", "tokens_per_second", "score"} <= names
    assert {p["name"].rpartition(" / ")[2] for p in smaller} == {
        "nfe",
        "ttft_ms",
        "peak_memory_bytes",
    }
    assert summary.read_text().startswith("before\n") and "token" in summary.read_text()
    assert not (tmp_path / "gha" / "summary.md").exists()


def test_gha_that_cannot_be_written_is_told(specbench: Call, base: Path) -> None:
    target = str(base / "job.parquet" / "below")
    result = specbench("compare", str(base), "--gha", "--gha-dir", target)
    assert result.exit_code == 2 and "Cannot write" in result.stderr


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three commits; the second is slower, the third has uncommitted changes."""
    root = tmp_path / "runs"
    root.mkdir()
    for place, (commit, slower, dirty) in enumerate(
        [("a" * 40, 1.0, False), ("b" * 40, 1.1, False), ("b" * 40, 1.0, True)]
    ):
        rows = [
            slowed(row, slower) if row["arm"] == METHOD else row
            for row in job_rows(started_unix=1.7e9 + place * 86400)
        ]
        git = {"git": {"revision": commit, "dirty": dirty}}
        result_set(root, rows, metadata(provenance=git), f"run{place}")
    return root


def test_a_history_draws_every_revision(specbench: Call, runs: Path) -> None:
    (runs / "broken.parquet").write_bytes(b"")
    result = specbench("history", str(runs))
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if "●" in line]
    assert [line.split()[0] for line in lines] == ["aaaaaaaaa", "bbbbbbbbb", "bbbbbbbbb+"]
    assert "-9.1% worse" in lines[1] and "+10.0% better" in lines[2]
    assert "broken.parquet" in result.stderr


def test_a_history_has_other_forms(specbench: Call, runs: Path) -> None:
    plain = json.loads(specbench("history", str(runs), "--metric", "nfe", "--json").stdout)
    points = plain["series"][0]["points"]
    assert [point["verdict"] for point in points] == ["", "same", "same"]
    lines = csv.DictReader(io.StringIO(specbench("history", str(runs), "--csv", "-").stdout))
    assert [line["verdict"] for line in lines] == ["", "worse", "better"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--metric", "nfee"], "Did you mean 'nfe'?"),
        (["--method", "token_s"], "Did you mean 'token_sd'?"),
        (["--task", "tiny_mat"], "Did you mean 'tiny_math'?"),
        (["--by", "tasks"], "Did you mean 'task'?"),
        (["--metric", "fid"], "No result file has a value"),
        (["--metric", "identical"], "no history"),
        (["--json", "--csv", "-"], "One format"),
    ],
)
def test_a_history_of_nothing_is_told(
    specbench: Call, runs: Path, words: list[str], told: str
) -> None:
    result = specbench("history", str(runs), *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_a_folder_without_results_is_told(specbench: Call, tmp_path: Path) -> None:
    assert specbench("history", str(tmp_path)).exit_code == 2
    assert specbench("history", str(tmp_path / "none")).exit_code == 2
