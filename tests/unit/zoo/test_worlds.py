"""The worlds are pure functions of their random source, and their references are right."""

from __future__ import annotations

import random
import re

import pytest

from specbench.training.text.evaluate import is_right
from specbench.zoo.worlds import WORLDS, Sample
from specbench.zoo.worlds.functions import run_reference

_OPERATIONS = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": lambda left, right: left // right,
}


def _draw(task: str, count: int, seed: str = "test") -> list[Sample]:
    return [WORLDS[task].generate(random.Random(f"{seed}/{index}")) for index in range(count)]


@pytest.mark.parametrize("task", WORLDS)
def test_same_seed_same_samples(task: str) -> None:
    assert _draw(task, 50) == _draw(task, 50)
    assert _draw(task, 50) != _draw(task, 50, seed="other")


@pytest.mark.parametrize("task", WORLDS)
def test_the_space_of_prompts_is_large(task: str) -> None:
    prompts = {sample.turns[0] for sample in _draw(task, 2000)}
    assert len(prompts) >= 1990


@pytest.mark.parametrize("task", WORLDS)
def test_every_turn_has_an_answer(task: str) -> None:
    for sample in _draw(task, 200):
        assert len(sample.turns) == len(sample.answers) == (2 if task == "tiny_chat" else 1)
        assert all(text.strip() for text in (*sample.turns, *sample.answers))


def test_worked_steps_compute_the_reference() -> None:
    steps = set()
    for sample in _draw("tiny_math", 1000):
        *lines, last = sample.answers[0].split("\n")
        results = []
        for line in lines:
            equations = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", line)
            assert len(equations) == 1, line
            left, operation, right, result = equations[0]
            value = _OPERATIONS[operation](int(left), int(right))
            assert value == int(result)
            if operation == "/":
                assert int(right) * value == int(left)
            assert not results or int(left) == results[-1]
            results.append(value)
        assert last == f"#### {sample.reference}"
        assert results[-1] == int(str(sample.reference))
        assert min(results) >= 0 and max(results) <= 200
        steps.add(len(lines))
    assert steps == {1, 2, 3, 4}


def test_reference_bodies_pass_their_own_tests() -> None:
    for sample in _draw("tiny_code", 400):
        reference = sample.reference
        assert isinstance(reference, dict)
        if reference["entry_point"] == "check":
            continue
        scope: dict[str, object] = {}
        exec(reference["prefix"] + sample.answers[0] + "\n" + reference["test"], scope)
        scope["check"](scope[reference["entry_point"]])


def _refuses(sample: Sample, body: str) -> bool:
    reference = sample.reference
    assert isinstance(reference, dict)
    scope: dict[str, object] = {}
    exec(reference["test"], scope)

    def candidate(argument: object) -> object:
        return run_reference(reference["prefix"], body, reference["entry_point"], argument)

    try:
        scope["check"](candidate)
    except (AssertionError, NameError, AttributeError, TypeError):
        return True
    return False


def test_hidden_tests_fail_for_a_wrong_body() -> None:
    samples = _draw("tiny_code", 200)
    bodies = [sample.answers[0] for sample in reversed(samples)]
    assert sum(map(_refuses, samples, bodies)) >= 195


def test_prompt_ends_with_the_prefix() -> None:
    for sample in _draw("tiny_code", 100):
        assert isinstance(sample.reference, dict)
        assert sample.turns[0].endswith(sample.reference["prefix"])
        assert sample.answers[0].startswith("    ")


def test_rewritten_text_is_mostly_copied() -> None:
    copied = total = 0
    for sample in _draw("tiny_rewrite", 200):
        words = sample.answers[0].split()
        total += len(words)
        copied += sum(word in sample.turns[0] for word in words)
    assert copied / total > 0.95


def test_answers_to_questions_quote_the_facts() -> None:
    for sample in _draw("tiny_qa", 200):
        facts = sample.turns[0].split("\n")[0]
        *quotes, conclusion = re.findall(r"[^.]+\.", sample.answers[0])
        assert quotes and all(quote.strip() in facts for quote in quotes)
        answer = conclusion.removeprefix(" The answer is ").removesuffix(".")
        assert any(answer in quote for quote in quotes)


def test_translation_is_a_function_of_the_english() -> None:
    seen: dict[str, str] = {}
    for sample in _draw("tiny_translate", 500):
        english = sample.turns[0].split("\n")[1].split(". ")
        toy = sample.answers[0].split(". ")
        for source, result in zip(english, toy, strict=True):
            assert seen.setdefault(source.rstrip("."), result.rstrip(".")) == result.rstrip(".")


def test_conversations_refer_back() -> None:
    for sample in _draw("tiny_chat", 200):
        assert sample.reference is None
        earlier = f"{sample.turns[0]} {sample.answers[0]}".lower()
        first = set(re.findall(r"[a-z]{4,}", earlier))
        second = set(re.findall(r"[a-z]{4,}", sample.answers[1].lower()))
        assert first & second


@pytest.mark.parametrize("task", ["tiny_math", "tiny_code", "tiny_rewrite", "tiny_qa"])
def test_the_worked_answer_is_scored_as_right(task: str) -> None:
    for sample in _draw(task, 4):
        assert is_right(sample, sample.answers[0]) is True
        assert is_right(sample, "    return None\n#### 9999") is False


def test_chat_has_no_right_answer() -> None:
    assert is_right(_draw("tiny_chat", 1)[0], "anything") is None
