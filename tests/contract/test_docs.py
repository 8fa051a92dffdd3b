"""The documentation of the configuration names every key that there is."""

from __future__ import annotations

import importlib
import inspect
import operator
import os
import re
import textwrap
import tomllib
from pathlib import Path

import pytest

from specbench.hosting import HostRequest, compose_jobs
from specbench.report import methods
from specbench.schema import catalog
from specbench.schema.families import FAMILIES


def keys() -> list[str]:
    ((_, config),) = compose_jobs(HostRequest())
    plain = config.to_dict()
    found = [key for key in plain if key not in ("sampling", "timing", "method", "model", "task")]
    for group in ("sampling", "timing", "model"):
        found += [f"{group}.{key}" for key in plain[group]]
    return sorted(set(found))


@pytest.mark.parametrize("key", keys())
def test_every_key_is_documented(repo_root: Path, key: str) -> None:
    text = (repo_root / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert f"`{key}`" in text


def test_the_page_of_methods_is_that_of_the_yaml_files(repo_root: Path) -> None:
    entries = [catalog.load("method", name) for name in catalog.names("method")]
    path = repo_root / "docs" / "methods.md"
    page = methods.page(entries, FAMILIES)
    if os.environ.get("SPECBENCH_WRITE_GOLDEN"):
        path.write_text(page, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == page, "make golden writes it anew"
    assert all(f"### `{entry['name']}`" in page for entry in entries)


def test_every_dependency_has_its_reason(repo_root: Path) -> None:
    project = tomllib.loads((repo_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    text = (repo_root / "docs" / "dependencies.md").read_text(encoding="utf-8")
    for requirement in wanted:
        name = requirement.split(">")[0].split("=")[0].split("<")[0].strip()
        assert f"`{name}`" in text, name


TURNS = {
    "coco_captions": 5000,
    "geneval": 4 * 553,
    "gsm8k": 1319,
    "humaneval": 164,
    "spec_bench": 480 + 80,
    "tiny": 60,
}
"""Generations of one arm in one repeat; those that `docs/tasks.md` lists, MT-Bench's second turns
included."""


def generations(command: str) -> int:
    """Return how many answers or pictures both arms of a command make."""
    keys = dict(re.findall(r"([\w.]+)=(\S+)", command))
    task = keys.get("task", "geneval" if keys["model"] == "lumina" else "tiny")
    turns = min(int(keys.get("task.limit", TURNS[task])), TURNS[task])
    return turns * 2 * int(keys.get("timing.repeats", 3))


def real_commands(root: Path) -> list[str]:
    lines = []
    for page in (root / "README.md", root / "CONTRIBUTING.md", *(root / "docs").glob("*.md")):
        found = page.read_text(encoding="utf-8").splitlines()
        lines += [line for line in found if re.match(r"[$ ]*specbench run .*\bmodel=", line)]
    return [
        line
        for line in lines
        if not re.search(r"model=tiny|--dry-run|--config-dir|model=\w+,", line)
    ]


def test_every_command_on_a_real_model_says_how_much_it_makes(repo_root: Path) -> None:
    """Two arms and three repeats of a whole benchmark surprise whoever pastes a command."""
    commands = real_commands(repo_root)
    assert len(commands) > 10
    for line in commands:
        command, _, said = line.partition("#")
        made = rf"\b{generations(command):,} (answers|pictures)"
        assert re.search(made, said), line


def test_code_that_a_page_shows_is_the_code_that_runs(repo_root: Path) -> None:
    page = (repo_root / "docs" / "decoding.md").read_text(encoding="utf-8")
    shown = re.findall(r"```python of=(\S+):(\S+)\n(.*?)\n```", page, re.DOTALL)
    assert len(shown) >= 5
    for module, path, code in shown:
        thing = operator.attrgetter(path)(importlib.import_module(module))
        assert code == textwrap.dedent(inspect.getsource(thing)).strip(), f"{module}:{path}"
