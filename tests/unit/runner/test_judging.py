"""A run says where the walls around generated code are thin."""

from __future__ import annotations

import pytest

from specbench.runner.judging import sandbox_advice
from specbench.tasks import sandbox


def test_thin_walls_are_named_where_code_was_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "mechanisms", lambda: ("limits", "audit-hook"))
    assert "thin" in str(sandbox_advice([{"score_name": "pass_at_1"}]))
    assert sandbox_advice([{"score_name": "exact_match"}, {}]) is None


def test_nothing_is_said_where_the_walls_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "mechanisms", lambda: ("landlock", "seccomp"))
    assert sandbox_advice([{"score_name": "pass_at_1"}]) is None
