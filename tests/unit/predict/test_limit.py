"""What files record of their models, and how close a run came to the bandwidth limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from specbench.predict.limit import shares_of
from specbench.predict.profile import profiles_of
from specbench.predict.resolve import pair_of
from specbench.schema.hardware import Hardware
from specbench.schema.result import MethodInfo
from specbench.schema.shape import Shape
from specbench.store import ResultSet
from tests.unit.compare.factory import (
    a_round,
    draft_rounds,
    metadata,
    plain_rounds,
    result_set,
    row,
)
from tests.unit.predict.worlds import SMALL, device

TINY = Shape("tiny", "Tiny", 4, 1, 1, 1, 4, 4, 10, tied=True)
# SMALL multiplies 360 weights, TINY 4 * 16 + 3 * 16 + 40 = 152


def about(model: Shape, itemsize: int = 2, **changes: Any) -> dict[str, Any]:
    values = {
        "parameters": model.parameters,
        "weight_bytes": model.parameters * itemsize,
        "cache_bytes_per_token": model.cache_values * itemsize,
        "shape": model.record(),
    }
    return {**values, **changes}


def job(folder: Path, name: str = "job", models: Any = None, **changes: Any) -> ResultSet:
    """Ten plain tokens of 5 ms each, and three rounds of 6 ms with 4 draft forwards each."""
    rows = [row("baseline", "s", 0, plain_rounds(10)), row("method", "s", 0, draft_rounds([4, 2]))]
    if models is None:
        models = {"target": about(SMALL), "draft": about(TINY)}
    config = {
        "method": {"name": "token_sd", "needs": ["draft"], "parameters": {}, "decoder": {}},
        "model": {"target": "somebody/target", "draft": "somebody/draft"},
    }
    values = {"config": config, "provenance": {"models": models}, **changes}
    return result_set(folder, rows, metadata(**values), name)


def test_a_recorded_pair_needs_no_entry(tmp_path: Path) -> None:
    (profile,) = profiles_of([job(tmp_path)]).profiles
    target, draft = pair_of([profile], None, None)
    assert draft is not None
    assert (target.name, draft.name) == ("somebody/target", "somebody/draft")
    assert target.record() == SMALL.record()
    assert draft.record() == TINY.record()
    assert pair_of([profile], "8b", "1b")[0].name == "llama_8b"


def test_a_file_that_says_more_speaks_for_those_that_say_less(tmp_path: Path) -> None:
    other = {"method": {"name": "svip", "needs": ["draft"], "parameters": {}, "decoder": {}}}
    other["model"] = {"target": "somebody/target", "draft": "somebody/draft"}
    files = [
        job(tmp_path, "a"),
        job(tmp_path, "b", {}),
        job(tmp_path, "c", {}, method=MethodInfo("svip"), config=other),
    ]
    assert len(profiles_of(files).profiles) == 2
    for order in (files, files[::-1]):
        assert pair_of(profiles_of(order).profiles, None, None)[0].record() == SMALL.record()


@pytest.mark.parametrize(
    "models",
    [
        [],
        {"target": "x"},
        {"target": about(SMALL, shape=None)},
        {"target": about(SMALL, shape={"layers": 1})},
        {"target": about(SMALL, shape={**SMALL.record(), "layers": -1})},
        {"target": about(SMALL, shape={**SMALL.record(), "more": 1})},
        {"target": about(SMALL, parameters=0)},
        {"target": about(SMALL, weight_bytes="many")},
    ],
)
def test_what_makes_no_sense_counts_as_not_told(tmp_path: Path, models: Any) -> None:
    (profile,) = profiles_of([job(tmp_path, models=models)]).profiles
    assert profile.models == {}


def test_the_share_is_bytes_over_bandwidth_over_time(tmp_path: Path) -> None:
    profiles = profiles_of([job(tmp_path)]).profiles
    hardware = device(bandwidth=1e6)
    (share,) = shares_of(profiles, hardware)
    # plain: 10 forwards of 720 bytes in 50 ms at 1 MB/s
    assert share.baseline == pytest.approx(10 * 720 / 1e6 / 50e-3)
    # the method: prefill of 5 ms and two rounds of 6 ms; 3 target and 8 draft forwards
    assert share.method == pytest.approx((3 * 720 + 8 * 304) / 1e6 / 17e-3)
    assert share.hardware == "Device" and share.reason == ""


def test_weights_of_another_format_are_read_in_it(tmp_path: Path) -> None:
    models = {"target": about(SMALL, itemsize=1)}
    (share,) = shares_of(profiles_of([job(tmp_path, models=models)]).profiles, device(1e6))
    assert share.baseline == pytest.approx(10 * 360 / 1e6 / 50e-3)


def test_the_device_is_found_by_its_driver_name(tmp_path: Path) -> None:
    files = [
        job(tmp_path, "a", device="NVIDIA H200"),
        job(tmp_path, "b", device="NVIDIA H200 MIG 1g.18gb"),
    ]
    names = [shares_of(profiles_of([file]).profiles)[0] for file in files]
    assert names[0].hardware.startswith("NVIDIA H200 SXM")
    assert names[1].hardware == "" and "no hardware entry" in names[1].reason


def test_no_share_without_a_shape_or_times(tmp_path: Path) -> None:
    def reason(file: ResultSet) -> str:
        (share,) = shares_of(profiles_of([file]).profiles, device())
        assert share.method is None
        return share.reason

    assert "shape of 'somebody/target'" in reason(job(tmp_path, "a", {}))
    rows = [row("method", "s", 0, [a_round(1), a_round(3, 4, 2)], total_ns=None)]
    config = {"method": {"name": "m", "needs": []}, "model": {"target": "8b"}}
    silent = result_set(tmp_path, rows, metadata(baseline=None, config=config), "b")
    assert "do not record" in reason(silent)


def test_every_driver_name_belongs_to_one_entry() -> None:
    from specbench.predict.resolve import hardware_entries

    entries: list[Hardware] = hardware_entries()
    names = [name for entry in entries for name in entry.devices]
    assert len(names) == len(set(names)) >= 7


def test_times_of_another_machine_do_not_mix(tmp_path: Path) -> None:
    """Acceptance is pooled over machines; times are those of the first file's."""
    here, there = job(tmp_path, "a"), job(tmp_path, "b", device="another")
    (alone,) = profiles_of([here]).profiles
    (both,) = profiles_of([here, there]).profiles
    assert both.rounds == 2 * alone.rounds
    assert both.cost == alone.cost and both.totals == alone.totals
    assert "another machine" in both.notes[0] and not alone.notes
