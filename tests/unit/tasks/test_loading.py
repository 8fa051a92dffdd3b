"""Tasks are read whole and checked before anything runs, from every kind of source."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from specbench.errors import ConfigError, TaskError
from specbench.paths import conf_dir
from specbench.schema import catalog
from specbench.schema.task import RowFormat
from specbench.tasks import Task, TaskConfig, load_task, sample_digest
from specbench.tasks.formats import FORMATS
from specbench.tasks.scorers import ByCategory, ExactMatch, PassAt1
from specbench.tasks.sources import Rows

TINY = ("tiny_math", "tiny_code", "tiny_chat", "tiny_rewrite", "tiny_qa", "tiny_translate")


def node(**changes: Any) -> dict[str, Any]:
    plain = {
        "name": "mine",
        "title": "Mine",
        "version": 1,
        "licence": "MIT",
        "source": {"kind": "file", "file": "none.jsonl"},
        "max_new_tokens": 8,
    }
    return {**plain, **changes}


def row(**changes: Any) -> dict[str, Any]:
    return {"id": "mine/0", "turns": ["a"], "category": "c", "reference": None, **changes}


def write(path: Path, *rows: Any) -> str:
    lines = [item if isinstance(item, str) else json.dumps(item) for item in rows]
    path.write_text("".join(line + "\n" for line in lines))
    return str(path)


def load(path: str, **changes: Any) -> Task:
    return load_task(TaskConfig.from_dict(node(path=path, **changes)))


@pytest.mark.parametrize("path", sorted((conf_dir() / "task").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_task_file_is_valid_and_bears_its_own_name(path: Path) -> None:
    config = TaskConfig.named(path.stem)
    assert config.name == path.stem
    assert config.title and config.summary and config.licence


@pytest.mark.parametrize("name", TINY)
def test_embedded_tasks_load_without_a_network(name: str) -> None:
    task = load_task(TaskConfig.named(name))
    assert len(task.samples) == 80
    assert {sample.category for sample in task.samples} == {name}
    assert all(sample.id.startswith(f"{name}/") for sample in task.samples)


def test_the_mix_begins_with_one_of_each_and_keeps_their_scorers() -> None:
    task = load_task(TaskConfig.named("tiny"), limit=12)
    assert [sample.category for sample in task.samples] == [*TINY, *TINY]
    assert isinstance(task.scorer, ByCategory)
    kinds = [type(task.scorer_of(sample)) for sample in task.samples[:3]]
    assert kinds == [ExactMatch, PassAt1, type(None)]
    assert {scorer.name for scorer in task.scorers()} == {"exact_match", "pass_at_1", "text_match"}


def test_the_mix_can_be_narrowed_by_category() -> None:
    node = {**catalog.load("task", "tiny"), "category": "tiny_qa", "limit": None}
    config = TaskConfig.from_dict(node)
    assert Counter(s.category for s in load_task(config).samples) == {"tiny_qa": 80}


@pytest.mark.parametrize(
    ("name", "file", "count", "turns"),
    [
        ("gsm8k", "gsm8k_test.jsonl", 1319, {1: 1319}),
        ("humaneval", "HumanEval.jsonl.gz", 164, {1: 164}),
        ("mt_bench", "mt_bench_question.jsonl", 80, {2: 80}),
        ("spec_bench", "spec_bench_question.jsonl", 480, {1: 400, 2: 80}),
    ],
)
def test_official_files_load(
    shared_data: Path, name: str, file: str, count: int, turns: dict[int, int]
) -> None:
    config = replace(TaskConfig.named(name), path=str(shared_data / file))
    task = load_task(config)
    assert len(task.samples) == count
    assert Counter(len(sample.turns) for sample in task.samples) == turns
    if config.source.sha256 is not None:
        data = (shared_data / file).read_bytes()
        assert hashlib.sha256(data).hexdigest() == config.source.sha256


def test_spec_bench_has_eighty_questions_in_each_of_six_groups(shared_data: Path) -> None:
    path = str(shared_data / "spec_bench_question.jsonl")
    config = replace(TaskConfig.named("spec_bench"), path=path)
    groups = Counter(sample.group for sample in load_task(config).samples)
    assert groups == dict.fromkeys(
        ["multi_turn_conversation", "translation", "summarization", "qa", "math_reasoning", "rag"],
        80,
    )
    narrowed = load_task(replace(config, category=("multi_turn_conversation", "qa")))
    assert len(narrowed.samples) == 160
    assert len(load_task(replace(config, category=("coding",))).samples) == 10


def test_every_gsm8k_reference_is_what_its_worked_answer_scores(shared_data: Path) -> None:
    path = shared_data / "gsm8k_test.jsonl"
    task = load_task(replace(TaskConfig.named("gsm8k"), path=str(path)))
    answers = [json.loads(line)["answer"] for line in path.read_text().splitlines()]
    assert task.scorer is not None
    for sample, answer in zip(task.samples, answers, strict=True):
        assert task.scorer.score(sample, [answer]).value == 1.0
        assert task.scorer.score(sample, [answer.split("####")[0] + "#### 123456789"]).value == 0.0


def test_worked_examples_come_first_and_without_calculator_notes(tmp_path: Path) -> None:
    shots = write(
        tmp_path / "train.jsonl",
        {"question": "q1", "answer": "1+1=<<1+1=2>>2\n#### 2"},
        {"question": "q2", "answer": "3\n#### 3"},
        {"question": "q3", "answer": "4\n#### 4"},
    )
    test = write(tmp_path / "test.jsonl", {"question": "q", "answer": "#### 1,000"})
    config = replace(TaskConfig.named("gsm8k"), path=test, shots=2, shots_path=shots)
    task = load_task(config)
    assert task.samples[0].few_shot == (("q1", "1+1=2\n#### 2"), ("q2", "3\n#### 3"))
    assert task.samples[0].reference == "1,000"
    assert task.digest != load_task(replace(config, shots=1)).digest
    with pytest.raises(TaskError, match="3 worked examples"):
        load_task(replace(config, shots=4))


def test_shots_are_refused_where_there_are_none() -> None:
    with pytest.raises(ConfigError, match="task.shots"):
        load_task(replace(TaskConfig.named("tiny_math"), shots=2))
    with pytest.raises(ConfigError, match="do not apply"):
        load_task(replace(TaskConfig.named("tiny"), shots=2))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ('{"id": "mine/1", ', "line 3.*\n.*not JSON"),
        ("[1]", "line 3.*\n.*not a JSON object"),
        (row(), "line 3.*\n.*'mine/0' was used at line 1"),
        ({"id": "mine/1", "category": "c", "reference": None}, "line 3.*\n.*'turns' is missing"),
        ({"id": "mine/1", "category": "c", "turns": ["a"]}, "line 3.*\n.*'reference' is missing"),
        (row(id="mine/1", turns=[]), "line 3.*\n.*'turns' must be"),
        (row(id="mine/1", turns=["a", 3]), "line 3.*\n.*not a text"),
        (row(id=7), "line 3.*\n.*'id' must be a text"),
        ("[" * 100_000, "line 3.*\n.*not JSON"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, broken: Any, message: str) -> None:
    path = write(tmp_path / "task.jsonl", row(), "", broken, row(id="mine/9"))
    with pytest.raises(TaskError) as raised:
        load(path)
    assert raised.match(message.replace("\n.*", "(.|\n)*"))
    assert path in raised.value.what


@pytest.mark.parametrize(
    ("name", "broken", "message"),
    [
        ("gsm8k", {"question": "q", "answer": "18"}, "#### number"),
        ("gsm8k", {"question": "q"}, "'answer' is missing"),
        ("humaneval", {"task_id": "a", "prompt": "p", "entry_point": "f", "test": "x"}, "check"),
        (
            "humaneval",
            {"task_id": "a", "prompt": "p", "entry_point": "f()", "test": "def check("},
            "entry_point",
        ),
        ("mt_bench", {"question_id": "x", "category": "c", "turns": ["a"]}, "whole number"),
        ("spec_bench", {"question_id": 1, "turns": ["a"]}, "'category' is missing"),
    ],
)
def test_broken_rows_of_official_formats_are_named(
    tmp_path: Path, name: str, broken: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "file.jsonl", broken)
    with pytest.raises(TaskError) as raised:
        load_task(replace(TaskConfig.named(name), path=path))
    assert "line 1" in raised.value.what and message in raised.value.why


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "\xe9"}\n')
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"{}" * 1000)[:-9])
    (tmp_path / "plain.jsonl.gz").write_text("{}")
    for name in ("empty.jsonl", "latin.jsonl", "cut.jsonl.gz", "plain.jsonl.gz", "none", "."):
        with pytest.raises(TaskError) as raised:
            load(str(tmp_path / name))
        assert str(tmp_path) in raised.value.what


def test_windows_line_ends_and_byte_order_marks_are_read(tmp_path: Path) -> None:
    path = tmp_path / "task.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(row()).encode() + b"\r\n")
    assert load(str(path)).samples[0].id == "mine/0"


def test_a_changed_frozen_file_is_refused() -> None:
    config = TaskConfig.named("tiny_math")
    changed = replace(config, source=replace(config.source, sha256="0" * 64))
    with pytest.raises(TaskError, match="was changed"):
        load_task(changed)


def test_limit_cuts_samples_and_leaves_the_digest(tmp_path: Path) -> None:
    path = write(tmp_path / "task.jsonl", *(row(id=f"mine/{i}") for i in range(5)))
    whole = load(path)
    config = TaskConfig.from_dict(node(path=path, limit=2))
    assert [s.id for s in load_task(config).samples] == ["mine/0", "mine/1"]
    assert len(load_task(config, limit=3).samples) == 3
    assert load_task(config).digest == whole.digest
    with pytest.raises(ConfigError):
        load_task(config, limit=0)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"prompt": {"template": "Q: {question}"}},
        {"prompt": {"system": "Be brief."}},
        {"stop": ["\n"]},
        {"completion_stop": ["\n"]},
    ],
)
def test_the_digest_covers_what_is_asked(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write(tmp_path / "task.jsonl", row())
    assert load(path, **change).digest != load(path).digest
    assert load(path, title="Other", max_new_tokens=9).digest == load(path).digest


def test_the_digest_covers_every_field_of_a_sample(tmp_path: Path) -> None:
    sample = load(write(tmp_path / "task.jsonl", row())).samples[0]
    changed = [
        replace(sample, id="x"),
        replace(sample, category="x"),
        replace(sample, turns=("x",)),
        replace(sample, reference="x"),
        replace(sample, few_shot=(("x", "y"),)),
        replace(sample, group="x"),
    ]
    assert len({sample_digest(item) for item in [sample, *changed]}) == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shotz": 1}, "task.shots"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"prompt": {"template": "no place"}}, "template"),
        ({"prompt": {"style": "chatt"}}, "chat"),
        ({"prompt": {"sytem": "a"}}, "task.prompt.system"),
        ({"source": {"kind": "hubb"}}, "hub"),
        ({"source": {"kind": "file", "file": "a", "format": "gsm"}}, "gsm8k"),
        ({"source": {"kind": "file", "fiel": "a"}}, "task.source.file"),
        ({"source": {"kind": "mix", "tasks": []}}, "task.source.tasks"),
        ({"source": {"kind": "hub", "dataset": "a"}}, "task.source.split"),
        ({"limit": -1}, "task.limit"),
        ({"stop": "text"}, "task.stop"),
        ({"scorer": {"name": "a"}}, "_target_"),
    ],
)
def test_bad_keys_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        TaskConfig.from_dict(node(**change))
    assert message in str(raised.value)


def test_an_unknown_category_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "task.jsonl", row(category="writing"))
    with pytest.raises(ConfigError, match="Did you mean 'writing'"):
        load(path, category=["writin"])


def test_an_unknown_scorer_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "task.jsonl", row())
    with pytest.raises(ConfigError, match="ExactMatch"):
        load(path, scorer={"_target_": "specbench.tasks.scorers.ExactMach"})


@pytest.mark.parametrize("name", ["gsm8k", "humaneval", "mt_bench", "spec_bench"])
def test_without_a_network_the_error_comes_at_once_and_says_what_works(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPECBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr("specbench.tasks.sources._reachable", lambda address: False)
    started = time.monotonic()
    with pytest.raises(TaskError) as raised:
        load_task(TaskConfig.named(name))
    assert "task.path=FILE" in raised.value.fix and "task=tiny" in raised.value.fix
    assert time.monotonic() - started < 20


def test_hosts_that_do_not_answer_count_as_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    from specbench.tasks import sources

    monkeypatch.setattr("urllib.request.getproxies", dict)
    assert not sources._reachable("http://localhost:1")
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://proxy"})
    assert sources._reachable("https://localhost:1")


def test_hub_rows_go_through_the_same_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    table = [{"question": "q", "answer": "#### 3"}, {"question": "q", "answer": "three"}]

    def load_dataset(name: str, config: str | None, **arguments: Any) -> list[dict[str, str]]:
        asked.append((name, config, arguments))
        return table

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr("specbench.tasks.sources._reachable", lambda address: True)
    config = TaskConfig.named("gsm8k")
    with pytest.raises(TaskError, match="row 1"):
        load_task(config)
    table.pop()
    task = load_task(config)
    assert task.samples[0].reference == "3"
    revision = config.source.revision
    assert asked[0] == ("openai/gsm8k", "main", {"split": "test", "revision": revision})
    assert task.source == f"openai/gsm8k main test {revision}"


def test_an_official_file_is_downloaded_once_and_known_by_its_digest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPECBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    original = tmp_path / "question.jsonl"
    write(original, {"question_id": 1, "category": "math", "turns": ["a", "b"]})
    source = {
        "kind": "url",
        "format": "spec_bench",
        "dataset": "me/mine",
        "url": original.as_uri(),
        "sha256": hashlib.sha256(original.read_bytes()).hexdigest(),
    }
    config = TaskConfig.from_dict(node(source=source))
    assert load_task(config).samples[0].group == "multi_turn_conversation"
    original.unlink()
    assert load_task(config).samples[0].turns == ("a", "b")
    assert len(list((tmp_path / "cache" / "tasks").iterdir())) == 1

    write(original, {"question_id": 2, "category": "math", "turns": ["a"]})
    other = TaskConfig.from_dict(node(source={**source, "sha256": "1" * 64}))
    with pytest.raises(TaskError, match="not the file that it was"):
        load_task(other)


def test_rows_know_where_they_came_from(tmp_path: Path) -> None:
    from specbench.tasks.sources import read_file

    path = tmp_path / "task.jsonl"
    write(path, row(), "", row(id="b"))
    assert read_file(path) == Rows([("line 1", row()), ("line 3", row(id="b"))], str(path))


def test_the_documented_example_of_a_new_task_works(tmp_path: Path, repo_root: Path) -> None:
    text = (repo_root / "docs" / "tasks.md").read_text()
    example = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    line = json.loads(text.split("A file in the format `")[1].split("`")[0])
    path = write(tmp_path / "mine.jsonl", {**line, "reference": "yes"})
    task = load_task(TaskConfig.from_dict({**example, "path": path}))
    assert task.scorer is not None
    assert task.scorer.score(task.samples[0], [" yes\n"]).value == 1.0


def test_tasks_load_without_torch() -> None:
    program = (
        "import sys\nfrom specbench.tasks import TaskConfig, load_task\n"
        "load_task(TaskConfig.named('tiny'))\n"
        "print([name for name in ('torch', 'transformers', 'hydra') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_row_format_that_a_task_may_name_is_read():
    assert set(FORMATS) == set(get_args(RowFormat))
