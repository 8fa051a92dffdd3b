"""`specbench run`, from its words to its exit code, with the runner replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import Result

from specbench.errors import ModelError
from specbench.schema.config import RunConfig
from tests.cli.conftest import FakeRunner

Call = Callable[..., Result]


def test_the_default_run_is_the_embedded_pair(specbench: Call, fake_runner: FakeRunner) -> None:
    result = specbench("run")
    assert result.exit_code == 0, result.output
    (config,) = fake_runner.configs
    assert (config.method.name, config.model.name, config.task.name) == (
        "token_sd",
        "tiny_text",
        "tiny",
    )
    assert config.baseline is not None and config.baseline.name == "ar"
    assert result.stdout.splitlines() == ["table of 1", "results/token_sd.parquet"]


def test_nothing_is_written_outside_the_results_folder(
    specbench: Call, fake_runner: FakeRunner, tmp_path: Path
) -> None:
    specbench("run")
    specbench("run", "-m", "method=token_sd,pld", "results_dir=elsewhere")
    assert {path.name for path in tmp_path.iterdir()} == {"results", "elsewhere"}


def test_overrides_reach_the_parts(specbench: Call, fake_runner: FakeRunner) -> None:
    words = ("method.draft_length=6", "sampling.temperature=0.8", "baseline=null", "score=false")
    assert specbench("run", *words).exit_code == 0
    (config,) = fake_runner.configs
    assert config.method.decoder["length"]["draft_length"] == 6
    assert config.sampling.temperature == 0.8
    assert config.baseline is None
    assert not config.score


def test_flags_become_configuration(specbench: Call, fake_runner: FakeRunner) -> None:
    specbench("run")
    specbench("run", "--fresh", "--quiet")
    specbench("run", "resume=false", "--resume")
    assert [(config.resume, config.progress) for config in fake_runner.configs] == [
        (True, True),
        (False, False),
        (True, True),
    ]


def test_a_sweep_runs_every_combination(specbench: Call, fake_runner: FakeRunner) -> None:
    result = specbench("run", "method=token_sd,pld", "method.draft_length=2,3", "--multirun")
    assert result.exit_code == 0, result.output
    assert [
        (config.method.name, config.method.parameters["draft_length"])
        for config in fake_runner.configs
    ] == [("token_sd", 2), ("token_sd", 3), ("pld", 2), ("pld", 3)]
    assert result.stdout.startswith("table of 4\n")


def test_one_stopped_job_does_not_lose_the_others(specbench: Call, fake_runner: FakeRunner) -> None:
    def stop(config: RunConfig) -> None:
        if config.method.name == "token_sd":
            raise ModelError("the draft is not there", "why", "Name another draft.")

    fake_runner.before = stop
    result = specbench("run", "-m", "method=token_sd,pld")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == ["table of 1", "results/pld.parquet"]
    assert "stopped: method=token_sd: the draft is not there" in result.stderr
    assert "1 of 2 jobs did not finish" in result.stderr
    assert "fix: Name another draft." in result.stderr


def test_a_stopped_plain_run_keeps_its_own_exit_code(
    specbench: Call, fake_runner: FakeRunner
) -> None:
    def stop(config: RunConfig) -> None:
        raise ModelError("no weights here", "the folder is empty", "Name another folder.")

    fake_runner.before = stop
    result = specbench("run")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "error: no weights here",
        "  why: the folder is empty",
        "  fix: Name another folder.",
    ]


def test_a_bug_shows_its_traceback_only_when_asked(
    specbench: Call, fake_runner: FakeRunner
) -> None:
    def stop(config: RunConfig) -> None:
        raise ZeroDivisionError("seven by nothing")

    fake_runner.before = stop
    quiet = specbench("run")
    assert quiet.exit_code == 1
    assert "ZeroDivisionError: seven by nothing" in quiet.stderr
    assert "Traceback" not in quiet.output
    for words in (("run", "--debug"), ("--debug", "run")):
        loud = specbench(*words)
        assert loud.exit_code == 1
        assert "Traceback" in loud.stderr and "in stop" in loud.stderr


def test_failed_samples_end_with_exit_code_one(
    specbench: Call, fake_runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specbench.cli.run._errors", lambda paths: "; OutOfMemory (3 times)")
    fake_runner.failed = 3
    result = specbench("run")
    assert result.exit_code == 1
    assert "results/token_sd.parquet" in result.stdout
    assert "3 samples failed" in result.stderr and "OutOfMemory (3 times)" in result.stderr
    assert "contact_sheet.png" not in result.stderr


def test_it_says_where_the_pictures_are(specbench: Call, fake_runner: FakeRunner) -> None:
    def draw(config: RunConfig) -> None:
        folder = config.results_dir / config.method.name
        folder.mkdir(parents=True)
        (folder / "contact_sheet.png").write_bytes(b"")

    fake_runner.before = draw
    result = specbench("run")
    assert "results/token_sd/contact_sheet.png" in result.stderr.replace("\n", "")
    assert "contact_sheet" not in result.stdout


def test_where_everything_failed_the_error_is_printed(specbench: Call, tmp_path: Path) -> None:
    """A user was sent to look at a column of a parquet file."""
    words = ("method=pld", "task=tiny_math", "task.limit=2", "timing.repeats=1", "timing.warmup=0")
    result = specbench("run", *words, "model.context=16", f"results_dir={tmp_path}")
    assert result.exit_code == 1
    table = " ".join(result.stdout.split())
    assert "pld: every measurement failed: " in table and "exceed the context of 16" in table
    assert "the table leaves them out and says why" in result.stderr
    assert "exceed the context" not in result.stderr
    assert "column" not in result.output and "1.00x" not in table


@pytest.mark.parametrize("words", [("run",), ("run", "-m", "method=token_sd,pld")])
def test_a_job_that_was_done_before_is_said_to_be(
    specbench: Call, fake_runner: FakeRunner, words: tuple[str, ...]
) -> None:
    fake_runner.reused = True
    result = specbench(*words)
    assert result.exit_code == 0
    assert "--fresh measures it anew" in result.stderr
    assert "results/token_sd.parquet" in result.stdout


@pytest.mark.parametrize("words", [("run",), ("run", "-m", "method=token_sd,pld")])
def test_an_interrupt_ends_with_130_and_a_hint(
    specbench: Call, fake_runner: FakeRunner, words: tuple[str, ...]
) -> None:
    def stop(config: RunConfig) -> None:
        raise KeyboardInterrupt

    fake_runner.before = stop
    result = specbench(*words)
    assert result.exit_code == 130
    assert len(fake_runner.configs) == 1
    assert len(result.stderr.splitlines()) == 1
    assert "run the same command again" in result.stderr


def test_a_sweep_into_a_folder_that_cannot_be_made_is_told(
    specbench: Call, fake_runner: FakeRunner, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    result = specbench("run", "-m", "method=token_sd,pld", "results_dir=file/results")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: The results folder cannot be written")
    assert not fake_runner.configs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=tokn_sd"], "Unknown method 'tokn_sd'. Did you mean 'token_sd'?"),
        (["model=tiny_tex"], "Unknown model 'tiny_tex'. Did you mean 'tiny_text'?"),
        (["task=gsm8"], "Unknown task 'gsm8'. Did you mean 'gsm8k'?"),
        (["baseline=arr"], "Unknown method 'arr'. Did you mean 'ar'?"),
        (["metod=ar"], "Unknown key 'metod'. Did you mean 'method'?"),
        (
            ["sampling.temprature=1"],
            "Unknown key 'sampling.temprature'. Did you mean 'sampling.temperature'?",
        ),
        (["engine=graph"], "The key 'engine' is now 'execution'"),
        (["task.limt=5"], "Unknown key 'task.limt'. Did you mean 'task.limit'?"),
        (["timing.colour=5"], "Unknown key 'timing.colour'"),
        (["+sampling.temp=1"], "Unknown key 'sampling.temp'"),
        (["sampling.temperature=-1"], "'sampling.temperature' cannot be -1"),
        (["pld"], "'pld' is not an override"),
        (["method=pld,ar"], "'method=pld,ar' names several values"),
        (["max_new_tokens=]"], "The value of 'max_new_tokens' cannot be read"),
        (["model=hf"], "'model.target' is missing"),
        (["model=hf", "model.target=folder"], "The method 'token_sd' needs a draft model"),
        (["-m", "method=pld,tokn_sd"], "Unknown method 'tokn_sd'. Did you mean 'token_sd'?"),
        (["results_dir=${nowhere}"], "The configuration cannot be resolved"),
        (["--config-dir", "nowhere"], "There is no folder 'nowhere'"),
        (["--cfg", "jobs"], "--cfg cannot be 'jobs'"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(
    specbench: Call, fake_runner: FakeRunner, words: list[str], message: str
) -> None:
    result = specbench("run", *words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {message}")
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) <= 3
    assert not fake_runner.configs


def test_cfg_prints_what_hydra_composes(specbench: Call, fake_runner: FakeRunner) -> None:
    result = specbench("run", "method=pld", "--cfg", "job")
    assert result.exit_code == 0, result.output
    assert yaml.safe_load(result.stdout)["method"]["name"] == "pld"
    part = specbench("run", "method=pld", "--cfg", "job", "--package", "sampling", "--resolve")
    assert yaml.safe_load(part.stdout)["seed"] == 0
    assert not fake_runner.configs


def test_a_dry_run_prints_the_plan_and_runs_nothing(
    specbench: Call, fake_runner: FakeRunner, tmp_path: Path
) -> None:
    result = specbench("run", "--dry-run", "-m", "method=token_sd,pld", "model=qwen3_8b")
    assert result.exit_code == 0, result.output
    plans = list(yaml.safe_load_all(result.stdout))
    assert [plan["method"]["name"] for plan in plans] == ["token_sd", "pld"]
    assert "about 17.9 GB" in result.stdout
    assert not fake_runner.configs
    assert not list(tmp_path.iterdir())


def test_another_folder_adds_methods(
    specbench: Call, fake_runner: FakeRunner, tmp_path: Path
) -> None:
    group = tmp_path / "my conf" / "method"
    group.mkdir(parents=True)
    (group / "long.yaml").write_text(
        "defaults: [token_sd, _self_]\nname: long\ntitle: Long drafts\ndraft_length: 9\n"
    )
    words = ["run", "--config-dir", str(tmp_path / "my conf"), "method=long", "baseline=long"]
    result = specbench(*words)
    assert result.exit_code == 0, result.output
    (config,) = fake_runner.configs
    assert config.method.decoder["length"]["draft_length"] == 9
    assert config.baseline == config.method
    listed = specbench("list", "methods", "--config-dir", str(tmp_path / "my conf"))
    assert "Long drafts" in listed.stdout
