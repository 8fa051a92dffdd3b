"""The order of the rooms: no import runs upward, and what lists and compares loads no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "specbench"
TORCH_FREE = (
    "errors",
    "ending",
    "bounded",
    "paths",
    "secret_shapes",
    "secrets",
    "schema",
    "stats",
    "store",
    "datastore",
    "compare",
    "predict",
    "importing",
    "report",
)
ORDER = (
    *TORCH_FREE,
    "rng",
    "transfer",
    "finite",
    "law",
    "choices",
    "cache",
    "clock",
    "models",
    "decoding",
    "calibration",
    "zoo",
    "tasks",
    "metrics",
    "audit",
    "runner",
    "training",  # no run needs it: only the command line imports it
    "hosting",
    "cli",
    "__main__",
)
HEAVY = {"torch", "transformers", "datasets", "safetensors", "tokenizers"}
HYDRA = {"hydra", "omegaconf"}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "_data" not in path.parts)


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def imports_of(path: Path, source: str) -> Iterator[str]:
    """Yield the dotted name of everything that a file imports, at its top or in a function."""
    package = ("specbench", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            prefix = ".".join((*base, node.module) if node.module else base)
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def upward(path: Path, source: str) -> list[str]:
    """Return the imports of a file that run against the order of the rooms."""
    own = room_of(path)
    rank = len(ORDER) if own == "" else ORDER.index(own)
    wrong = []
    for name in imports_of(path, source):
        first, *rest = name.split(".")
        if first == "specbench" and rest and rest[0] in ORDER and ORDER.index(rest[0]) > rank:
            wrong.append(name)
        if first in HEAVY and own in TORCH_FREE:
            wrong.append(name)
        if first in HYDRA and own != "hosting":
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_runs_upward(path: Path) -> None:
    assert room_of(path) in ("", *ORDER), f"the room '{room_of(path)}' has no place in the order"
    assert upward(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("stats.py", "from specbench.compare import compare"),
        ("store/files.py", "def f():\n    import torch"),
        ("report/table.py", "from specbench import runner"),
        ("models/load.py", "from ..tasks import base"),
        ("runner.py", "from omegaconf import OmegaConf"),
        ("schema/config.py", "import specbench.cli.app"),
        ("zoo/datastore.py", "from specbench.training import loop"),
    ],
)
def test_an_upward_import_would_be_seen(file: str, source: str) -> None:
    assert upward(PACKAGE / file, source)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("specbench.cli.app", {*HEAVY, *HYDRA, "pandas", "pyarrow", "numpy"}),
        ("specbench.schema.config", {*HEAVY, *HYDRA, "pandas"}),
        ("specbench.stats", {*HEAVY, *HYDRA, "pandas"}),
        ("specbench.store", {*HEAVY, *HYDRA}),
        ("specbench.compare", {*HEAVY, *HYDRA}),
        ("specbench.predict", {*HEAVY, *HYDRA}),
        ("specbench.importing", {*HEAVY, *HYDRA}),
        ("specbench.report", {*HEAVY, *HYDRA}),
        ("specbench.report.table", {*HEAVY, *HYDRA}),
        ("specbench.schema.task", {"torch", "transformers", *HYDRA}),
    ],
)
def test_light_rooms_load_nothing_heavy(module: str, absent: set[str]) -> None:
    program = f"import {module}, sys; print(*({absent!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
