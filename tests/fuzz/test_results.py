"""Result files from a broken disk or a foreign hand: understood, or refused with a sentence."""

from __future__ import annotations

import ast
import contextlib
import json
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import specbench
from specbench import store
from specbench.compare import compare
from specbench.errors import ResultsError, SpecbenchError
from specbench.predict import profiles_of
from specbench.report import csv, latex, markdown, table
from specbench.report import json as json_report
from specbench.report.html import gather
from specbench.report.html import render as html
from specbench.schema.result import METADATA_KEY, RESULT_SCHEMA
from tests.fuzz.hostile import DEEP, FUZZ, SCALARS, VALUES, damaged, dumped, mutated
from tests.unit.compare.factory import metadata, plain_rounds, row


def rows() -> list[dict[str, Any]]:
    """Return two samples, twice, in both arms."""
    return [
        row(arm, sample, repeat, plain_rounds(3))
        for repeat in range(2)
        for sample in ("a", "b")
        for arm in ("baseline", "method")
    ]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.parquet"
    store.write_parquet(path, rows(), metadata())
    return path


def rewritten(path: Path, values: Any, content: pa.Table) -> None:
    """Write a parquet file of any columns under any metadata, as a stranger could."""
    text = values if isinstance(values, str) else dumped(values)
    pq.write_table(
        content.replace_schema_metadata({METADATA_KEY: text.encode("utf-8", "surrogatepass")}), path
    )


PAGES = 1 if FUZZ.max_examples >= 150 else 8
"""Of so many files one is drawn as a page, which takes longer than all else; CI draws each."""


def use(path: Path, page: bool = False) -> bool:
    """Do all that is done with a result file; return whether it was understood."""
    try:
        result = store.read_parquet(path)
        assert len(result.rows) == len(result.outputs)
        result.rounds  # noqa: B018
        comparison = compare([result])
        csv.render(comparison)
        json.loads(json_report.render(comparison))
        markdown.render(comparison)
        table.render(comparison, width=100)
        latex.render(comparison)
        content = gather([result])
        if page or zlib.crc32(path.read_bytes()) % PAGES == 0:
            html(content)
        with contextlib.suppress(ResultsError):  # a file may have nothing to predict from
            profiles_of([result])
    except SpecbenchError as error:
        assert error.what and "\n" not in error.what + error.why
        return False
    finally:
        store.list_results(path.parent)
    return True


def test_the_seed_of_the_fuzzer_is_valid(good):
    assert use(good, page=True)


@FUZZ
@given(data=st.data())
def test_hostile_metadata(tmp_path, good, data):
    values = data.draw(mutated(json.loads(metadata().to_json())))
    path = tmp_path / "x.parquet"
    rewritten(path, values, pq.read_table(good))
    use(path)


@FUZZ
@given(value=VALUES)
def test_any_metadata(tmp_path, good, value):
    path = tmp_path / "x.parquet"
    rewritten(path, value, pq.read_table(good))
    assert not use(path)


@pytest.mark.parametrize("text", [DEEP, "", "{}", "null", '{"schema_version": 4}', "\ufeff{}"])
def test_odd_metadata(tmp_path, good, text):
    path = tmp_path / "x.parquet"
    rewritten(path, text, pq.read_table(good))
    assert not use(path)


@FUZZ
@given(data=st.data())
def test_hostile_columns(tmp_path, good, data):
    """Any column of another type, of hostile values, missing, or doubled."""
    content = pq.read_table(good)
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(content.column_names))
        place = content.column_names.index(name)
        action = data.draw(st.sampled_from(["values", "values", "nulls", "drop", "text", "none"]))
        if action == "drop":
            content = content.drop_columns([name])
            continue
        if action == "none":
            content = content.slice(0, 0)
            continue
        column: pa.Array = pa.nulls(len(content), content.schema.field(name).type)
        if action == "text":
            column = pa.array(["x"] * len(content))
        elif action == "values":
            value = data.draw(SCALARS)
            try:
                column = pa.array([value] * len(content))
            except (pa.ArrowException, OverflowError, UnicodeEncodeError):
                continue
        content = content.set_column(place, name, column)
    path = tmp_path / "x.parquet"
    rewritten(path, json.loads(metadata().to_json()), content)
    use(path)


@FUZZ
@given(data=st.data())
def test_hostile_numbers_of_the_right_type(tmp_path, good, data):
    """Negative times, counts that contradict each other, rounds that are empty or null."""
    changed = rows()
    numbers = [f.name for f in RESULT_SCHEMA if pa.types.is_integer(f.type)]
    for _ in range(data.draw(st.integers(1, 4))):
        entry = data.draw(st.sampled_from(changed))
        name = data.draw(st.sampled_from([*numbers, "rounds", "score", "sample_id", "arm"]))
        large = RESULT_SCHEMA.field(name).type == pa.int64()
        if name == "rounds":
            rounds = data.draw(st.sampled_from(["null", "empty", "odd", "nulls"]))
            number = data.draw(st.integers(-5, 5))
            entry["rounds"] = {
                "null": None,
                "empty": [],
                "odd": [{**entry["rounds"][0], "accepted": number, "proposed": -number}]
                if entry["rounds"]
                else [],
                "nulls": [{"turn": 0, "emitted": 1}] * 3,
            }[rounds]
        elif name == "score":
            entry["score"] = data.draw(st.floats())
        elif name in ("sample_id", "arm"):
            entry[name] = data.draw(st.sampled_from(["", "a", "method", "x" * 9999, "[red]x"]))
        else:
            limit = 2**62 if large else 2**31 - 1
            entry[name] = data.draw(st.sampled_from([0, -1, limit, -limit, 1, 7]))
    path = tmp_path / "x.parquet"
    content = pa.Table.from_pylist(changed, schema=RESULT_SCHEMA)
    rewritten(path, json.loads(metadata().to_json()), content)
    use(path)


INFINITE = (float("inf"), float("-inf"), 1e308)


@pytest.mark.parametrize("version", [float("inf"), float("nan"), 1e308, 10**400])
def test_a_version_that_is_no_version(tmp_path, good, version):
    values = {**json.loads(metadata().to_json()), "schema_version": version}
    rewritten(tmp_path / "x.parquet", values, pq.read_table(good))
    assert not use(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    "changes",
    [{"arm": "other"}, {"picture": "a\0b.png"}]
    + [{"started_unix": value} for value in (*INFINITE, -1.0, 1e18, float("nan"))]
    + [{"score": value} for value in INFINITE]
    + [{"quality": [("m", value)]} for value in INFINITE],
)
def test_values_that_no_measurement_has(tmp_path, good, changes):
    changed = rows()
    changed[1].update(changes)
    content = pa.Table.from_pylist(changed, schema=RESULT_SCHEMA)
    about = {"m": {"unit": "", "better": "higher"}}
    rewritten(tmp_path / "x.parquet", json.loads(metadata(metrics=about).to_json()), content)
    assert not use(tmp_path / "x.parquet")


@pytest.mark.parametrize("average", ["pictures", "categories"])
@pytest.mark.parametrize("value", [float("nan"), None])
def test_a_metric_without_a_value_has_no_figure(tmp_path, average, value):
    changed = rows()
    for entry in changed:
        entry["quality"] = [("m", value)]
    content = pa.Table.from_pylist(changed, schema=RESULT_SCHEMA)
    about = {"m": {"unit": "", "better": "higher", "average": average}}
    rewritten(tmp_path / "x.parquet", json.loads(metadata(metrics=about).to_json()), content)
    assert use(tmp_path / "x.parquet")


@pytest.mark.parametrize("name", ["value", "n", "floor", "error"])
@pytest.mark.parametrize("value", [*INFINITE, float("nan"), None, 10**400, "x"])
def test_hostile_values_of_whole_sets(tmp_path, good, name, value):
    set_ = {"m": {"value": 1.0, "n": 3, "floor": 0.1, "error": None, name: value}}
    values = json.loads(metadata(metrics={"m": {"unit": "", "better": "lower"}}).to_json())
    values["corpus"] = {"baseline": set_, "method": set_}
    rewritten(tmp_path / "x.parquet", values, pq.read_table(good))
    use(tmp_path / "x.parquet")


@pytest.mark.parametrize("key", ["needs", "parameters"])
@pytest.mark.parametrize("value", [3, None, [1], "x", True, [{}]])
def test_hostile_words_about_a_method(tmp_path, key, value):
    from tests.unit.compare.factory import draft_rounds

    changed = [row(arm, "a", 0, draft_rounds([2, 0])) for arm in ("baseline", "method")]
    content = pa.Table.from_pylist(changed, schema=RESULT_SCHEMA)
    values = json.loads(metadata().to_json())
    values["config"]["method"][key] = value
    rewritten(tmp_path / "x.parquet", values, content)
    use(tmp_path / "x.parquet")


@FUZZ
@given(data=st.data())
def test_damaged_bytes(tmp_path, good, data):
    path = tmp_path / "x.parquet"
    path.write_bytes(data.draw(damaged(good.read_bytes())))
    use(path)


def test_every_flipped_bit_of_the_data_is_noticed(tmp_path, good):
    """A result file carries checksums of its pages: no number is ever silently another one."""
    content = good.read_bytes()
    expected = store.read_parquet(good).table
    end = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    path = tmp_path / "x.parquet"
    for place in range(4, end, 13):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        with contextlib.suppress(ResultsError):
            assert store.read_parquet(path).table.equals(expected), f"byte {place}"


@pytest.mark.parametrize(
    "content",
    [b"", b"PAR1", b"PAR1PAR1", b"PAR1" + bytes(64) + b"PAR1", b"PK\x03\x04", b"\x80\x04\x95"]
    + [b"PAR1\xff\xff\xff\x7fPAR1", b"{}", b"ARROW1\x00\x00"],
)
def test_foreign_files(tmp_path, content):
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    assert not use(path)


def test_nothing_unpickles():
    """No reader of the package can run code that stands in a file.

    The name of pickle's error is all that is used of it, but for a run's own errors on their way
    between its own processes; torch's reader gets `weights_only`.
    """
    package = Path(specbench.__file__).parent
    banned = {"cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for path in package.rglob("*.py"):
        text = path.read_text()
        nodes = list(ast.walk(ast.parse(text)))
        own: set[ast.AST] = set()
        if path.relative_to(package) == Path("runner/processes.py"):
            there_and_back = "pickle.loads(pickle.dumps(error))"
            (error,) = (
                n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n) == there_and_back
            )
            own = set(ast.walk(error))
        for node in nodes:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
                assert node.module != "pickle", path
            assert not {name.split(".")[0] for name in names} & banned, path
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
                assert node.attr == "UnpicklingError" or node in own, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                words = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert words.get("allow_pickle") != "True", path
                assert called != "torch.load" or words.get("weights_only") == "True", path
                assert called not in ("yaml.unsafe_load", "yaml.full_load"), path
                assert called != "yaml.load" or "SafeLoader" in text, path
