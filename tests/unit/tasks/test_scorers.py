"""Scorers read answers as a fair reader would, and survive any text."""

from __future__ import annotations

import gzip
import json
import math
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from specbench.tasks import Sample, Score, Task, TaskConfig, load_task
from specbench.tasks.reasoning import score_answers, spoken
from specbench.tasks.scorers import ByCategory, ExactMatch, PassAt1, TextMatch, pass_at_k
from specbench.tasks.scorers.code import candidate_programs
from specbench.tasks.scorers.numbers import extract_number

NUMBERS: list[tuple[str, str | None]] = [
    ("#### 18", "18"),
    ("5 * 3 = 15\n#### 15", "15"),
    ("####18", "18"),
    ("#### $1,234.50", "1234.5"),
    ("#### 1,000,000", "1000000"),
    ("#### -7", "-7"),
    ("#### −7", "-7"),
    ("#### $-7", "-7"),
    ("#### -$7", "-7"),
    ("#### 18.00", "18"),
    ("#### 25%", "25"),
    ("#### 18 dollars per day.", "18"),
    ("#### 18.", "18"),
    ("#### **18**", "18"),
    ("#### 3/4", "3/4"),
    ("#### .5", "1/2"),
    ("#### 6 * 3 = 18", "18"),
    ("I will end with #### answer.\nSo 6 * 3 = 18.\n#### 18", "18"),
    ("#### Step 1: add\n2 + 3 = 5\n#### Step 2: double\n#### 10", "10"),
    ("The answer is 18.", "18"),
    ("The answer is: 18", "18"),
    ("the final answer is **$18**", "18"),
    ("Answer: 18 eggs, not 20.", "18"),
    ("The answer is 3 + 4 = 7.", "7"),
    ("The answer is 7. I checked it 2 times.", "7"),
    ("Final answer:\n\n42", "42"),
    ("The answer to question 2 is 9.", "9"),
    (r"So the result is \boxed{18}.", "18"),
    (r"\boxed{1{,}234}", "1234"),
    (r"\boxed{\frac{3}{4}}", "3/4"),
    (r"\boxed{\$18.50}", "37/2"),
    ("He has 3 cats and 4 dogs, so 7 animals", "7"),
    ("10-5", "5"),
    ("10 - 5", "5"),
    ("The temperature is -5", "-5"),
    ("(-5)", "-5"),
    ("a total of $18.00!", "18"),
    ("€ 12", "12"),
    ("1,2,3", "3"),
    ("1 1/2", "3/2"),
    ("so...18", "18"),
    ("18kg", "18"),
    ("3rd of 5", "5"),
    ("on the 23rd", None),
    ("x2 and B52", None),
    ("1e3", "1000"),
    ("1/0", None),
    ("", None),
    ("no number at all", None),
    ("####", None),
    ("#### none, but 4 before", "4"),
    ("He paid 4.\n#### unknown", "4"),
    ("\uff11\uff18", "18"),
    ("\u0661\u0668", "18"),
    ("#### 12\u202f500", "12500"),
    ("#### 12\u00a0500", "12500"),
    ("#### 12 500", "12500"),
    ("in 12 500 is no number", "500"),
    ("#### 3,50,000", "350000"),
    ("#### 1.5 million", "1500000"),
    ("about 3 hundred", "300"),
    ("#### 7 \u00d7 6", "42"),
    ("#### 7 \\times 6", "42"),
    ("#### 10-12", "10"),
    ("#### 7:45", None),
    ("2\u00be", "11/4"),
    (r"\boxed{2^5}", "32"),
    ("\\boxed{2\u2075}", "32"),
    (r"\boxed{3 \cdot 4}", "12"),
    (r"\boxed{\tfrac34}", "3/4"),
    (r"\boxed{9 \text{ hens on 4 farms}}", "9"),
    (r"\boxed{\text{nine}}", "9"),
    (r"\boxed{y = 9}", "9"),
    (r"\boxed{90^{\circ}}", "90"),
    (r"\fbox{9}", "9"),
    (r"\boxed{10\,000}", "10000"),
    (r"\boxed{9^9999}", "9"),
    ("#### Step 3: multiply\n3*3 = 9 hens", "9"),
    ("#### Solution\n\n9 hens", "9"),
    ("#### Result: 9", "9"),
    ("The answer is 9, as 4 + 5 are 9, on 2 farms", "9"),
    ("Answer: after 3 weeks she has $40.", "40"),
    ("The answer is not 8 but 9.", "9"),
    ("The answer is: 50% of 18 is 9", "9"),
    ("The answer is 9 of the 12.", "9"),
    ("The answer is forty-two.", "42"),
    ("The answer is two hundred and six thousand.", "206000"),
    ("He earns $5k.", "5000"),
    ("The answer is 2.5K dollars.", "2500"),
    ("He ran 5 km and carried 5kg", "5"),
    ("The answer is 1.000.000.", "1000000"),
    ("Version 1.2.3 costs 1.250", "1.25"),
    ("The total is 1 234.", "1234"),
    ("So x = **1 234 567** grains", "1234567"),
    ("In all:\n1 234.50", "1234.5"),
    ("It takes 2 100 gram bags", "100"),
    ("There are 2 100-watt bulbs", "100"),
    ("The sum is 1 200 + 300 = 1 500", "1500"),
    ("#### 9\n\nQuestion: and 3 more?\nAnswer: #### 12", "9"),
    ("Question: 3 more than 6?\n#### 9", "9"),
]


@pytest.mark.parametrize(("text", "expected"), NUMBERS)
def test_the_final_number_is_found(text: str, expected: str | None) -> None:
    assert extract_number(text) == (None if expected is None else Fraction(expected))


def cases(shared_data: Path, name: str) -> list[dict[str, Any]]:
    path = shared_data.parent / "cases" / name
    if not path.exists():
        pytest.skip(f"there is no {name}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_numbers_are_read_as_a_careful_person_reads_them(shared_data: Path) -> None:
    wrong = []
    for case in cases(shared_data, "gsm8k_answers.jsonl"):
        want = None if case["expected"] == "None" else Fraction(case["expected"])
        found = extract_number(spoken(case["answer"]).text)
        wrong += [(case["answer"], found)] if found != want else []
    assert wrong == []


def test_code_is_read_as_a_careful_person_reads_it(
    shared_data: Path, humaneval: tuple[Task, list[str]]
) -> None:
    answers = cases(shared_data, "humaneval_answers.jsonl")
    first = humaneval[0].samples[0]
    with ThreadPoolExecutor(2) as pool:
        found = list(
            pool.map(lambda case: score_answers(PassAt1(), first, [case["answer"]]), answers)
        )
    wrong = [
        (case["case"], score)
        for case, score in zip(answers, found, strict=True)
        if case["expected_score"] not in (None, score.value)
    ]
    assert wrong == []


def sample(reference: Any, category: str = "task") -> Sample:
    return Sample("task/0", category, ("question",), reference)


@pytest.mark.parametrize(
    ("reference", "answer", "value"),
    [
        ("18", "#### 18.0", 1.0),
        ("1,234", "It is $1234.00.", 1.0),
        ("18", "#### 19", 0.0),
        ("18", "", 0.0),
        ("0.1", "#### 0.10", 1.0),
        (18, "18", 1.0),
        (None, "18", None),
        ("none", "18", None),
        ({"a": 1}, "18", None),
    ],
)
def test_exact_match(reference: Any, answer: str, value: float | None) -> None:
    assert ExactMatch().score(sample(reference), [answer]).value == value


def test_exact_match_reads_the_last_turn() -> None:
    assert ExactMatch().score(sample("2"), ["#### 1", "#### 2"]).value == 1.0
    assert ExactMatch().score(sample("2"), []).value is None


@pytest.mark.parametrize(
    ("reference", "answer", "value"),
    [
        ("a b", " a\n b ", 1.0),
        ("a b", "A b", 0.0),
        ("caf\u00e9", "cafe\u0301", 1.0),
        (["a", "b"], "b", 1.0),
        ([], "b", None),
        (None, "b", None),
    ],
)
def test_text_match(reference: Any, answer: str, value: float | None) -> None:
    assert TextMatch().score(sample(reference), [answer]).value == value


def test_a_mix_keeps_each_categorys_scorer() -> None:
    mixed = ByCategory({"math": ExactMatch(), "chat": None, "text": TextMatch()})
    assert mixed.score(sample("2", "math"), ["it is 2"]).value == 1.0
    assert mixed.score(sample("2", "text"), ["it is 2"]).value == 0.0
    assert mixed.score(sample("2", "chat"), ["it is 2"]).value is None
    assert mixed.score(sample("2", "other"), ["it is 2"]).value is None
    assert mixed.version == ExactMatch.version + TextMatch.version


PREFIX = 'import math\n\n\ndef half(x):\n    """Return half of x."""\n'
CODE = {
    "prefix": PREFIX,
    "entry_point": "half",
    "test": "def check(candidate):\n    assert candidate(3) == 1.5\n    assert candidate(0) == 0\n",
}
RIGHT_ANSWERS = {
    "body": "    return x / 2\n",
    "body without its first indent": "return x / 2",
    "longer body without its first indent": "if x:\n        return x / 2\n    return 0",
    "body without any indent": "if x:\n    return x / 2\nreturn 0",
    "body, then another function": "    return x / 2\n\n\ndef other():\n    pass\n",
    "body, then words": "    return x / 2\n\nThis divides by two.",
    "whole function": PREFIX + "    return x / 2\n",
    "whole function without its import": "def half(x):\n    return math.ldexp(x, -1)\n",
    "whole function among words": "Here it is:\n\ndef half(x):\n    return x / 2\n\nThat is all.",
    "fenced function": "Sure!\n```python\ndef half(x):\n    return x / 2\n```\nDone.",
    "fenced function, fence never closed": "```python\ndef half(x):\n    return x / 2\n",
    "fenced body": "```python\n    return x / 2\n```",
    "fenced body without indent": "```\nreturn x / 2\n```",
    "indented fence": "1. Code:\n   ```python\n   def half(x):\n       return x / 2\n   ```",
    "example before the function": (
        "```python\nprint(half(3))\n```\nso\n```python\ndef half(x):\n    return x / 2\n```"
    ),
    "helper and function in two blocks": (
        "```python\ndef twice(x):\n    return x * 2\n```\n"
        "```python\ndef half(x):\n    return x / 2\n```"
    ),
    "carriage returns": "def half(x):\r\n    return x / 2\r\n",
    "with type annotations": "def half(x: float) -> float:\n    return x / 2",
    "with a usage line": "def half(x):\n    return x / 2\n\nprint(half(4))",
    "helper in an earlier block": (
        "```python\ndef over(x, y):\n    return x / y\n```\n"
        "```python\ndef half(x):\n    return over(x, 2)\n```"
    ),
    "helper and import in later blocks": (
        "```python\ndef half(x):\n    return over(F(x), 2)\n```\nwith\n"
        "```python\nfrom fractions import Fraction as F\n```\n"
        "```python\ndef over(x, y):\n    return x / y\n\nprint(half(3))\n```"
    ),
    "corrected block": (
        "```python\ndef half(x):\n    return x\n```\nNo:\n"
        "```python\ndef half(x):\n    return x / 2\n```"
    ),
    "corrected block, then a cut one": (
        "```python\ndef half(x):\n    return x / 2\n```\nor\n```python\ndef half(x):\n    return ("
    ),
    "body, then the fence that the prompt opened": "    return x / 2\n```\n\nThat halves x.",
    "function, then the fence that the prompt opened": (
        "def half(x):\n    return x / 2\n```\nIt halves."
    ),
    "future import": (
        "```python\nfrom __future__ import annotations\n\n"
        "def half(x: int) -> F:\n    return x / 2\n```"
    ),
    "fences in a docstring": (
        '```python\ndef half(x):\n    """Halve.\n\n    ```\n    half(2)\n    ```\n    """\n'
        "    return x / 2\n```\n"
    ),
    "fences at the margin of a docstring": (
        '```python\ndef half(x):\n    """Halve.\n\n```\nhalf(2)\n```\n    """\n'
        "    return x / 2\n```\n"
    ),
    "byte order mark": "\ufeffdef half(x):\n    return x / 2\n",
    "spaces that do not break": "def half(x):\n\u00a0\u00a0\u00a0\u00a0return x / 2\n",
    "no-width space": "\u200bdef half(x):\n    return\u200b x / 2\n",
    "NumPy": "```python\nimport numpy as np\ndef half(x):\n    return float(np.divide(x, 2))\n```",
    "lambda": "```python\nhalf = lambda x: x / 2\n```",
}


@pytest.mark.parametrize("name", RIGHT_ANSWERS)
def test_right_code_passes_however_it_is_written(name: str) -> None:
    score = PassAt1().score(sample(CODE), [RIGHT_ANSWERS[name]])
    assert score.value == 1.0, score


@pytest.mark.parametrize(
    "answer",
    ["    return x\n", "", "I cannot do that.", "```python\n```", "    pass", "def other(): pass"],
)
def test_wrong_code_fails(answer: str) -> None:
    assert PassAt1().score(sample(CODE), [answer]).value == 0.0


def test_tests_that_do_not_run_give_no_score() -> None:
    broken = {**CODE, "test": "def check(candidate):\n    return undefined(\n"}
    assert PassAt1().score(sample(broken), ["    return x / 2\n"]).value is None
    assert PassAt1().score(sample(None), ["    return x / 2\n"]).value is None


def test_a_body_is_read_before_anything_is_cut() -> None:
    programs = candidate_programs(PREFIX, "    return x / 2\n", "half")
    assert programs[0] == PREFIX + "    return x / 2\n"


def test_scorers_survive_any_text() -> None:
    random_text = random.Random(0)
    alphabet = "0123456789.,/-+#$%(){}\\`~ \n\tabdefr=:\0\ud800é"
    code = sample(CODE)
    for _ in range(400):
        text = "".join(random_text.choices(alphabet, k=random_text.randrange(120)))
        for scorer in (ExactMatch(), TextMatch()):
            assert isinstance(scorer.score(sample("18"), [text]), Score)
        assert all(isinstance(p, str) for p in candidate_programs(PREFIX, text, "half"))
    assert PassAt1().score(code, ["\0\ud800```"]).value == 0.0


@pytest.mark.parametrize(
    "piece",
    ["9", "9,", "999,", "1 ", "1/", "#### ", "answer ", "answer: ", "```\n", "~~~ \n", "`", "\n"]
    + ["\\boxed{", "\\frac{1", "\\boxed{{a}", ".", "-", "(", "def half(", "    "],
)
def test_scorers_take_linear_time_on_repetition(piece: str) -> None:
    started = time.process_time()
    ExactMatch().score(sample("18"), [piece * 20_000])
    candidate_programs(PREFIX, piece * 20_000, "half")
    assert time.process_time() - started < 5


@pytest.mark.parametrize("n", range(1, 7))
def test_pass_at_k_is_the_share_of_draws_with_a_correct_one(n: int) -> None:
    for c in range(n + 1):
        for k in range(1, n + 1):
            draws = list(combinations(range(n), k))
            share = sum(any(i < c for i in draw) for draw in draws) / len(draws)
            assert math.isclose(pass_at_k(n, c, k), share, abs_tol=1e-12)


@pytest.fixture(scope="module")
def humaneval(shared_data: Path) -> tuple[Task, list[str]]:
    """HumanEval and its canonical solutions."""
    path = shared_data / "HumanEval.jsonl.gz"
    with gzip.open(path, "rt") as file:
        solutions = [json.loads(line)["canonical_solution"] for line in file]
    return load_task(replace(TaskConfig.named("humaneval"), path=str(path))), solutions


def scores(task: Task, answers: list[str]) -> list[Score]:
    assert task.scorer is not None
    score = task.scorer.score
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(lambda s, a: score(s, [a]), task.samples, answers))


@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_canonical_solutions_of_humaneval_pass(
    humaneval: tuple[Task, list[str]], step: int
) -> None:
    task, solutions = humaneval
    assert len(solutions) == 164
    part = replace(task, samples=task.samples[::step])
    results = zip(part.samples, scores(part, solutions[::step]), strict=True)
    assert [(s.id, score) for s, score in results if score.value != 1.0] == []


def unsolved(task: Task, step: int) -> list[str]:
    """Problems among every `step`-th that a function without a body passes."""
    part = replace(task, samples=task.samples[::step])
    results = zip(part.samples, scores(part, ["    pass\n"] * len(part.samples)), strict=True)
    return [sample.id for sample, score in results if score.value != 0.0]


def test_no_empty_solution_of_humaneval_passes(humaneval: tuple[Task, list[str]]) -> None:
    assert unsolved(humaneval[0], 8) == []


@pytest.mark.slow
def test_no_empty_solution_of_all_humaneval_passes(humaneval: tuple[Task, list[str]]) -> None:
    assert unsolved(humaneval[0], 1) == []
