"""Scoring by final number, by running tests, and by exact text."""

from __future__ import annotations

from specbench.training.text.evaluate import is_right
from specbench.zoo.worlds import Sample

_CODE = {
    "entry_point": "f",
    "prefix": 'def f(n):\n    """Return n plus 1."""\n',
    "test": "def check(candidate):\n    assert candidate(1) == 2\n",
}


def _sample(reference) -> Sample:
    return Sample(("prompt",), ("answer",), reference)


def test_final_number_decides() -> None:
    assert is_right(_sample("12"), "3 * 4 = 12\n#### 12")
    assert not is_right(_sample("12"), "3 * 4 = 12\n#### 112")
    assert not is_right(_sample("12"), "#### 12\n#### 13")


def test_code_is_run() -> None:
    assert is_right(_sample(_CODE), "    return n + 1\n")
    assert not is_right(_sample(_CODE), "    return n\n")
    assert not is_right(_sample(_CODE), "    return (\n")


def test_text_must_be_equal() -> None:
    assert is_right(_sample("Ana left."), "Ana left. ")
    assert not is_right(_sample("Ana left."), "Ana left")


def test_no_reference_no_score() -> None:
    assert is_right(_sample(None), "anything") is None
