"""What a run knows of the machine before it measures."""

from __future__ import annotations

import pytest

from specbench import store
from specbench.runner import busy, run_job
from specbench.runner.busy import Neighbours, Rest, Watch
from tests.unit.runner import toy

QUIET = Rest(others=0.1, stolen=0.0, load=0.3, governor="performance", cpus=4)


def test_a_machine_at_rest_is_not_mentioned():
    assert QUIET.advice(threads=4) == ""
    assert Rest(None, None, None, "", 4).advice(threads=4) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"others": 1.5}, "keep 1.5 of 4 CPUs busy"),
        ({"stolen": 0.1}, "takes 10% of this virtual machine"),
        ({"governor": "powersave"}, "governor 'powersave'"),
    ],
)
def test_each_disturbance_is_one_line_with_advice(change, words):
    advice = QUIET._replace(**change).advice(threads=4)
    assert words in advice and "end what runs beside this" in advice and "\n" not in advice


def test_others_are_no_matter_where_processors_are_left():
    assert QUIET._replace(others=1.5).advice(threads=2) == ""


def test_our_own_work_is_not_that_of_others(monkeypatch):
    counted = iter([(100.0, 5.0), (103.0, 5.4)])
    own = iter([10.0, 11.0])
    now = iter([0.0, 2.0])
    monkeypatch.setattr(busy, "_counters", lambda: next(counted))
    monkeypatch.setattr(busy, "_own_seconds", lambda: next(own))
    monkeypatch.setattr(busy.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(busy.os, "cpu_count", lambda: 4)
    rest = Watch().rest()
    assert rest.others == pytest.approx(1.0) and rest.stolen == pytest.approx(0.05)


def test_a_moment_is_too_short_to_know():
    assert Watch().rest().others is None


def test_a_result_remembers_it(tmp_path):
    result = run_job(toy.config(tmp_path))
    (note,) = store.read_parquet(result.path).metadata.provenance["processes"]
    assert note["process"] == 0 and note["started_unix"] > 0
    before = {"others_busy_cpus", "stolen_share", "load_average", "governor"}
    assert set(note["machine"]) == {*before, "during"}
    assert set(note["machine"]["during"]) == {*before, "others_busy_cpus_most", "warnings"}


def test_what_runs_beside_the_measurements_is_seen_and_not_what_ran_before(tmp_path, monkeypatch):
    """It was looked at while the models were loaded, and never again."""
    rests = iter([QUIET, *[QUIET._replace(others=1.9, cpus=2)] * 90])
    monkeypatch.setattr(Watch, "rest", lambda self: next(rests))
    monkeypatch.setattr(busy, "_WINDOW", 0.0)
    result = run_job(toy.config(tmp_path))
    (note,) = store.read_parquet(result.path).metadata.provenance["processes"]
    assert note["machine"]["others_busy_cpus"] == 0.1
    during = note["machine"]["during"]
    assert during["others_busy_cpus"] == during["others_busy_cpus_most"] == 1.9
    assert during["warnings"] == ["other processes keep 1.9 of 2 CPUs busy"]


def test_the_busiest_window_is_kept(monkeypatch):
    others = iter([0.2, 1.5, 0.1, 0.4])
    monkeypatch.setattr(Watch, "rest", lambda self: QUIET._replace(others=next(others)))
    neighbours = Neighbours(threads=1)
    assert not neighbours.look()  # the last look is a moment ago
    monkeypatch.setattr(busy, "_WINDOW", 0.0)
    assert all(neighbours.look() for _ in range(3))
    state = neighbours.state()
    assert state["others_busy_cpus_most"] == 1.5 and state["others_busy_cpus"] == 0.4
    assert state["warnings"] == []
