"""No call lets a checkpoint's own code run, nor asks whether it may."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import specbench

PACKAGE = Path(specbench.__file__).parent
FILES = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "benchmarks").glob("*.py")]


def calls(text: str) -> list[ast.Call]:
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    names = ("from_pretrained", "from_config", "pipeline")
    return [n for n in nodes if isinstance(n.func, ast.Attribute) and n.func.attr in names]


def refuses(call: ast.Call) -> bool:
    given = {word.arg: word.value for word in call.keywords}
    value = given.get("trust_remote_code")
    return isinstance(value, ast.Constant) and value.value is False


def test_every_call_that_reads_a_checkpoint_refuses_its_code() -> None:
    found = 0
    for file in FILES:
        for call in calls(file.read_text(encoding="utf-8")):
            if call.func.attr == "from_pretrained":  # type: ignore[attr-defined]
                found += 1
                assert refuses(call), f"{file}:{call.lineno}"
    assert found >= 8


@pytest.mark.parametrize("text", ["A.from_pretrained(x)", "A.from_pretrained(x, b=False)"])
def test_a_call_without_the_word_is_found(text: str) -> None:
    (call,) = calls(text)
    assert not refuses(call)
