"""Rows of a result file from what a clock and a decoder tell."""

from __future__ import annotations

import pytest
import torch

from specbench.clock import CpuClock, Split
from specbench.decoding.ledger import Generation, StopReason, join
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.decoding.request import Request, StopTokens
from specbench.law import Law
from specbench.rng import Streams
from specbench.runner.measure import Arm, Measured, Place, result_row
from specbench.store import read_parquet, write_parquet
from specbench.tasks.base import Sample
from tests.unit.compare.factory import metadata
from tests.unit.decoding.parts import count_of, table_pair


def row_of(*turns: list[Split], device_ns: int | None = None) -> dict[str, object]:
    measured = Measured(Arm("method", "ar", Autoregressive(), True))
    for splits in turns:
        counts = [count_of(0, 0, 1, 0, 1, 1) for _ in splits]
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
    counts, splits = [count_of(0, 0, 2, 0, 1, 1)], [Split(1, 2, 3)]
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


class Judged(Autoregressive):
    """Plain decoding that also asks the draft model, as a judge whose answer it ignores."""

    def rounds(self, session):
        model = session.models.draft
        judge = session.join("judge", model, model.new_cache(1, 40), session.request.law)
        for kept in super().rounds(session):
            if not session.done:
                judge.feed(torch.tensor([kept]))
                session.clock.lap("judge")
            yield kept


def test_a_model_in_another_role_is_recorded_under_its_name(tmp_path):
    request = Request((0, 1), 4, Law(), Streams(0), StopTokens(frozenset()))
    measured = Measured(Arm("method", "judged", Judged(), True))
    measured.prompts.append((0, 1))
    measured.generations.append(Judged().generate(table_pair(), request, CpuClock()))
    measured.texts.append("")
    sample = Sample(id="s", category="c", turns=("q",), reference=None)
    row = result_row(measured, sample, {"model": "m", "task": "t"}, Place(0, 0, 0))
    write_parquet(tmp_path / "job.parquet", [row], metadata())
    rounds = read_parquet(tmp_path / "job.parquet").table.column("rounds").to_pylist()[0]
    assert rounds[0]["further"] is None
    for entry in rounds[1:]:
        (judge,) = entry["further"]
        assert (judge["role"], judge["forwards"], judge["tokens"]) == ("judge", 1, 1)
        assert judge["ns"] > 0 and entry["draft_forwards"] == 0 and entry["target_forwards"] == 1


@pytest.mark.parametrize("sampling", [None, 0])
def test_without_a_device_sampling_is_unknown_and_not_zero(tmp_path, sampling):
    row = row_of([Split(1, 2, 3, sampling)])
    assert row["sampling_ns"] is sampling and row["device_ns"] is None
    write_parquet(tmp_path / "job.parquet", [row], metadata())
    table = read_parquet(tmp_path / "job.parquet").table
    assert table.column("sampling_ns").to_pylist() == [sampling]
    assert table.column("rounds").to_pylist()[0][0]["sampling_ns"] == sampling
