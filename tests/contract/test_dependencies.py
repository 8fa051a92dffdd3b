"""What the package imports is what pyproject.toml declares and docs/dependencies.md explains."""

from __future__ import annotations

import ast
import re
import sys
import tomllib

from tests.contract.test_import_order import FILES, ROOT

IMPORTED_AS = {
    "bayesian-optimization": "bayes_opt",
    "clean-fid": "cleanfid",
    "huggingface-hub": "huggingface_hub",
    "hydra-core": "hydra",
    "nvidia-ml-py": "pynvml",
    "open-clip-torch": "open_clip",
    "pillow": "PIL",
    "pyyaml": "yaml",
}
PART_OF = {"pydantic_core": "pydantic", "triton": "torch"}
"""What a declared package brings along and speaks through."""


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {re.split(r"[<>=!~]", line)[0] for line in project["dependencies"]}


def imported() -> set[str]:
    found = {"pynvml"}  # by name, where there is a driver
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    found -= {"specbench", "__future__", *sys.stdlib_module_names}
    return {PART_OF.get(name, name) for name in found}


def test_what_is_imported_is_declared_and_the_other_way_round() -> None:
    assert imported() == {IMPORTED_AS.get(name, name) for name in declared()}


def test_every_dependency_is_explained() -> None:
    table = (ROOT / "docs/dependencies.md").read_text().partition("For development")[0]
    assert set(re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)) == declared()
