"""Journals from a broken disk or a foreign hand: continued whole, or refused and left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specbench.errors import SpecbenchError
from specbench.store import Journal
from specbench.store.journal import drop_written
from tests.fuzz.hostile import DEEP, FUZZ, VALUES, damaged, dumped, mutated
from tests.unit.compare.factory import metadata, plain_rounds, row

ROWS = [row(arm, "a", 0, plain_rounds(2)) for arm in ("baseline", "method")]


def valid(folder: Path) -> Path:
    """Write a journal of two lines and return its path."""
    with Journal.open(folder, "job", metadata()) as journal:
        journal.append_many(ROWS)
        return journal.path


def go_on(path: Path, content: bytes) -> None:
    """Open a journal of this content: it goes on, or says why not and touches nothing."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    before = path.read_bytes()
    folder = path.parent.parent
    if drop_written(folder, "job", []):
        assert before.count(b"\n") <= 2, "a journal was deleted with what it held"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    try:
        journal = Journal.open(folder, "job", metadata())
    except SpecbenchError as error:
        assert error.what and "\n" not in error.what
        assert path.read_bytes() == before, "a refused journal was changed"
        return
    with journal:
        kept = journal.rows
        journal.append_many([row("method", "later", 0, plain_rounds(2))])
    with Journal.open(folder, "job", metadata()) as again:
        assert len(again.rows) == len(kept) + 1
        assert json.dumps(again.rows[:-1]) == json.dumps(kept)


@pytest.fixture
def seed(tmp_path: Path) -> tuple[Path, list[Any], bytes]:
    path = valid(tmp_path)
    content = path.read_bytes()
    return path, [json.loads(line) for line in content.splitlines()], content


@FUZZ
@given(data=st.data())
def test_hostile_lines(seed, data):
    path, lines, _ = seed
    value = data.draw(mutated(lines))
    value = value if isinstance(value, list) else [value]
    go_on(path, "".join(dumped(line) + "\n" for line in value).encode())


@FUZZ
@given(data=st.data())
def test_damaged_bytes(seed, data):
    path, _, content = seed
    go_on(path, data.draw(damaged(content)))


@FUZZ
@given(value=VALUES)
def test_any_json(seed, value):
    path, lines, _ = seed
    go_on(path, (dumped(value) + "\n").encode())
    go_on(path, (json.dumps(lines[0]) + "\n" + dumped(value) + "\n{}\n").encode())


@pytest.mark.parametrize("text", [DEEP, "\n\n\n", "\ufeff{}", "9" * 10_000 + "\n"])
def test_deep_long_and_odd(seed, text):
    path, lines, _ = seed
    go_on(path, text.encode())
    go_on(path, (json.dumps(lines[0]) + "\n" + text + "\n" + text + "\n").encode())


def test_every_cut_keeps_the_whole_lines_before_it(seed):
    path, lines, content = seed
    first = content.index(b"\n") + 1
    for end in range(0, len(content), 7):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content[:end])
        with Journal.open(path.parent.parent, "job", metadata()) as journal:
            assert len(journal.rows) == (2 if end == len(content) else 0)
            assert journal.metadata.job_id == lines[0]["metadata"]["job_id"]
    assert first < len(content)
