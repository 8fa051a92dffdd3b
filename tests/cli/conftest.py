"""A command line whose runner is replaced: these tests look at everything around it."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner, Result

from specbench.cli import run as run_command
from specbench.cli.app import app
from specbench.schema.config import RunConfig


class FakeResult(NamedTuple):
    path: Path
    failed: int
    reused: bool = False


class FakeRunner:
    """Records the configurations that reach the runner and writes an empty result file."""

    def __init__(self) -> None:
        self.configs: list[RunConfig] = []
        self.before: Callable[[RunConfig], None] = lambda config: None
        self.failed = 0
        self.reused = False

    def run_job(self, config: RunConfig) -> FakeResult:
        self.configs.append(config)
        self.before(config)
        config.results_dir.mkdir(parents=True, exist_ok=True)
        path = config.results_dir / f"{config.method.name}.parquet"
        path.write_bytes(b"")
        return FakeResult(path, self.failed, self.reused)


@pytest.fixture
def fake_runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRunner:
    """Replace the runner and the table, and work in an empty folder."""
    runner = FakeRunner()
    module = types.ModuleType("specbench.runner")
    module.run_job = runner.run_job  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "specbench.runner", module)
    monkeypatch.setattr(
        run_command, "print_comparison", lambda paths: print(f"table of {len(paths)}")
    )
    monkeypatch.chdir(tmp_path)
    return runner


@pytest.fixture
def specbench() -> Callable[..., Result]:
    """Call the command line in this process."""

    def call(*words: str, **options: Any) -> Result:
        return CliRunner().invoke(app, list(words), **options)

    return call
