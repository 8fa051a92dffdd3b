"""The result file's metadata and the chain that brings old files up to date."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from specbench.schema import result
from specbench.schema.result import FileMetadata, MethodInfo, upgrade


def metadata(**changes: object) -> FileMetadata:
    values: dict[str, object] = {
        "job_id": "0123456789ab",
        "method": MethodInfo("pld", "Prompt lookup"),
        "baseline": MethodInfo("ar"),
        "model": "tiny_text",
        "task": "tiny",
        "task_version": 1,
        "task_digest": "d",
        "law": "greedy",
        "law_hash": "h",
        "scorer": {"exact_match": 1},
        "dtype": "float32",
        "device": "cpu",
        "engine": "lean",
        "temperature": 0.0,
        "config": {"sampling": {"seed": 0}},
    }
    return FileMetadata(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("baseline", [None, MethodInfo("ar")])
def test_metadata_survives_json(baseline: MethodInfo | None) -> None:
    about = metadata(baseline=baseline)
    text = about.to_json()
    assert "\n" not in text
    assert FileMetadata.from_dict(json.loads(text)) == about


def test_a_key_of_a_later_minor_addition_is_ignored() -> None:
    values = json.loads(metadata().to_json())
    assert FileMetadata.from_dict({**values, "added_later": 1}) == metadata()


@pytest.mark.parametrize(
    ("name", "target", "label"),
    [("hf", "ORG/NAME", "NAME"), ("hf", "/models/mine/", "mine"), ("lumina", "ORG/NAME", "lumina")],
)
def test_an_earlier_file_calls_any_checkpoint_by_its_own_name(name, target, label) -> None:
    about = metadata(model=name, config={"model": {"name": name, "target": target}})
    assert FileMetadata.from_dict(json.loads(about.to_json())).model == label
    newer = metadata(model=label, config=about.config)
    assert FileMetadata.from_dict(json.loads(newer.to_json())).model == label


def test_a_missing_key_is_an_error() -> None:
    values = json.loads(metadata().to_json())
    del values["method"]
    with pytest.raises(KeyError):
        FileMetadata.from_dict(values)


def test_column_names_are_unique_and_rounds_are_nested() -> None:
    names = result.RESULT_SCHEMA.names
    assert len(names) == len(set(names))
    assert result.RESULT_SCHEMA.field("rounds").type.value_type == result.ROUND_TYPE


def test_old_files_walk_up_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(table: pa.Table, values: dict[str, object]) -> tuple[pa.Table, dict[str, object]]:
        return table.rename_columns(["new"]), {**values, "renamed": True}

    monkeypatch.setattr(result, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(result, "UPGRADES", {1: rename, 2: lambda table, values: (table, values)})
    table, values = upgrade(pa.table({"old": [1]}), {"schema_version": 1})
    assert table.column_names == ["new"]
    assert values == {"schema_version": 3, "renamed": True}


def test_a_newer_file_has_no_step() -> None:
    with pytest.raises(KeyError):
        upgrade(pa.table({}), {"schema_version": result.SCHEMA_VERSION + 1})


def test_a_file_without_pictures_gets_empty_columns() -> None:
    new = ("picture", "quality")
    old = pa.table(
        {
            field.name: pa.nulls(2, field.type)
            for field in result.RESULT_SCHEMA
            if field.name not in new
        }
    )
    values = {**json.loads(metadata().to_json()), "schema_version": 2}
    for name in ("metrics", "corpus"):
        del values[name]
    table, values = upgrade(old, values)
    assert values["schema_version"] == result.SCHEMA_VERSION
    assert all(table.column(name).null_count == 2 for name in new)
    assert set(table.column_names) == set(result.RESULT_SCHEMA.names)
    assert FileMetadata.from_dict(values).corpus == {}


def test_a_file_without_a_source_was_measured_here() -> None:
    values = {**json.loads(metadata().to_json()), "schema_version": 3}
    del values["source"]
    table = pa.table({field.name: pa.nulls(1, field.type) for field in result.RESULT_SCHEMA})
    table, values = upgrade(table, values)
    assert values["schema_version"] == result.SCHEMA_VERSION
    assert FileMetadata.from_dict(values).source == {}


def without_sampling(field: pa.Field) -> pa.Field:
    """Return a column as it was before version 5."""
    if field.name != "rounds":
        return field
    newer = ("sampling_ns", "decided", "further")
    parts = [part for part in result.ROUND_TYPE if part.name not in newer]
    return field.with_type(pa.list_(pa.struct(parts)))


def test_a_file_without_sampling_times_has_unknown_ones() -> None:
    schema = pa.schema(
        [without_sampling(f) for f in result.RESULT_SCHEMA if f.name != "sampling_ns"]
    )
    rounds = [[{"turn": 0, "emitted": 1, "host_ns": 7}, {"turn": 0, "emitted": 2}], None, []]
    old = pa.Table.from_pylist([{"arm": "method", "rounds": each} for each in rounds], schema)
    values = {**json.loads(metadata().to_json()), "schema_version": 4}
    for table in (old, pa.concat_tables([old, old]).slice(1, 3)):
        new, values_now = upgrade(table, values)
        assert values_now["schema_version"] == result.SCHEMA_VERSION
        assert new.schema.field("rounds").type == result.RESULT_SCHEMA.field("rounds").type
        assert new.column("sampling_ns").null_count == 3
        before, after = table.column("rounds").to_pylist(), new.column("rounds").to_pylist()
        for one, other in zip(before, after, strict=True):
            assert (one is None) == (other is None)
            unknown = {"sampling_ns": None, "decided": None, "further": None}
            assert [{**entry, **unknown} for entry in one or []] == (other or [])


def test_a_file_without_roles_knows_target_and_draft_alone() -> None:
    parts = [part for part in result.ROUND_TYPE if part.name not in ("decided", "further")]
    old = pa.table({"rounds": pa.array([[{"target_forwards": 2}]], pa.list_(pa.struct(parts)))})
    new, _ = upgrade(old, {**json.loads(metadata().to_json()), "schema_version": 6})
    assert new.schema.field("rounds").type == result.RESULT_SCHEMA.field("rounds").type
    (entry,) = new.column("rounds").to_pylist()[0]
    assert (entry["target_forwards"], entry["decided"], entry["further"]) == (2, None, None)


def test_rounds_of_no_known_kind_are_left_to_the_reader() -> None:
    values = {**json.loads(metadata().to_json()), "schema_version": 4}
    for odd in (pa.array([1]), pa.array([[1]]), pa.array(["x"]), pa.nulls(1)):
        table, _ = upgrade(pa.table({"rounds": odd}), values)
        assert table.column("rounds").type == odd.type


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", 5),
        ("task_version", "1"),
        ("task_version", True),
        ("temperature", "warm"),
        ("config", []),
        ("law", "\ud800"),
        ("method", {"name": 3}),
        ("method", []),
        ("scorer", {"exact_match": "1"}),
        ("metrics", {"fid": 3}),
        ("corpus", {"method": {"fid": {"value": "low"}}}),
        ("corpus", {"method": 3}),
        ("config", {"sampling": {"seed": "x"}}),
        ("config", {"deep": "\ud800"}),
    ],
)
def test_metadata_of_the_wrong_shape_is_refused(key: str, value: object) -> None:
    values = json.loads(metadata().to_json())
    assert FileMetadata.from_dict(values) == metadata()
    with pytest.raises(TypeError):
        FileMetadata.from_dict({**values, key: value})
