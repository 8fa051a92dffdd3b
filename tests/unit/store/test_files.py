"""Result files appear whole, read back equal, and say what is wrong with them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specbench.errors import ResultsError
from specbench.predict.tally import tallies_of
from specbench.schema import result as schema
from specbench.schema.result import METADATA_KEY, RESULT_SCHEMA
from specbench.store import list_results, read_many, read_parquet, write_parquet
from tests.unit.compare.factory import a_round, draft_rounds, failed_row, metadata, row


def write(path: Path, rows=None) -> Path:
    write_parquet(path, rows or [row("method", "a", 0, draft_rounds([2, 4]))], metadata())
    return path


def rewrite(path: Path, change) -> None:
    """Write a file again with its decoded metadata changed."""
    table = pq.read_table(path)
    values = json.loads(table.schema.metadata[METADATA_KEY])
    change(values)
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(values).encode()})
    pq.write_table(table, path)


class TestRoundTrip:
    def test_rows_metadata_and_rounds_come_back(self, tmp_path):
        rows = [row("baseline", "a", 0, draft_rounds([2, 4])), failed_row("method", "a", 0)]
        result = read_parquet(write(tmp_path / "job.parquet", rows))
        assert result.metadata == metadata()
        assert result.table.schema.equals(RESULT_SCHEMA)
        back = result.table.to_pylist()
        assert {key: back[0][key] for key in rows[0]} == rows[0]
        assert back[1]["error"] == "boom"
        assert back[1]["rounds"] is None
        assert "rounds" not in result.rows.columns
        assert result.rows["error"].isna().tolist() == [True, False]

    def test_rounds_know_their_measurement_and_each_turns_first(self, tmp_path):
        turns = [
            a_round(1),
            a_round(3, 4, 2),
            a_round(1, turn=1),
            a_round(2, 4, 1, turn=1),
        ]
        rows = [
            row("method", "a", 0, turns),
            failed_row("method", "b", 0),
            row("method", "c", 0, [a_round(1, turn=0), a_round(1)]),
        ]
        rounds = read_parquet(write(tmp_path / "job.parquet", rows)).rounds
        assert rounds["row"].tolist() == [0, 0, 0, 0, 2, 2]
        assert rounds["first"].tolist() == [True, False, True, False, True, False]
        assert rounds["emitted"].tolist() == [1, 3, 1, 2, 1, 1]

    def test_a_file_of_failures_only_has_no_rounds(self, tmp_path):
        result = read_parquet(write(tmp_path / "j.parquet", [failed_row("method", "a", 0)]))
        assert len(result.rounds) == 0
        assert "first" in result.rounds


class TestWriting:
    def test_times_are_stored_as_differences_and_all_else_by_dictionaries(self, tmp_path):
        path = write(tmp_path / "x.parquet")
        group = pq.ParquetFile(path).metadata.row_group(0)
        columns = [group.column(place) for place in range(group.num_columns)]
        times = {c.path_in_schema for c in columns if "DELTA_BINARY_PACKED" in c.encodings}
        assert times == {c.path_in_schema for c in columns if c.path_in_schema.endswith("_ns")}
        assert "rounds.list.element.target_ns" in times
        assert all(
            "RLE_DICTIONARY" in column.encodings
            for column in columns
            if column.path_in_schema not in times and column.physical_type != "BOOLEAN"
        )

    def test_nothing_but_the_file_is_left(self, tmp_path):
        write(tmp_path / "job.parquet")
        assert [path.name for path in tmp_path.iterdir()] == ["job.parquet"]

    def test_a_failure_leaves_the_earlier_file_and_no_other(self, tmp_path, monkeypatch):
        path = write(tmp_path / "job.parquet")
        before = path.read_bytes()

        def full(*arguments):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(ResultsError, match="journal keeps every measurement"):
            write(path, [row("method", "b", 0, draft_rounds([1]))])
        assert path.read_bytes() == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["job.parquet"]

    def test_a_column_that_does_not_exist_is_a_bug(self, tmp_path):
        with pytest.raises(AssertionError, match="no_such"):
            write(tmp_path / "job.parquet", [{**failed_row("method", "a", 0), "no_such": 1}])

    def test_a_required_column_without_a_value_is_a_bug(self, tmp_path):
        with pytest.raises(AssertionError, match="sample_id"):
            write(tmp_path / "job.parquet", [{**failed_row("method", "a", 0), "sample_id": None}])


class TestLaziness:
    def test_rows_leave_what_was_generated_in_the_file(self, tmp_path):
        result = read_parquet(write(tmp_path / "job.parquet"))
        assert not {"output_ids", "output_text", "rounds"} & set(result.rows.columns)
        assert result.outputs["output_ids"][0][0].tolist() == [1] * 9
        assert list(result.rows["verification_emitted"]) == [8]

    def test_only_the_columns_that_are_asked_for_are_read(self, tmp_path):
        result = read_parquet(write(tmp_path / "job.parquet"))
        table = result.read(["arm", "rounds"], fields=["accepted"])
        assert table.column_names == ["arm", "rounds"]
        assert table["rounds"].to_pylist() == [[{"accepted": n} for n in (0, 2, 4)]]

    def test_a_file_that_was_replaced_is_refused(self, tmp_path):
        path = write(tmp_path / "job.parquet")
        result = read_parquet(path)
        write(path, [row("method", "other", 0, draft_rounds([1]))])
        for column in ("rows", "rounds", "outputs", "table", "ledger"):
            with pytest.raises(ResultsError, match="changed while it was being read"):
                getattr(result, column)

    def test_a_file_that_was_removed_is_refused(self, tmp_path):
        path = write(tmp_path / "job.parquet")
        result = read_parquet(path)
        path.unlink()
        with pytest.raises(ResultsError, match=r"job\.parquet"):
            result.rows  # noqa: B018

    def test_columns_of_an_older_file_are_upgraded_one_by_one(self, tmp_path):
        path = write(tmp_path / "job.parquet")
        rewrite(path, lambda values: values.update(schema_version=1))
        old = pq.read_table(path).drop_columns(["offer_visits", "picture", "quality"])
        pq.write_table(old, path)
        table = read_parquet(path).read(["picture", "new_tokens"])
        assert table.to_pylist() == [{"picture": None, "new_tokens": 9}]


class TestBadFiles:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [(b"", "empty"), (b"question,answer\n1,2\n", "not a parquet file")],
    )
    def test_not_parquet(self, tmp_path, content, reason):
        path = tmp_path / "foreign.parquet"
        path.write_bytes(content)
        with pytest.raises(ResultsError) as refused:
            read_parquet(path)
        assert "foreign.parquet" in refused.value.what
        assert reason in refused.value.why
        assert refused.value.exit_code == 2

    def test_every_truncation_is_named(self, tmp_path):
        content = write(tmp_path / "job.parquet").read_bytes()
        cut = tmp_path / "cut.parquet"
        for size in (4, 11, 100, len(content) // 2, len(content) - 1):
            cut.write_bytes(content[:size])
            with pytest.raises(ResultsError, match=r"cut.parquet' is truncated"):
                read_parquet(cut)

    def test_damage_in_the_middle(self, tmp_path):
        content = bytearray(write(tmp_path / "job.parquet").read_bytes())
        content[4:-8] = os.urandom(len(content) - 12)
        (tmp_path / "bad.parquet").write_bytes(content)
        with pytest.raises(ResultsError, match="is damaged"):
            read_parquet(tmp_path / "bad.parquet")

    def test_somebody_elses_parquet(self, tmp_path):
        pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "theirs.parquet")
        with pytest.raises(ResultsError, match="specbench did not write"):
            read_parquet(tmp_path / "theirs.parquet")

    def test_a_newer_schema(self, tmp_path):
        path = write(tmp_path / "job.parquet")
        rewrite(path, lambda values: values.update(schema_version=99))
        with pytest.raises(ResultsError, match="newer"):
            read_parquet(path)

    def test_an_older_schema_is_upgraded(self, tmp_path, monkeypatch):
        path = write(tmp_path / "job.parquet")

        def age(values):
            values["schema_version"] = 0
            values["dtype_name"] = values.pop("dtype")

        rewrite(path, age)

        def step(table, values):
            return table, {**values, "dtype": values["dtype_name"]}

        monkeypatch.setitem(schema.UPGRADES, 0, step)
        assert read_parquet(path).metadata == metadata()

    def test_a_schema_too_old_to_upgrade(self, tmp_path):
        path = write(tmp_path / "job.parquet")
        rewrite(path, lambda values: values.update(schema_version=0))
        with pytest.raises(ResultsError, match="too old"):
            read_parquet(path)

    def test_metadata_that_lacks_a_key(self, tmp_path):
        path = write(tmp_path / "job.parquet")
        rewrite(path, lambda values: values.pop("law_hash"))
        with pytest.raises(ResultsError, match="damaged"):
            read_parquet(path)

    def test_a_column_is_missing(self, tmp_path):
        path = write(tmp_path / "job.parquet")
        pq.write_table(pq.read_table(path).drop_columns(["total_ns"]), path)
        with pytest.raises(ResultsError, match="total_ns"):
            read_parquet(path)

    def test_a_missing_file_and_a_folder(self, tmp_path):
        with pytest.raises(ResultsError, match="There is no file"):
            read_parquet(tmp_path / "none.parquet")
        with pytest.raises(ResultsError, match="a folder"):
            read_parquet(tmp_path)


class TestReadingMany:
    def test_files_folders_and_patterns_each_file_once(self, tmp_path):
        one, two = write(tmp_path / "one.parquet"), write(tmp_path / "two.parquet")
        (tmp_path / "README.md").write_text("not a result")
        results = read_many([one, tmp_path, str(tmp_path / "*.parquet")])
        assert [result.path for result in results] == [one, two]

    def test_a_name_with_brackets_is_a_name(self, tmp_path):
        path = write(tmp_path / "job[1].parquet")
        assert read_many([path])[0].path == path

    def test_sources_that_name_nothing(self, tmp_path):
        for source in ([tmp_path], [tmp_path / "*.parquet"], [tmp_path / "no.parquet"], []):
            with pytest.raises(ResultsError):
                read_many(source)


class TestListing:
    def test_newest_first_with_the_problems_of_bad_files(self, tmp_path):
        old, new = write(tmp_path / "old.parquet"), write(tmp_path / "new.parquet")
        bad = tmp_path / "bad.parquet"
        bad.write_text("nonsense")
        for age, path in enumerate((new, bad, old)):
            os.utime(path, (1000 - age, 1000 - age))
        listed = list_results(tmp_path)
        assert [summary.path for summary in listed] == [new, bad, old]
        assert listed[0].metadata == metadata()
        assert listed[0].rows == 1
        assert listed[1].metadata is None
        assert "not a parquet file" in listed[1].problem

    def test_no_folder_has_no_results(self, tmp_path):
        assert list_results(tmp_path / "none") == []
        shutil.rmtree(tmp_path)


class TestOlderVersions:
    def test_a_file_without_sampling_times_reads_as_it_did(self, tmp_path):
        rows = [row("method", "a", 0, draft_rounds([2, 4])), failed_row("method", "b", 0)]
        new = read_parquet(write(tmp_path / "new.parquet", rows))
        newer = ("sampling_ns", "decided", "further")
        fields = [field for field in schema.ROUND_TYPE if field.name not in newer]
        older = pa.list_(pa.struct(fields))
        table = pq.read_table(new.path).drop_columns(["sampling_ns"])
        place = table.column_names.index("rounds")
        table = table.set_column(place, "rounds", table.column("rounds").cast(older))
        pq.write_table(table, tmp_path / "old.parquet")
        rewrite(tmp_path / "old.parquet", lambda values: values.update(schema_version=4))
        old = read_parquet(tmp_path / "old.parquet")
        assert old.rows.equals(new.rows) and old.rounds.equals(new.rounds)
        assert old.table.equals(new.table)
        assert old.ledger.sums["verification_sampling_ns"][0] == 0.0
        assert tallies_of([old])["method"].mean("host_ns") == 1e6

    def test_sampling_times_are_summed_over_verification_rounds(self, tmp_path):
        rounds = [a_round(1, sampling_ns=9), a_round(1, sampling_ns=3), a_round(1, sampling_ns=4)]
        rows = [row("method", "a", 0, rounds), failed_row("method", "b", 0)]
        found = read_parquet(write(tmp_path / "job.parquet", rows)).rows
        assert found["sampling_ns"][0] == 16
        assert found["verification_sampling_ns"][0] == 7
        assert found["verification_sampling_ns"].isna().tolist() == [False, True]
