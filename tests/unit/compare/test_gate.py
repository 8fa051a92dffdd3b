"""The gate: rules, what fails and what does not, on made-up results whose change is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specbench.compare import compare, derive
from specbench.compare.cells import Figure
from specbench.compare.change import change
from specbench.compare.figure import figure
from specbench.compare.floor import speedup_floor
from specbench.compare.gate import FAIL, PASS, UNSURE, Check, _judged, gate, judge
from specbench.compare.gate_rules import Rule, parse_rules
from specbench.compare.matching import subjects_of
from specbench.compare.metric import ARM
from specbench.compare.registry import PUBLISHED
from specbench.errors import NotComparable, UsageError
from specbench.schema.result import BASELINE, METHOD, MethodInfo
from specbench.stats import Interval
from specbench.store import ResultSet
from tests.unit.compare.factory import (
    AR,
    failed_row,
    job_rows,
    metadata,
    result_set,
    slowed,
)

PLD = MethodInfo("pld", "Prompt lookup", "exact")
LOSSY = MethodInfo("typical", "Typical acceptance", "lossy", knob="epsilon")


def rule(text: str) -> Rule:
    return parse_rules([text])[0]


def run_of(
    folder: Path, name: str, rows: list[dict[str, Any]] | None = None, **about: Any
) -> ResultSet:
    return result_set(folder, job_rows() if rows is None else rows, metadata(**about), name)


def method_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["arm"] == METHOD]


@pytest.mark.parametrize(
    ("text", "tolerance", "relative", "bad"),
    [
        ("nfe:1%", 0.01, True, 1),
        ("nfe:+1%", 0.01, True, 1),
        ("fid:+0.5", 0.5, False, 1),
        ("fid:.5", 0.5, False, 1),
        ("speedup_e2e:3%", 0.03, True, -1),
        ("speedup_e2e:-0.1", 0.1, False, -1),
        ("mean_new_tokens:2%", 0.02, True, 0),
        ("mean_new_tokens:+2%", 0.02, True, 1),
        ("mean_new_tokens:-2%", 0.02, True, -1),
        ("identical:0", 0.0, False, -1),
        ("fidelity:0", 0.0, False, -1),
        (" nfe: 1e-3 ", 0.001, False, 1),
    ],
)
def test_a_rule_is_read(text: str, tolerance: float, relative: bool, bad: int) -> None:
    found = rule(text)
    assert (found.tolerance, found.relative, found.bad) == (pytest.approx(tolerance), relative, bad)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nfee:1%", "'nfe'"),
        ("nfe:-1%", "nfe:+1%"),
        ("speedup_e2e:+3%", "speedup_e2e:-3%"),
        ("fid:-0.5", "fid:+0.5"),
        ("nfe", "METRIC:TOLERANCE"),
        ("nfe:", "METRIC:TOLERANCE"),
        (":1%", "METRIC:TOLERANCE"),
        ("nfe:one", "neither a percentage nor a number"),
        ("nfe:1%%", "neither a percentage nor a number"),
        ("nfe:nan", "neither a percentage nor a number"),
        ("nfe:1e999", "neither a percentage nor a number"),
        ("nfe:--1", "neither a percentage nor a number"),
        ("acceptance_histogram:1%", "mal"),
        ("pass_at_k:1%", "score"),
        ("overhead:5%", "overhead:0.05"),
    ],
)
def test_a_rule_that_cannot_be_held_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_rules([text])
    assert told in str(refused.value)


def test_two_rules_for_one_metric_are_refused() -> None:
    with pytest.raises(UsageError, match="Two rules"):
        parse_rules(["nfe:1%", "nfe:2%"])


def test_every_quantity_is_the_published_one(tmp_path: Path) -> None:
    rows = job_rows(14)
    rows[5] = failed_row(METHOD, rows[5]["sample_id"], rows[5]["repeat"])
    for place, row in enumerate(rows):
        row["fidelity"] = (
            "diverged" if place % 5 == 1 and row["arm"] == METHOD else row.get("fidelity")
        )
        row["score"] = float(place % 3 == 0) if row["error"] is None else None
        for entry in row.get("rounds") or () if place % 2 else ():
            entry["sampling_ns"] = 1_000_000 + place
        if row["arm"] == METHOD and row["error"] is None:
            row |= {"offer_visits": 10 + place, "offer_accepted": 7, "offer_optimal": 7.5}
    results = [run_of(tmp_path, "job", rows)]
    subject = subjects_of(results)[0]
    published = next(row for row in compare(results).rows if not row.is_baseline)
    measured = subject._pairs.method
    expected = {
        metric.id: published.quantities[metric.id]
        for metric in PUBLISHED
        if metric.place == ARM and metric.gated
    }
    counts = derive.fidelity_counts(measured)
    assert counts is not None and published.score_difference is not None
    assert published.speedup_e2e is not None and published.speedup_decode is not None
    times = derive.round_time(measured)
    assert times is not None and published.score is not None
    expected |= {
        "speedup_e2e": published.speedup_e2e.value,
        "speedup_decode": published.speedup_decode.value,
        "predicted_speedup": published.predicted_speedup,
        "overhead": published.overhead,
        "tokens_ratio": published.tokens_ratio,
        "score": published.score.value,
        "score_difference": published.score_difference.value,
        "fidelity": (counts.identical + counts.tie) / counts.total,
        "round_time": sum(part or 0.0 for part in times),
    }
    assert set(expected) == {metric.id for metric in PUBLISHED if metric.gated}
    for name, value in expected.items():
        found = figure(subject, name, subject.samples)
        assert found is not None and found.value == pytest.approx(value), name
        assert found.influence.sum() == pytest.approx(0, abs=1e-6 * abs(found.value) + 1e-9), name


def speedup_figure(generator: np.random.Generator, slower: float, drift: float = 0.0) -> Figure:
    """A speedup of 80 samples in three repeats, each time with 5% noise of its own."""
    length = 100 * np.exp(np.random.default_rng(1).normal(0, 0.5, (80, 1)))
    own = 2.0 * np.exp(np.random.default_rng(2).normal(0, 0.3, (80, 1)))
    passes = np.exp(generator.normal(0, drift, (1, 3)))
    baseline = length * np.exp(generator.normal(0, 0.05, (80, 3))) * passes
    method = length / own * slower * np.exp(generator.normal(0, 0.05, (80, 3))) * passes
    value = baseline.sum() / method.sum()
    influence = value * (baseline / baseline.sum() - method / method.sum())
    floor = speedup_floor(baseline, method, np.zeros(3, int), np.zeros((80, 3)), 200)
    own_ratio = (baseline / method).mean(axis=1)
    return Figure(value, value, influence, np.zeros(3, int), floor, True, False, own_ratio)


def verdicts(slower: float, text: str, gates: int, drift: float = 0.0) -> list[str]:
    found = []
    for seed in range(gates):
        generator = np.random.default_rng(seed)
        base, new = speedup_figure(generator, 1.0, drift), speedup_figure(generator, slower, drift)
        held = Check("m", rule(text), base.value, new.value, change(base, new, True), False)
        found.append(_judged([held])[0].verdict)
    return found


def test_a_true_slowdown_of_5_percent_under_5_percent_noise_fails() -> None:
    found = verdicts(1.05, "speedup_e2e:3%", 40)
    assert found.count(FAIL) >= 32
    assert verdicts(1.05, "speedup_e2e:3%", 40, drift=0.05).count(FAIL) >= 32


def test_nothing_changed_fails_no_more_often_than_stated() -> None:
    """Without any tolerance: at most 5% of the gates."""
    assert verdicts(1.0, "speedup_e2e:0%", 100, drift=0.02).count(FAIL) <= 5


@pytest.mark.slow
def test_nothing_changed_fails_no_more_often_than_stated_in_a_thousand_gates() -> None:
    assert verdicts(1.0, "speedup_e2e:0%", 1000, drift=0.02).count(FAIL) <= 50


def test_an_effect_within_the_tolerance_passes() -> None:
    assert verdicts(1.05, "speedup_e2e:10%", 20).count(PASS) >= 18
    assert FAIL not in verdicts(1.05, "speedup_e2e:10%", 20)


def test_a_tolerance_below_what_can_be_seen_is_inconclusive() -> None:
    generator = np.random.default_rng(0)
    base, new = speedup_figure(generator, 1.0), speedup_figure(generator, 1.0)
    moved = change(base, new, True)
    assert moved.detectable is not None and moved.detectable > 0.005
    verdict, reason = judge(Check("m", rule("speedup_e2e:0.5%"), 2, 2, moved, False, 1.0))
    assert verdict == UNSURE
    assert "could not have seen a change of 0.5%" in reason


def test_the_detectable_change_is_found_in_four_of_five_gates() -> None:
    generator = np.random.default_rng(0)
    sizes = [
        change(speedup_figure(generator, 1), speedup_figure(generator, 1), True).detectable
        for _ in range(20)
    ]
    size = float(np.median([size for size in sizes if size is not None]))
    found = verdicts(1 + size, "speedup_e2e:0%", 50)
    assert found.count(FAIL) / 50 >= 0.7


def counted(forwards: int) -> list[dict[str, Any]]:
    rows = job_rows()
    for row in method_rows(rows):
        row["target_forwards"] = forwards + row["repeat"] * 0
    return rows


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_two_percent_more_forwards_fail_at_one_percent(tmp_path: Path, temperature: float) -> None:
    law = {"temperature": temperature}
    base = run_of(tmp_path, "base", counted(50), **law)
    new = run_of(tmp_path, "new", counted(51), **law)
    found = gate([base], [new], ["nfe:1%"])
    assert found.failed and found.checks[0].verdict == FAIL
    assert found.checks[0].change.value == pytest.approx(0.02)
    assert not gate([base], [new], ["nfe:2.5%"]).failed
    assert not gate([new], [base], ["nfe:0%"]).failed


def one_sample_differs() -> list[dict[str, Any]]:
    rows = counted(50)
    for row in method_rows(rows):
        row["target_forwards"] = 60 if row["sample_id"] == "s003" else 50
    return rows


def test_an_exact_difference_needs_no_interval(tmp_path: Path) -> None:
    """One of twelve samples: its interval includes no change, and yet it is a fact."""
    base = run_of(tmp_path, "base", counted(50))
    new = run_of(tmp_path, "new", one_sample_differs())
    check = gate([base], [new], ["nfe:1%"]).checks[0]
    assert check.exact and check.verdict == FAIL and check.change.differing == 1
    assert check.change.interval is not None and not check.change.interval.excludes(0)
    assert "1 of 12 samples" in check.reason


@pytest.mark.parametrize("about", [{"temperature": 1.0}, {"method": LOSSY}], ids=["drawn", "lossy"])
def test_a_draw_or_a_loss_is_never_exact(tmp_path: Path, about: dict[str, Any]) -> None:
    base = run_of(tmp_path, "base", counted(50), **about)
    new = run_of(tmp_path, "new", one_sample_differs(), **about)
    check = gate([base], [new], ["nfe:1%"]).checks[0]
    assert not check.exact and check.verdict == UNSURE


def test_what_is_missing_in_new_fails_by_name(tmp_path: Path) -> None:
    base = [run_of(tmp_path, "base"), run_of(tmp_path, "pld", method=PLD, job_id="b")]
    rows = [row for row in job_rows() if row["sample_id"] != "s004"]
    place = next(i for i, row in enumerate(rows) if row["sample_id"] == "s007")
    rows = [
        failed_row(row["arm"], "s007", row["repeat"]) if row["sample_id"] == "s007" else row
        for row in rows
    ]
    assert place
    found = gate(base, [run_of(tmp_path, "new", rows)], ["nfe:1%"])
    assert found.failed
    assert any(text.startswith("pld: BASE has this method") for text in found.missing)
    assert any("tiny_math/s004" in text and "s007 (failed)" in text for text in found.missing)
    assert found.checks[0].change.samples == 10


def test_a_new_method_is_noted_and_not_gated(tmp_path: Path) -> None:
    base = [run_of(tmp_path, "base")]
    found = gate(base, [*base, run_of(tmp_path, "pld", method=PLD)], ["nfe:1%"])
    assert not found.failed
    assert any(text.startswith("pld: new") for text in found.notes)
    assert {check.label for check in found.checks} == {"token_sd"}


def test_methods_match_by_parameters(tmp_path: Path) -> None:
    def sides(folder: str) -> list[ResultSet]:
        (tmp_path / folder).mkdir()
        return [
            run_of(tmp_path / folder, f"d{k}", counted(10 * k), parameters={"draft_length": k})
            for k in (4, 6)
        ]

    found = gate(sides("base"), list(reversed(sides("new"))), ["nfe:1%"])
    assert [check.base for check in found.checks] == [40, 60]
    assert [check.new for check in found.checks] == [40, 60]


def test_a_changed_composition_is_the_same_method(tmp_path: Path) -> None:
    base, new = run_of(tmp_path, "base"), run_of(tmp_path, "new")
    new.metadata.config["method"]["decoder"]["_target_"] = "another.Loop"  # type: ignore[index]
    found = gate([base], [new], ["nfe:1%"])
    assert not found.failed and any("parts differ" in note for note in found.notes)


def test_holm_spares_one_of_many() -> None:
    moved = change(
        *(speedup_figure(np.random.default_rng(seed), 1.0) for seed in (0, 1)), relative=True
    )
    moved = moved._replace(value=-0.1, interval=Interval(-0.19, -0.01), p_value=0.03, floor=0.01)
    one = Check("m", rule("speedup_e2e:3%"), 2.0, 1.8, moved, False)
    assert [check.verdict for check in _judged([one])] == [FAIL]
    assert [check.verdict for check in _judged([one, one])] == [UNSURE, UNSURE]
    sure = replace(one, change=moved._replace(p_value=0.001))
    assert [check.verdict for check in _judged([one, sure])] == [FAIL, FAIL]


def test_a_change_below_the_floor_does_not_fail() -> None:
    moved = change(
        *(speedup_figure(np.random.default_rng(seed), 1.0) for seed in (0, 1)), relative=True
    )
    moved = moved._replace(value=-0.1, interval=Interval(-0.15, -0.05), p_value=0.0, floor=0.12)
    check = Check("m", rule("speedup_e2e:3%"), 2.0, 1.8, moved, False)
    assert _judged([check])[0].verdict == UNSURE
    quiet = replace(check, change=moved._replace(floor=0.02))
    assert _judged([quiet])[0].verdict == FAIL
    unknown = _judged([replace(check, change=moved._replace(floor=None))])[0]
    assert unknown.verdict == UNSURE and "timing.repeats" in unknown.reason


def test_the_floor_is_the_noisier_side_s_and_knows_no_shared_drift() -> None:
    still = speedup_figure(np.random.default_rng(0), 1.0)
    drifting = speedup_figure(np.random.default_rng(0), 1.0, drift=0.2)
    assert still.floor is not None and drifting.floor is not None
    assert drifting.floor < 1.2 * still.floor
    moved = change(still._replace(floor=1.02), still._replace(floor=1.05), True)
    assert moved.floor == pytest.approx(0.05)
    assert moved.detectable is not None and moved.detectable > 0.05
    assert change(still._replace(floor=None), still, True).floor is None


def test_machine_drift_cancels_from_a_speedup(tmp_path: Path) -> None:
    base = run_of(tmp_path, "base")
    slower = [slowed(row, 1.3) for row in job_rows()]
    found = gate([base], [run_of(tmp_path, "new", slower)], ["speedup_e2e:1%"])
    assert found.checks[0].change.value == pytest.approx(0, abs=1e-6)
    assert not found.failed
    raw = gate([base], [run_of(tmp_path, "raw", slower)], ["tokens_per_second:1%"])
    assert raw.failed


def test_other_machines_are_refused_and_their_times_even_where_allowed(tmp_path: Path) -> None:
    base, new = run_of(tmp_path, "base"), run_of(tmp_path, "new", device="another cpu")
    with pytest.raises(NotComparable, match="not comparable"):
        gate([base], [new], ["nfe:1%"])
    allowed = gate([base], [new], ["nfe:1%", "speedup_e2e:50%"], ["device"])
    assert not allowed.failed and allowed.banners and not allowed.checks[0].exact
    with pytest.raises(NotComparable, match="different machines"):
        gate([base], [new], ["ttft_ms:1%"], ["device"])


def test_tokens_that_differ_are_counted(tmp_path: Path) -> None:
    rows = job_rows()
    for row in method_rows(rows):
        if row["sample_id"] == "s002":
            row["output_ids"] = [[7] * len(row["output_ids"][0])]
    base, new = run_of(tmp_path, "base"), run_of(tmp_path, "new", rows)
    check = gate([base], [new], ["identical:0"]).checks[0]
    assert check.verdict == FAIL and check.new == pytest.approx(11 / 12)
    assert not gate([base], [new], ["identical:10%"]).failed
    assert not gate([base], [base], ["identical:0"]).failed


def test_a_rule_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    base = run_of(tmp_path, "base")
    with pytest.raises(UsageError, match="holds nothing"):
        gate([base], [base], ["node_acceptance:1%"])
    with pytest.raises(UsageError, match="holds nothing"):
        gate([base], [base], ["fid:+0.5"])


def test_equal_scores_may_hide_what_other_samples_show(tmp_path: Path) -> None:
    base, new = run_of(tmp_path, "base"), run_of(tmp_path, "new")
    check = gate([base], [new], ["score:0.1"]).checks[0]
    assert check.verdict == UNSURE and check.change.value == 0
    assert gate([base], [new], ["score:0.5"]).checks[0].verdict == PASS


FID = {"title": "FID", "unit": "", "better": "lower", "kind": "corpus", "version": 1}


def picture_run(folder: Path, name: str, fid: float, **values: Any) -> ResultSet:
    about = {"value": fid, "n": 300, "floor": 10.0, **values}
    return run_of(folder, name, metrics={"fid": FID}, corpus={METHOD: {"fid": about}})


def test_one_set_of_pictures_is_judged_by_its_floor(tmp_path: Path) -> None:
    base = picture_run(tmp_path, "base", 50.0)

    def verdict(fid: float, text: str = "fid:+0.5", **values: Any) -> str:
        new = picture_run(tmp_path, f"new{fid}", fid, **values)
        return gate([base], [new], [text]).checks[0].verdict

    assert verdict(50.3) == PASS
    assert verdict(55.0) == UNSURE
    assert verdict(65.0) == FAIL
    assert verdict(65.0, "fid:50%") == PASS
    assert verdict(35.0) == PASS


def test_a_metric_that_new_lacks_fails_by_name(tmp_path: Path) -> None:
    base, new = picture_run(tmp_path, "base", 50.0), run_of(tmp_path, "new")
    found = gate([base], [new], ["fid:+0.5"])
    assert found.failed and "fid" in found.missing[0]


def test_a_known_error_gives_an_interval(tmp_path: Path) -> None:
    base = picture_run(tmp_path, "base", 50.0, error=1.0, floor=None)
    near = picture_run(tmp_path, "near", 52.0, error=1.0, floor=None)
    far = picture_run(tmp_path, "far", 60.0, error=1.0, floor=None)
    assert gate([base], [near], ["fid:+0.5"]).checks[0].verdict == UNSURE
    assert gate([base], [far], ["fid:+0.5"]).checks[0].verdict == FAIL


def test_resident_memory_of_one_process_has_no_interval(tmp_path: Path) -> None:
    def rows(factor: float, device: bool) -> list[dict[str, Any]]:
        made = job_rows()
        for place, row in enumerate(made):
            row["peak_rss_bytes"] = int(5e8 * factor)
            row["process"] = row["repeat"]
            if device:
                row["peak_device_bytes"] = int((1e9 + 1e6 * (place % 7)) * factor)
        return made

    one = run_of(tmp_path, "one"), run_of(tmp_path, "two")
    check = gate([one[0]], [one[1]], ["peak_memory_bytes:5%"]).checks[0]
    assert check.verdict == UNSURE and "timing.processes" in check.reason
    for device in (True, False):
        base = run_of(tmp_path, f"b{device}", rows(1.0, device))
        new = run_of(tmp_path, f"n{device}", rows(1.1, device))
        assert gate([base], [new], ["peak_memory_bytes:5%"]).checks[0].verdict == FAIL
        assert gate([base], [new], ["peak_memory_bytes:20%"]).checks[0].verdict == PASS


def test_a_method_without_a_baseline_has_counts_and_no_speedup(tmp_path: Path) -> None:
    rows = [{**row, "arm": METHOD, "method": "ar"} for row in job_rows() if row["arm"] == BASELINE]
    both = [run_of(tmp_path, name, rows, method=AR, baseline=None) for name in ("base", "new")]
    assert not gate([both[0]], [both[1]], ["nfe:1%"]).failed
    with pytest.raises(UsageError, match="holds nothing"):
        gate([both[0]], [both[1]], ["speedup_e2e:1%"])


def test_pictures_are_averaged_by_prompt_and_category(tmp_path: Path) -> None:
    rows = job_rows(9, 1)
    for place, row in enumerate(rows):
        prompt, further = divmod(place // 2, 3)
        row["sample_id"] = f"p{prompt}" + (f"#{further}" if further else "")
        row["category"] = "one" if prompt == 0 else "two"
        row["quality"] = {"rules": float(place % 4 == 1)}
    metric = {"title": "Rules", "unit": "", "better": "higher", "average": "categories"}
    result = run_of(tmp_path, "job", rows, metrics={"rules": metric})
    subject = subjects_of([result])[0]
    found = figure(subject, "rules", subject.samples)
    published = next(row for row in compare([result]).rows if not row.is_baseline)
    assert found is not None
    assert found.value == pytest.approx(published.quality["rules"].value.value)
    assert len(found.influence) == 3


def test_sides_must_hold_together(tmp_path: Path) -> None:
    one, other = run_of(tmp_path, "one"), run_of(tmp_path, "other", dtype="bfloat16")
    with pytest.raises(NotComparable):
        gate([one, other], [one], ["nfe:1%"], ["dtype"])
