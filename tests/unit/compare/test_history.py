"""A metric over revisions: grouping, order, and what changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from specbench.compare.history import History, history
from specbench.report.history import drawn, spark
from specbench.schema.result import METHOD
from specbench.store import ResultSet
from tests.unit.compare.factory import job_rows, metadata, result_set, slowed

A, B, C = ("a" * 40, "b" * 40, "c" * 40)


def run_of(
    folder: Path,
    name: str,
    commit: str | None,
    day: int = 0,
    slower: float = 1.0,
    dirty: bool = False,
    **about: Any,
) -> ResultSet:
    rows = [
        slowed(row, slower) if row["arm"] == METHOD else row
        for row in job_rows(started_unix=86400.0 * day, task=about.get("task", "tiny_math"))
    ]
    git = {"revision": commit, "dirty": dirty} if commit else None
    provenance = {"git": git, "command": ["specbench", "run", name]}
    folder.mkdir(parents=True, exist_ok=True)
    return result_set(folder, rows, metadata(provenance=provenance, **about), name)


def names(found: History, series: int = 0) -> list[str]:
    return [point.revision.name for point in found.series[series].points]


def test_commit_time_orders_before_the_start(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path, name, commit, day)
        for name, commit, day in (("one", A, 3), ("two", B, 2), ("three", C, 1))
    ]
    assert names(history(runs, "nfe")) == ["ccccccccc", "bbbbbbbbb", "aaaaaaaaa"]
    times = {A: 1.0, B: 2.0, C: 3.0}
    found = history(runs, "nfe", commit_times=times)
    assert names(found) == ["aaaaaaaaa", "bbbbbbbbb", "ccccccccc"]
    assert all(point.revision.committed for point in found.series[0].points)


def test_runs_of_a_clean_commit_are_pooled_and_copies_are_not(tmp_path: Path) -> None:
    runs = [run_of(tmp_path, "one", A, 1), run_of(tmp_path, "two", A, 2)]
    copy = run_of(tmp_path / "copy", "one", A, 1)
    point = history([*runs, copy], "speedup_e2e").series[0].points[0]
    assert point.files == 2 and point.samples == 12
    assert len(history([*runs, copy], "speedup_e2e").series[0].points) == 1


def test_uncommitted_changes_stand_apart(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path, "clean", A, 1),
        run_of(tmp_path, "first", A, 2, dirty=True),
        run_of(tmp_path, "second", A, 3, dirty=True),
    ]
    found = history(runs, "nfe", commit_times={A: 86400.0 * 2.5})
    assert names(found) == ["aaaaaaaaa", "aaaaaaaaa+", "aaaaaaaaa+"]
    assert [point.revision.unix / 86400 for point in found.series[0].points] == [2.5, 2.5, 3]


def test_without_a_commit_the_folder_names_the_revision(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path / "v2", "job", None, 2),
        run_of(tmp_path / "v1", "job", None, 1),
        run_of(tmp_path, "job", None, 3),
    ]
    assert names(history(runs, "nfe", root=tmp_path)) == ["v1", "v2", "unknown"]


def test_other_rulers_are_other_series(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path, "one", A, 1),
        run_of(tmp_path, "two", B, 2, device="another cpu"),
        run_of(tmp_path, "three", C, 3),
    ]
    found = history(runs, "speedup_e2e")
    assert [names(found, place) for place in range(len(found.series))] == [
        ["aaaaaaaaa", "ccccccccc"],
        ["bbbbbbbbb"],
    ]


def test_tasks_are_series_or_pooled(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path, f"{task}{day}", commit, day, task=task, task_digest=task)
        for day, commit in enumerate((A, B))
        for task in ("tiny_math", "tiny_code")
    ]
    assert [series.task for series in history(runs, "nfe").series] == ["tiny_math", "tiny_code"]
    pooled = history(runs, "nfe", by="method").series
    assert len(pooled) == 1 and pooled[0].points[0].samples == 24


def test_a_change_is_found_where_it_happened(tmp_path: Path) -> None:
    slower = (1.0, 1.0, 1.1, 1.1)
    runs = [
        run_of(tmp_path, f"r{day}", str(day) * 40, day, factor) for day, factor in enumerate(slower)
    ]
    points = history(runs, "speedup_e2e").series[0].points
    assert [point.verdict for point in points] == ["", "same", "worse", "same"]
    assert points[2].change is not None
    assert points[2].change.value == pytest.approx(1 / 1.1 - 1, abs=1e-3)
    assert points[0].interval is not None
    assert points[0].interval.low < points[0].value < points[0].interval.high
    rate = history(runs, "ttft_ms").series[0].points
    assert rate[2].verdict == "worse"


def test_methods_can_be_chosen(tmp_path: Path) -> None:
    runs = [run_of(tmp_path, "one", A, parameters={"draft_length": length}) for length in (4,)]
    assert history(runs, "nfe", methods=["token_sd"]).series[0].method == (
        "token_sd (draft_length=4)"
    )


def test_a_point_is_drawn_on_its_interval(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path, f"r{day}", str(day) * 40, day, factor)
        for day, factor in enumerate((1.0, 1.2, 1.1))
    ]
    series = history(runs, "speedup_e2e").series[0]
    assert spark(series)[0] == "█" and spark(series)[1] == "▁"
    line = drawn(series.points[0], 0.0, 2 * series.points[0].value, 21)
    assert line.index("●") == 10 and set(line) <= {" ", "─", "●"}
