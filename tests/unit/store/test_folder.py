"""Names that are safe and stable, and folders that cannot be written fail at once."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from specbench.errors import ResultsError
from specbench.store import (
    check_writable,
    existing_results,
    job_id,
    next_free_path,
    result_stem,
)


class TestJobId:
    def test_twelve_hexadecimal_digits_that_stay(self):
        """The value is frozen: a change would orphan every journal."""
        assert job_id({"a": 1, "b": [1.5, None, "x"]}) == "51824779aebd"

    def test_order_and_sequence_kind_do_not_matter(self):
        assert job_id({"a": (1, 2), "b": {"c": 1, "d": 2}}) == job_id(
            {"b": {"d": 2, "c": 1}, "a": [1, 2]}
        )

    def test_every_value_matters(self):
        assert len({job_id({"t": value}) for value in (0, 0.5, None, "0", True, [])}) == 6


class TestNames:
    def test_nothing_unsafe_is_left(self):
        stem = result_stem("token_sd", "meta-llama/Llama-3.1-8B", "../x y", "abc")
        assert stem == "token_sd__meta-llama-Llama-3.1-8B__x-y__abc"

    def test_long_and_empty_names(self):
        stem = result_stem("m" * 500, "", "é", "abc")
        assert len(stem) < 200
        assert "unnamed" in stem

    def test_a_new_file_never_takes_an_old_name(self, tmp_path):
        names = []
        for _ in range(3):
            path = next_free_path(tmp_path, "job")
            path.write_text("")
            names.append(path.name)
        assert names == ["job.parquet", "job-2.parquet", "job-3.parquet"]
        (tmp_path / "job-x.parquet").write_text("")
        (tmp_path / "job2.parquet").write_text("")
        assert [path.name for path in existing_results(tmp_path, "job")] == names


class TestWritable:
    def test_the_folder_is_made_and_left_empty(self, tmp_path):
        check_writable(tmp_path / "a" / "b")
        assert list((tmp_path / "a" / "b").iterdir()) == []

    def test_a_file_in_the_way(self, tmp_path):
        (tmp_path / "results").write_text("")
        with pytest.raises(ResultsError, match="a file stands") as refused:
            check_writable(tmp_path / "results" / "deep")
        assert "results_dir=PATH" in refused.value.fix

    @pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the superuser")
    def test_a_read_only_folder(self, tmp_path):
        tmp_path.chmod(0o500)
        with pytest.raises(ResultsError, match="read-only"):
            check_writable(tmp_path)

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a proc file system")
    def test_a_read_only_file_system(self):
        with pytest.raises(ResultsError):
            check_writable(Path("/proc/results"))

    def test_a_full_disk(self, tmp_path, monkeypatch):
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 100, 2**20))
        with pytest.raises(ResultsError, match=r"1.0 MiB are free"):
            check_writable(tmp_path)
