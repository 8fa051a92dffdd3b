"""Rows of a result file from what a clock and a decoder tell."""

from __future__ import annotations

import pytest

from specbench.clock import Split
from specbench.decoding.ledger import Count, Generation, StopReason, join
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.runner.measure import Arm, Measured, Place, result_row
from specbench.store import read_parquet, write_parquet
from specbench.tasks.base import Sample
from tests.unit.compare.factory import metadata


def row_of(*turns: list[Split], device_ns: int | None = None) -> dict[str, object]:
    measured = Measured(Arm("method", "ar", Autoregressive(), True))
    for splits in turns:
        counts = [Count(0, 0, 1, 0, 1, 1) for _ in splits]
        measured.prompts.append((1, 2))
        measured.generations.append(
            Generation(
                (3,) * len(splits), join(counts, splits), StopReason.LENGTH, 90, 30, device_ns
            )
        )
        measured.texts.append("")
    sample = Sample(id="s", category="c", turns=("q",) * len(turns), reference=None)
    return result_row(measured, sample, {"model": "m", "task": "t"}, Place(0, 0, 0))


def test_a_devices_sampling_is_summed_over_rounds_and_turns():
    row = row_of([Split(1, 2, 3, 4), Split(1, 2, 3, 5)], [Split(1, 2, 3, 6)], device_ns=80)
    sums = [row[f"{part}_ns"] for part in ("draft", "target", "host", "sampling", "device")]
    assert sums == [3, 6, 9, 15, 160]
    assert [each["sampling_ns"] for each in row["rounds"]] == [4, 5, 6]


def test_rows_hold_published_ids():
    measured = Measured(Arm("method", "ar", Autoregressive(), True))
    counts, splits = [Count(0, 0, 2, 0, 1, 1)], [Split(1, 2, 3)]
    measured.prompts.append((1, 2))
    measured.generations.append(
        Generation((0, 3), join(counts, splits), StopReason.LENGTH, 9, 3, None)
    )
    measured.texts.append("")
    sample = Sample(id="s", category="c", turns=("q",), reference=None)
    names, ids = {"model": "m", "task": "t"}, [7, 5, 4, 9]
    place = Place(0, 0, 0)
    row = result_row(measured, sample, names, place, lambda tokens: [ids[t] for t in tokens])
    assert row["output_ids"] == [[7, 9]]


@pytest.mark.parametrize("sampling", [None, 0])
def test_without_a_device_sampling_is_unknown_and_not_zero(tmp_path, sampling):
    row = row_of([Split(1, 2, 3, sampling)])
    assert row["sampling_ns"] is sampling and row["device_ns"] is None
    write_parquet(tmp_path / "job.parquet", [row], metadata())
    table = read_parquet(tmp_path / "job.parquet").table
    assert table.column("sampling_ns").to_pylist() == [sampling]
    assert table.column("rounds").to_pylist()[0][0]["sampling_ns"] == sampling
