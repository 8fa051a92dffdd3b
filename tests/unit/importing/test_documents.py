"""Whatever a file holds, it is read or refused by name: nothing else happens."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specbench.errors import ResultsError, SpecbenchError
from specbench.importing import FORMATS, documents, plan, read_source
from specbench.schema.result import RESULT_SCHEMA, FileMetadata
from tests.unit.importing.factory import (
    aiperf_record,
    completion,
    rest_baseline,
    rest_method,
    sglang_run,
    spec_bench,
    vllm_run,
    write,
)

WHOLE = json.dumps(rest_method(81))


def refused(path: Path, **options: Any) -> ResultsError:
    with pytest.raises(ResultsError) as caught:
        read_source(path, **options)
    return caught.value


def test_a_missing_file_a_folder_and_an_empty_file(tmp_path: Path) -> None:
    assert "There is no file" in refused(tmp_path / "none.jsonl").what
    assert "is a folder" in refused(tmp_path).what
    assert "is empty" in refused(write(tmp_path / "empty.jsonl", "", "  ")).what


def test_a_truncated_last_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    path.write_text(f"{WHOLE}\n{WHOLE[:-20]}")
    error = refused(path)
    assert "line 2" in error.what
    assert "ends in the middle" in error.why
    assert len(read_source(path, skip_bad=True).answers) == 1


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes(
        WHOLE.encode() + b"\n" + WHOLE.encode().replace(b"writing", b"\xe9crit") + b"\n"
    )
    assert "line 2" in refused(path).what


def test_a_gzip_file_is_read_and_a_damaged_one_refused(tmp_path: Path) -> None:
    packed = gzip.compress(f"{WHOLE}\n".encode())
    path = tmp_path / "answers.jsonl.gz"
    path.write_bytes(packed)
    assert len(read_source(path).answers) == 1
    path.write_bytes(packed[:-12])
    assert "is damaged" in refused(path).what


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "LARGEST_FILE", 1 << 20)
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * (4 << 20)))
    assert "too large" in refused(path).what
    path.write_bytes(b" " * (2 << 20))
    assert "too large" in refused(path).what


def test_a_mark_of_byte_order_and_windows_line_ends_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + f"{WHOLE}\r\n\r\n".encode())
    assert len(read_source(path).answers) == 1


def test_one_document_over_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "pretty.json"
    path.write_text(json.dumps(vllm_run(), indent=2))
    assert len(read_source(path).answers) == 3
    path.write_text(json.dumps([rest_method(81), rest_method(82)], indent=2))
    assert [answer.sample_id for answer in read_source(path).answers] == ["81", "82"]


def test_no_pickle_is_ever_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    path = tmp_path / "hostile.jsonl"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(Hostile(), protocol))
        refused(path)
        path.write_bytes(gzip.compress(pickle.dumps(Hostile(), protocol)))
        refused(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"question_id": ' + "9" * 5000 + "}",
        "null",
        "[1, 2]",
        '"text"',
        "{}",
        '{"question_id": 1}',
        '{"choices": []}',
        '{"choices": [{"turns": []}]}',
        '{"choices": [{"turns": ["a"], "wall_time": [1]}]}',
        '{"choices": {"turns": 1}}',
        '{"question_id": 1, "prompt": "foreign"}',
        '{"metadata": {}, "metrics": {"request_latency": 1}}',
        '{"input_lens": [1], "output_lens": [1], "ttfts": [1], "itls": [1]}',
        '{"usage": {}, "choices": [{}]}',
    ],
)
def test_foreign_lines_are_refused_whatever_format_is_insisted_on(
    tmp_path: Path, line: str
) -> None:
    path = write(tmp_path / "foreign.jsonl", line)
    for name in ("auto", *FORMATS):
        refused(path, format_name=name)
        refused(path, format_name=name, skip_bad=True)


SEEDS = [
    rest_method(),
    rest_baseline(),
    spec_bench(81, [6, 3], [3, 2, 1, 1, 2], [3, 2]),
    vllm_run(),
    sglang_run(),
    aiperf_record("a"),
    completion(),
]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=5),
    st.just("\ud800"),
    st.just("ERROR"),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value inside of a value."""
    found = [at] if at else []
    if isinstance(value, dict):
        items: Any = value.items()
    else:
        items = enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found.extend(places(item, (*at, key)))
    return found


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """One of the known objects with up to three values replaced or removed."""
    values = json.loads(json.dumps(draw(st.sampled_from(SEEDS))))
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(places(values)))
        inner = values
        for key in path:
            inner = inner[key]
        if draw(st.booleans()) and isinstance(inner, dict):
            del inner[last]
        else:
            inner[last] = draw(VALUES)
        if not places(values):
            break
    return values


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=mutated(), skip_bad=st.booleans())
def test_a_changed_value_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, values: Any, skip_bad: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.jsonl"
    path.write_text(json.dumps(values) + "\n", encoding="utf-8")
    try:
        (planned,) = plan([path], skip_bad=skip_bad)
    except SpecbenchError as error:
        assert error.what and (error.why or error.fix)
        return
    for row in planned.rows:
        if row["error"] is None:
            assert row["total_ns"] > 0
            assert row["new_tokens"] >= 0
    pa.Table.from_pylist([dict(row) for row in planned.rows], schema=RESULT_SCHEMA)
    planned.metadata.to_json().encode()
    FileMetadata.from_dict(json.loads(planned.metadata.to_json()))


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_changed_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = (WHOLE + "\n" + json.dumps(rest_method(82)) + "\n").encode()
    start = data.draw(st.integers(0, len(whole)))
    length = data.draw(st.integers(0, 40))
    piece = data.draw(st.binary(max_size=8))
    path = tmp_path_factory.getbasetemp() / "bytes.jsonl"
    path.write_bytes(whole[:start] + piece + whole[start + length :])
    try:
        read_source(path)
    except SpecbenchError as error:
        assert error.what
