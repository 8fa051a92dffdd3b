"""Published outputs from anywhere: imported whole, or refused with nothing written."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specbench.errors import SpecbenchError
from specbench.importing import AUTO, FORMATS, plan, write
from specbench.importing.documents import LARGEST_FILE
from specbench.predict import profiles_of
from specbench.schema.result import RESULT_SCHEMA
from specbench.store import read_parquet
from tests.fuzz.hostile import DEEP, FUZZ, VALUES, damaged, dumped, mutated, places_of
from tests.unit.importing.factory import (
    aiperf_record,
    answer,
    choice,
    completion,
    rest_baseline,
    rest_method,
    sglang_run,
    spec_bench,
    vllm_run,
)
from tests.unit.importing.test_speculation import DETAILED, SUMMARY, sglang, vllm

VALID: dict[str, list[dict[str, Any]]] = {
    "rest": [rest_method(81), rest_method(82)],
    "rest baseline": [rest_baseline(81), rest_baseline(82)],
    "spec_bench": [spec_bench(81, [6, 5], [3, 3, 3, 2], [2, 2])],
    "medusa": [
        answer("a", choice([6], [0.5], [2]), model_id="medusa-vicuna-7b-v1.3-temperature-0.0")
    ],
    "vllm_bench": [vllm_run()],
    "sglang_bench": [sglang_run()],
    "aiperf": [aiperf_record("a"), aiperf_record("a", 1), aiperf_record("b")],
    "openai_chat": [completion()],
    "vllm chat": [vllm(DETAILED), vllm(SUMMARY)],
    "sglang_generate": [sglang()],
}


def lines(rows: Any) -> str:
    rows = rows if isinstance(rows, list) else [rows]
    return "".join(dumped(each) + "\n" for each in rows)


def bring_in(folder: Path, files: Sequence[Path], name: str = AUTO, skip: bool = False) -> bool:
    """Import files as the command does; return whether it worked.

    Whatever is wrong is one clear error, and then the results folder does not exist.
    """
    results = folder / "results"
    shutil.rmtree(results, ignore_errors=True)
    try:
        written = write(plan(files, format_name=name, skip_bad=skip), results)
    except SpecbenchError as error:
        assert error.what and "\n" not in error.what
        f"{error.what}{error.why}{error.fix}".encode()
        assert not results.exists()
        return False
    assert sorted(results.iterdir()) == sorted(each.path for each in written if each.path)
    for each in written:
        assert each.path is not None
        back = read_parquet(each.path)
        assert back.read(RESULT_SCHEMA.names).num_rows == len(each.rows) > 0
        assert len(back.rows) == len(each.rows)
        try:
            profiles_of([back])
        except SpecbenchError as error:
            assert error.what
    return True


@pytest.mark.parametrize("name", sorted(VALID))
def test_the_seeds_of_the_fuzzer_are_valid(tmp_path, name):
    path = tmp_path / "published.jsonl"
    path.write_text(lines(VALID[name]))
    assert bring_in(tmp_path, [path])


@pytest.mark.parametrize("name", sorted(VALID))
@FUZZ
@given(data=st.data())
def test_hostile_values(tmp_path, name, data):
    path = tmp_path / "published.jsonl"
    path.write_text(lines(data.draw(mutated(VALID[name]))))
    skip = data.draw(st.booleans())
    bring_in(tmp_path, [path], AUTO, skip)


@FUZZ
@given(data=st.data())
def test_a_pair_of_which_one_is_hostile(tmp_path, data):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    sides = [VALID["rest"], VALID["rest baseline"]]
    if data.draw(st.booleans()):
        sides.reverse()
    good.write_text(lines(sides[0]))
    bad.write_text(lines(data.draw(mutated(sides[1]))))
    bring_in(tmp_path, [good, bad])


@pytest.mark.parametrize("name", sorted(VALID))
@FUZZ
@given(data=st.data())
def test_damaged_bytes(tmp_path, name, data):
    path = tmp_path / "published.jsonl"
    path.write_bytes(data.draw(damaged(lines(VALID[name]).encode())))
    bring_in(tmp_path, [path], AUTO, data.draw(st.booleans()))


@FUZZ
@given(data=st.data())
def test_damaged_gzip(tmp_path, data):
    path = tmp_path / "published.jsonl.gz"
    path.write_bytes(data.draw(damaged(gzip.compress(lines(VALID["rest"]).encode(), mtime=0))))
    bring_in(tmp_path, [path])


@FUZZ
@given(value=VALUES, name=st.sampled_from(FORMATS))
def test_any_json_in_any_format(tmp_path, value, name):
    path = tmp_path / "published.json"
    path.write_text(dumped(value))
    bring_in(tmp_path, [path], name)
    bring_in(tmp_path, [path], name, True)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("other", sorted(VALID))
def test_a_file_in_another_format_than_it_is_said_to_be(tmp_path, name, other):
    path = tmp_path / "published.jsonl"
    path.write_text(lines(VALID[other]))
    bring_in(tmp_path, [path], name)


@pytest.mark.parametrize("name", sorted(VALID))
def test_half_a_character_in_every_text(tmp_path, name):
    """JSON can spell a lone surrogate, which no encoding of text can write."""
    path = tmp_path / "published.jsonl"
    for way in places_of(VALID[name]):
        rows = json.loads(json.dumps(VALID[name]))
        *parents, last = way
        node: Any = rows
        for key in parents:
            node = node[key]
        if isinstance(node[last], str):
            node[last] += "\ud800"
            path.write_text(lines(rows))
            bring_in(tmp_path, [path])


HUGE = "9" * 400


@pytest.mark.parametrize("name", sorted(VALID))
@pytest.mark.parametrize("text", [HUGE, f"-{HUGE}", "1e400", "1e-400", "NaN", "2147483648", "{}"])
def test_an_impossible_number_in_every_place(tmp_path, name, text):
    path = tmp_path / "published.jsonl"
    for way in places_of(VALID[name][:1]):
        rows = json.loads(json.dumps(VALID[name][:1]))
        *parents, last = way
        node: Any = rows
        for key in parents:
            node = node[key]
        if isinstance(node[last], (int, float)):
            node[last] = "HERE"
            path.write_text(lines(rows).replace('"HERE"', text))
            bring_in(tmp_path, [path])


@pytest.mark.parametrize("text", [DEEP, '{"question_id": ' + DEEP + "}", "9" * 10_000, "", "\0"])
def test_deep_long_and_empty_files(tmp_path, text):
    path = tmp_path / "published.jsonl"
    path.write_text(text)
    for name in (AUTO, *FORMATS):
        assert not bring_in(tmp_path, [path], name)


def test_a_name_is_no_way_out_of_the_results_folder(tmp_path):
    for field in ("model_id", "category", "question_id"):
        rows = [{**rest_method(81), field: "../../../tmp/../x/\x00y"}]
        path = tmp_path / "published.jsonl"
        path.write_text(lines(rows))
        bring_in(tmp_path, [path])
    assert sorted(each.name for each in tmp_path.iterdir()) in (
        ["published.jsonl"],
        ["published.jsonl", "results"],
    )


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(tmp_path, monkeypatch):
    from specbench.importing import documents

    assert LARGEST_FILE == documents.LARGEST_FILE
    monkeypatch.setattr(documents, "LARGEST_FILE", 1 << 20)
    path = tmp_path / "published.jsonl.gz"
    path.write_bytes(gzip.compress(bytes(32 << 20)))
    with pytest.raises(SpecbenchError, match="too large"):
        plan([path])
