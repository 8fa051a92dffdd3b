"""`method=synthetic acceptance=0.8`: the parameter by its bare name, and the label everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import Result

from specbench.compare import compare
from tests.cli.conftest import FakeRunner
from tests.unit.compare.factory import job_rows, metadata, result_set

Call = Callable[..., Result]


def test_a_parameter_of_the_method_needs_no_prefix(
    specbench: Call, fake_runner: FakeRunner
) -> None:
    result = specbench("run", "method=synthetic", "acceptance=0.65", "method.draft_length=3")
    assert result.exit_code == 0, result.output
    (config,) = fake_runner.configs
    assert config.method.parameters == {"acceptance": 0.65, "draft_length": 3}
    assert config.method.decoder["acceptance"] == 0.65


def test_a_sweep_spans_it_too(specbench: Call, fake_runner: FakeRunner) -> None:
    words = ("method=synthetic,synthetic_free", "acceptance=0.5,0.9", "--multirun")
    result = specbench("run", *words)
    assert result.exit_code == 0, result.output
    found = {(job.method.name, job.method.parameters["acceptance"]) for job in fake_runner.configs}
    assert found == {(m, a) for m in ("synthetic", "synthetic_free") for a in (0.5, 0.9)}


@pytest.mark.parametrize(
    "words",
    [
        ("method=ar", "acceptance=0.5"),
        ("acceptance=0.5",),
        ("-m", "method=synthetic,ar", "acceptance=0.5"),
        ("method=synthetic", "acceptence=0.5"),
    ],
)
def test_a_key_that_not_every_method_has_is_unknown(
    specbench: Call, fake_runner: FakeRunner, words: tuple[str, ...]
) -> None:
    result = specbench("run", *words)
    assert result.exit_code == 2
    assert "Unknown key" in result.stderr and not fake_runner.configs


def test_a_key_of_the_run_comes_before_a_methods(
    specbench: Call, fake_runner: FakeRunner, tmp_path: Path
) -> None:
    folder = tmp_path / "conf" / "method"
    folder.mkdir(parents=True)
    (folder / "odd.yaml").write_text(
        "name: odd\ntitle: Odd\nexactness: exact\nparameters:\n  score: Any.\nscore: 7\n"
        "decoder:\n  _target_: specbench.decoding.loops.autoregressive.Autoregressive\n"
    )
    words = ("--config-dir", str(folder.parent), "method=odd", "score=false")
    result = specbench("run", *words)
    assert result.exit_code == 0, result.output
    (config,) = fake_runner.configs
    assert config.score is False and config.method.parameters == {"score": 7}


def test_the_list_and_the_page_say_what_it_is(specbench: Call) -> None:
    lines = specbench("list", "methods").stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("synthetic ")]
    assert "upper bound" in line and "no method" in line
    assert "no method" in specbench("show", "method", "synthetic").stdout


def test_a_comparison_says_that_it_is_a_bound(tmp_path: Path) -> None:
    about = metadata()
    bound = replace(
        about,
        method=replace(about.method, name="synthetic"),
        config={"method": {"name": "synthetic", "family": "upper bound", "parameters": {}}},
    )
    rows = job_rows(samples=3)
    told = compare([result_set(tmp_path, rows, bound, "bound")]).warnings
    assert any("synthetic: an upper bound and no method" in line for line in told)
    told = compare([result_set(tmp_path, rows, about)]).warnings
    assert not any("upper bound" in line for line in told)
