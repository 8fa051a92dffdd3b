"""A run says where the walls around generated code are thin."""

from __future__ import annotations

import pytest

from specbench.runner.judging import count_answers, sandbox_advice
from specbench.tasks import sandbox
from specbench.tasks.reasoning import UNFINISHED


def test_thin_walls_are_named_where_code_was_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "mechanisms", lambda: ("limits", "audit-hook"))
    assert "thin" in str(sandbox_advice([{"score_name": "pass_at_1"}]))
    assert sandbox_advice([{"score_name": "exact_match"}, {}]) is None


def test_nothing_is_said_where_the_walls_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "mechanisms", lambda: ("landlock", "seccomp"))
    assert sandbox_advice([{"score_name": "pass_at_1"}]) is None


def test_answers_that_were_cut_and_score_nothing_are_counted() -> None:
    def row(sample: str, score: float | None, stop: str, detail: str = "9") -> dict[str, object]:
        said = {"score": score, "stop_reason": stop, "score_detail": detail}
        return {"sample_id": sample, "output_ids": [[1, 2, 3]], **said}

    rows = [row("a", 0.0, "length"), row("a", 0.0, "length"), row("b", 1.0, "length")]
    rows += [row("c", 0.0, "stop_token"), row("d", None, "length")]
    rows += [row("e", 0.0, "length", UNFINISHED)]
    assert count_answers(rows) == {"repeated": 0, "cut": 1, "samples": 5}
