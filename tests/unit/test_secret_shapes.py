"""Every shape of a secret, wherever a run can meet it, is in nothing that the run leaves behind."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specbench import store
from specbench.cli.console import print_error
from specbench.compare import compare
from specbench.errors import SpecbenchError
from specbench.report import csv, latex, markdown
from specbench.report import json as json_report
from specbench.report.html import gather
from specbench.report.html import render as html
from specbench.secrets import scrub, scrub_command
from specbench.tasks.base import Sample
from tests.secret_shapes import SHAPES, Shape
from tests.unit.compare.factory import failed_row, metadata, plain_rounds, row

DATA = Path(__file__).parents[3] / "shared" / "data"


def environment(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The text in a variable; an error repeats it without its name."""
    number = SHAPES.index(shape)
    monkeypatch.setenv(f"PLANTED_{number}_TOKEN", shape.text)
    return {"error": f"refused: {shape.text}", "config": {"seen": f"x{shape.text!r}y"}}


def command_line(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A word of the command."""
    command = scrub_command(["specbench", "run", f"model.options.x={shape.text}", shape.text])
    return {"provenance": {"command": command}}


def address(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """User, password and a signed part of the model's address."""
    secret = shape.secrets[0].replace("/", "_")
    url = f"https://me:p@{secret}@h.example/m?sig={secret}"
    return {"config": {"model": {"name": "hf", "target": url}}, "model": url, "error": f"404 {url}"}


def configuration(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A value anywhere in the configuration, and a key."""
    return {"config": {"options": [{"note": shape.text}, {shape.text: 1}], "law": shape.text}}


def prompt(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a task's file calls a sample and its category, and its scorer's words."""
    sample = Sample(f"id {shape.text}", shape.text, ("hello",), None)
    named = {"sample_id": sample.id, "category": sample.category, "group": sample.group}
    assert sample.id == scrub(sample.id)
    return {**named, "score_detail": f"expected 3: {shape.text}"}


def server(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a server answered, quoted in an error as it came and as its repr."""
    return {"error": f"401 from h.example: {shape.text}\n{shape.text!r}", "law": shape.text}


PLACES: tuple[Callable[[Shape, pytest.MonkeyPatch], dict[str, Any]], ...] = (
    *(environment, command_line, address, configuration, prompt, server),
)


def left_behind(folder: Path, shapes: tuple[Shape, ...], place: Any, monkeypatch: Any) -> str:
    """Write everything that a run writes of some shapes in one place; return all of it as text."""
    rows, parts = [], []
    about: dict[str, Any] = {"config": {}, "provenance": {}}
    for number, shape in enumerate(shapes):
        told = place(shape, monkeypatch)
        for name in ("config", "provenance"):
            about[name][f"n{number}"] = told.get(name, {})
        about.update({name: told[name] for name in ("law", "model") if name in told})
        sample = told.get("sample_id", f"s{number}")
        category = told.get("category", "math")
        for arm in ("baseline", "method"):
            changes = {"category": category, "score_detail": told.get("score_detail")}
            failed = arm == "method" and "error" in told
            made = failed_row(arm, sample, 0) if failed else row(arm, sample, 0, plain_rounds(2))
            rows.append({**made, **changes, "error": told.get("error") if failed else None})
    rows += [row(arm, "fine", 0, plain_rounds(2)) for arm in ("baseline", "method")]
    described = metadata(**about)
    with store.Journal.open(folder, "job", described) as journal:
        journal.note(0, about["config"])
        journal.append_many(rows)
        parts.append(journal.path.read_text())
    path = folder / "job.parquet"
    store.write_parquet(path, rows, described)
    result = store.read_parquet(path)
    parts.append(path.read_bytes().decode("latin-1"))
    parts.append(json.dumps(result.table.to_pylist(maps_as_pydicts="strict"), ensure_ascii=False))
    parts.append(json.dumps(json.loads(result.metadata.to_json()), ensure_ascii=False))
    comparison = compare([result])
    reports = (csv.render, markdown.render, json_report.render, latex.render)
    parts += [render(comparison) for render in reports]
    parts.append(html(gather([result])))
    return "\n".join(parts)


def found_in(text: str, shapes: tuple[Shape, ...]) -> list[str]:
    """Return the names of the shapes of which a secret stands in a text."""
    plain = text.replace("\\/", "/").replace("&#x2F;", "/").replace("&#43;", "+")
    return [shape.name for shape in shapes if any(secret in plain for secret in shape.secrets)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: ascii(shape.name))
def test_a_shape_is_hidden_and_hiding_again_changes_nothing(shape):
    hidden = scrub(f"before {shape.text} after", {})
    assert not found_in(hidden, (shape,))
    assert hidden.startswith("before ")
    assert scrub(hidden, {}) == hidden


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_nothing_planted_is_found(tmp_path, monkeypatch, place):
    written = left_behind(tmp_path, SHAPES, place, monkeypatch)
    assert found_in(written, SHAPES) == []


def test_errors_in_a_terminal_or_a_log_hold_no_secret(capsys):
    for shape in SHAPES:
        print_error(SpecbenchError(f"no {shape.text}", f"why {shape.text}", f"fix {shape.text}"))
    assert found_in(capsys.readouterr().err, SHAPES) == []


ORDINARY = (
    "def f(token: str, password=None) -> None:\n    secret = get(secrets[0]); auth = self.auth",
    "The secret: always add. token: the next word; a cookie = 5 calories, 2 cookies = 10.",
    "basic mathematics, bearer bonds; https://host.example:8080/a@b/c?page=2#top me@host.example",
    "https://medium.example/@user/post and https://h.example/x:y@z, sk-learn-compatible-things",
    "API key is missing. api_key: not set, HF_TOKEN: unset; for token in tokens: print(token)",
    "max_new_tokens=128 stop_token=</s> bos_token: <s> mask_token_id=3 key=value",
    "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "assert encrypt('hi') == 'lm'  # key = 4",
)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_and_code_stay(text):
    assert scrub(text, {}) == text


@pytest.mark.skipif(not DATA.is_dir(), reason="the benchmarks' files are not here")
@pytest.mark.parametrize("name", ["gsm8k_test.jsonl", "HumanEval.jsonl.gz"])
def test_questions_and_solutions_of_benchmarks_stay(name):
    path = DATA / name
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    for line in content.decode().splitlines()[:200]:
        values = list(json.loads(line).values())
        assert scrub(values, {}) == values
