"""Reasoning is told apart from the answer that is scored."""

from __future__ import annotations

import pytest

from specbench.runner.judging import thought_advice
from specbench.tasks.base import Sample
from specbench.tasks.reasoning import (
    UNFINISHED,
    Spoken,
    opens_thought,
    readable,
    score_answers,
    spoken,
)
from specbench.tasks.scorers import ExactMatch


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("<think>It is 3.</think>It is 4.", "It is 4."),
        ("It is 3, no.\n</think>\nIt is 4.", "\nIt is 4."),
        ("<think>3</think>4<think>5", None),
        ("<thinking>3 or", None),
        ("<THINK>3</THINK>4", "4"),
        ("[THINK]3[/THINK]4", "4"),
        ("<|begin_of_thought|>3<|end_of_thought|>4", "4"),
        ("<|channel|>analysis<|message|>3<|end|><|start|>assistant", None),
        (
            "<|channel|>analysis<|message|>3<|end|><|start|>assistant"
            "<|channel|>final<|message|>4<|return|>",
            "4",
        ),
        ("The tag <think> opens a thought.", "The tag <think> opens a thought."),
        ("It is 4.</think>\n", "It is 4."),
        ("<think>3</think>4</think>", "4"),
        ("<think>3</think>", ""),
        ("no thoughts", "no thoughts"),
        ("", ""),
    ],
)
def test_reasoning_is_no_answer(answer: str, text: str | None) -> None:
    assert spoken(answer) == Spoken(text or "", text is None)


def test_a_thought_that_the_prompt_opened_must_be_closed() -> None:
    assert spoken("so far 3", thinking=True).unfinished
    assert spoken("3</think>4", thinking=True) == Spoken("4", False)
    assert spoken("3</think>", thinking=True) == Spoken("", False)


def test_an_unfinished_thought_is_told_apart_from_a_wrong_answer() -> None:
    task = Sample("task/0", "task", ("question",), "18")
    assert score_answers(ExactMatch(), task, ["<think>It may be 18"]) == (0.0, UNFINISHED)
    assert score_answers(ExactMatch(), task, ["It may be 18"], thinking=True) == (0.0, UNFINISHED)
    assert score_answers(ExactMatch(), task, ["<think>17</think>18"]).value == 1.0
    assert score_answers(ExactMatch(), task, ["<think>17</think>19"]).detail == "19"
    assert score_answers(ExactMatch(), task, []).value is None


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [
        ("<|assistant|><think>\n", True),
        ("[THINK]", True),
        ("<|assistant|><think>\n\n</think>\n\n", False),
        ("say <think> and go on", False),
    ],
)
def test_a_prompt_may_open_a_thought(prompt: str, opens: bool) -> None:
    assert opens_thought(prompt) == opens


class Marked:
    """A tokenizer whose odd ids are special tokens."""

    pieces = ("It is ", "<|channel|>", "final", "<|message|>", "4", "<|return|>")
    all_special_ids = (1, 3, 5)

    def decode(self, tokens: list[int], skip_special_tokens: bool = False) -> str:
        kept = [t for t in tokens if not (skip_special_tokens and t in self.all_special_ids)]
        return "".join(self.pieces[t] for t in kept)


def test_special_tokens_stay_where_they_mark_reasoning() -> None:
    assert readable(Marked(), [1, 2, 3, 4, 5]) == "<|channel|>final<|message|>4"
    assert readable(Marked(), [0, 4, 5]) == "It is 4"


def test_a_run_says_how_many_answers_end_inside_their_reasoning() -> None:
    rows = [{"sample_id": str(n), "score_detail": "18"} for n in range(3)]
    assert thought_advice(rows) is None
    cut = [{"sample_id": "0", "score_detail": UNFINISHED}] * 2
    assert "1 of 3 answers" in (thought_advice([*rows, *cut]) or "")
