"""The benchmark scripts are loadable: nothing that they import has moved without them."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

SCRIPTS = sorted(path.stem for path in (Path(__file__).parents[2] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_loads(name: str) -> None:
    assert importlib.import_module(f"benchmarks.{name}").__doc__
