"""`specbench report`: what it writes, and what it refuses before it writes anything."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from specbench.cli.app import app
from tests.unit.report.pages import text_results


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("results")
    text_results(path, 6)
    return path


def call(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_page_is_the_default(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(folder)
    assert (done.exit_code, done.stdout) == (0, "report.html\n")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_everything_at_once(folder, tmp_path):
    page, table, plots = tmp_path / "a" / "r.html", tmp_path / "t.tex", tmp_path / "plots"
    done = call(
        folder, "-o", page, "--latex", table, "--plots", plots, "--title", "A & B", "--json"
    )
    assert done.exit_code == 0, done.stderr
    files = json.loads(done.stdout)["files"]
    assert {str(page), str(table), str(plots / "speedup.svg")} <= set(files)
    assert "<h1>A &amp; B</h1>" in page.read_text(encoding="utf-8")
    assert r"\toprule" in table.read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.rglob("*") if path.name.startswith(".")} == set()


def test_tables_alone_write_no_page(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(folder, "--latex", "t.tex").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["t.tex"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--by", "tasks"), "Did you mean 'task'?"),
        (("--open", "--latex", "t.tex"), "--open has no page"),
        (("-o", "."), "it is a folder"),
        (("-o", "file/report.html"), "is not a folder"),
        (("--plots", "file"), "is not a folder"),
    ],
)
def test_what_cannot_be_is_refused_first(folder, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    done = call(folder, *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_is_no_result_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and no more")
    assert call("x.parquet").exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]


def test_help_loads_nothing_heavy():
    heavy = {"torch", "matplotlib", "jinja2", "pandas", "numpy"}
    program = (
        "import sys\nfrom specbench.cli.app import app\n"
        "try:\n    app(['report', '--help'])\nexcept SystemExit:\n    pass\n"
        f"print(*({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.split() == []


def test_a_page_loads_no_torch(folder, tmp_path):
    program = (
        "import sys\nfrom specbench.cli.app import app\n"
        f"try:\n    app(['report', {str(folder)!r}, '-o', {str(tmp_path / 'r.html')!r}])\n"
        "except SystemExit:\n    pass\n"
        "print(*({'torch'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.split() == []
    assert (tmp_path / "r.html").exists()
