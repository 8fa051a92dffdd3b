"""`specbench bench-engine` on a tiny shape, and what it refuses before it measures anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from specbench.runner import bandwidth
from specbench.runner.engine import bench

Call = Callable[..., Result]
CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 97,
}


@pytest.fixture
def shape(tmp_path: Path) -> str:
    """The file of a tiny shape."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    found = bandwidth.Bandwidth(1e10, 2**28, 9e9, 1.1e10)
    monkeypatch.setattr(bench, "copy_bandwidth", lambda device: found)


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where something is measured."""
    monkeypatch.setattr(bench, "measure", lambda *words: pytest.fail("it was measured"))


SHORT = ("--context", "6", "--tokens", "8", "--rounds", "1", "--draft-length", "2")


def test_it_prints_a_page_and_writes_the_numbers(
    specbench: Call, shape: str, tmp_path: Path
) -> None:
    kept = tmp_path / "engine.json"
    result = specbench(
        "bench-engine", "--shape", shape, "--draft-shape", shape, *SHORT, "-o", str(kept)
    )
    assert result.exit_code == 0, result.output
    for words in ("Plain decoding", "transformers", "Verifying", "tree of 16", "upper bound"):
        assert words in result.stdout
    assert "not asked" in result.stdout and "missed" not in result.stdout
    (record,) = json.loads(kept.read_text())
    assert [row["engine"] for row in record["plain"]] == ["eager", "transformers"]
    assert record["setting"]["context"] == 6 and record["synthetic"]["draft_length"] == 2
    assert record["setting"]["provenance"]["packages"]["torch"]


def test_json_alone_stands_on_stdout(specbench: Call, shape: str) -> None:
    result = specbench(
        "bench-engine", "--shape", shape, "--draft-shape", shape, *SHORT, "--no-transformers",
        "--json",
    )  # fmt: skip
    (record,) = json.loads(result.stdout)
    assert [row["engine"] for row in record["plain"]] == ["eager"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--engine", "graf"), "Did you mean 'graph'?"),
        (("--engine", "graph", "--device", "cpu"), "execution=graph needs a CUDA device"),
        (("--engine", "kernels", "--device", "cpu"), "execution=kernels needs a CUDA device"),
        (("--verify", "0,8"), "--verify cannot be '0,8'"),
        (("--device", "gpu"), "it is auto, cpu, cuda or cuda:N"),
        (("--device", "cuda:77"), "There is no device 'cuda:77'"),
        (("--dtype", "bfloat61"), "Did you mean 'bfloat16'?"),
        (("--shape", "llama_1"), "Unknown shape 'llama_1'"),
        (("--tokens", "1"), "--tokens cannot be 1"),
        (("--acceptance", "1.2"), "--acceptance cannot be 1.2"),
        (("-o", "/no/such/folder/x.json"), "there is no folder"),
    ],
)
@pytest.mark.usefixtures("untouched")
def test_what_cannot_run_is_refused_at_once(
    specbench: Call, words: tuple[str, ...], told: str
) -> None:
    result = specbench("bench-engine", *words)
    assert result.exit_code == 2, result.output
    assert told in result.stderr


@pytest.mark.usefixtures("untouched")
def test_a_shape_that_does_not_fit_is_refused_before_any_is_measured(
    specbench: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "free_memory", lambda device: int(12e9))
    result = specbench("bench-engine", "--shape", "all", "--device", "cpu", "--dtype", "bfloat16")
    assert result.exit_code == 2
    assert "'llama_8b' needs about" in result.stderr
    assert "cpu has 12.0 GB free" in result.stderr


def test_it_has_help(specbench: Call) -> None:
    result = specbench("bench-engine", "--help")
    assert result.exit_code == 0
    assert "--draft-shape" in result.stdout


def test_it_says_what_it_is_at_and_stops_at_a_limit(specbench: Call, shape: str) -> None:
    """A compiler was silent for eight minutes."""
    words = ("bench-engine", "--shape", shape, "--draft-shape", shape, *SHORT)
    result = specbench(*words, "--minutes", "0.0001")
    assert result.exit_code == 2
    assert "copy bandwidth" in result.stderr  # no terminal, and said all the same
    assert "was stopped after 0.0001 minutes" in result.stderr and "it was at: " in result.stderr
