"""A measurement that was held up inside of its timed region is named, and only that one."""

from __future__ import annotations

import pytest

from specbench.compare import compare
from tests.unit.compare.factory import job_rows, metadata, result_set, slowed


def warnings_of(folder, rows):
    found = compare([result_set(folder, rows, metadata())]).warnings
    return [line for line in found if "held up while timed" in line]


def test_a_stopped_measurement_is_named(tmp_path):
    rows = job_rows()
    assert not warnings_of(tmp_path, rows)
    place = next(
        i
        for i, row in enumerate(rows)
        if (row["sample_id"], row["repeat"], row["arm"]) == ("s004", 1, "method")
    )
    rows[place] = slowed(rows[place], 12)
    (line,) = warnings_of(tmp_path, rows)
    assert "token_sd" in line and "s004, method, repeat 1 (1" in line
    assert line.count("repeat 1") == 1 and "more." not in line


def test_many_are_counted_and_the_slowest_named(tmp_path):
    rows = job_rows()
    for place, row in enumerate(rows):
        if row["repeat"] == 0 and row["arm"] == "baseline" and row["sample_id"] < "s005":
            rows[place] = slowed(row, 5 + int(row["sample_id"][-1]))
    (line,) = warnings_of(tmp_path, rows)
    assert "s004, baseline, repeat 0" in line and "s003" in line and "s002" in line
    assert "and 2 more" in line and "s001" not in line


@pytest.mark.parametrize("repeats", [1, 2])
def test_few_repeats_cannot_tell(tmp_path, repeats):
    rows = job_rows(repeats=repeats)
    rows[0] = slowed(rows[0], 50)
    assert not warnings_of(tmp_path, rows)
