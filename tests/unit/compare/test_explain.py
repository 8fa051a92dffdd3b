"""Every published definition, worked out by hand from the same few rounds."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from specbench.compare import compare
from specbench.compare.explain import TOPICS, explain
from specbench.compare.registry import METRICS
from specbench.errors import NotComparable, ResultsError, UsageError
from specbench.report import explain as report
from specbench.schema.result import BASELINE, METHOD
from tests.unit.compare.factory import (
    a_round,
    job_rows,
    metadata,
    plain_rounds,
    result_set,
    row,
    slowed,
)
from tests.unit.report.test_report import check_golden


@pytest.fixture
def result(tmp_path):
    """Two requests of plain decoding and of a method that drafts in some rounds only.

    Request a, one turn: prefill, accepted 4 of 4, nothing drafted, accepted 1 of 4 of which the
    end of text cut the bonus. Request b, two turns: prefill, accepted 2 of 4; prefill, nothing
    drafted. 12 tokens in 5 verification rounds and 3 turns; 3 rounds drafted, 7 accepted.
    """
    a = [a_round(1), a_round(5, 4, 4), a_round(1), a_round(1, 4, 1)]
    b = [a_round(1), a_round(3, 4, 2), a_round(1, turn=1), a_round(1, turn=1)]
    rows = [
        row(BASELINE, "a", 0, plain_rounds(8)),
        slowed(row(METHOD, "a", 0, a), 0.5),
        row(BASELINE, "b", 0, plain_rounds(6)),
        slowed(row(METHOD, "b", 0, b), 2.0),
    ]
    return result_set(tmp_path, rows, metadata())


def values(result, topic):
    explanation = explain([result], topic)
    (found,) = explanation.rows
    return dict(zip((d.name for d in explanation.definitions), found.values, strict=True))


def test_acceptance_lengths(result):
    """Tokens 8 and 6, verification rounds 3 and 2, kept in them 7 and 4, turns 1 and 2."""
    rate, length = 7 / (4 + 2 + 3), 12 / 5
    assert values(result, "mal") == {
        "mal": pytest.approx(11 / 5),
        "mal_request": pytest.approx((7 / 3 + 4 / 2) / 2),
        "completion_over_verifications": pytest.approx(14 / 5),
        "tokens_over_rounds": pytest.approx(14 / 8),
        "step_compression": pytest.approx(14 / 8),
        "tokens_over_last_index": pytest.approx(14 / 2),
        "one_plus_accepted_per_draft": pytest.approx(1 + 7 / 3),
        "emitted_per_drafting_round": pytest.approx((5 + 1 + 3) / 3),
        "one_plus_accepted_per_round": pytest.approx(1 + 7 / 5),
        "accepted_per_round": pytest.approx(7 / 5),
        "expected_from_rate": pytest.approx((1 - rate ** (length + 1)) / (1 - rate)),
    }


def test_speedups(result):
    """Times in milliseconds: the baseline 40 and 30, the method 11 and 42 by 8 and 6 tokens."""
    ratios = [40 / 11, 30 / 42]
    found = values(result, "speedup")
    assert found["speedup_e2e"] == pytest.approx(70 / 53)
    assert found["speedup_decode"] == pytest.approx((35 + 25) / (8.5 + 22))
    means = [(8 / t + 6 / u) / 2 for t, u in ((40, 30), (11, 42))]
    assert found["speedup_mean_rate"] == pytest.approx(means[1] / means[0])
    assert found["speedup_pooled_rate"] == pytest.approx(70 / 53)
    assert found["mean_of_rate_ratios"] == pytest.approx(sum(ratios) / 2)
    assert found["mean_of_time_ratios"] == pytest.approx(sum(ratios) / 2)
    assert found["geometric_mean_of_time_ratios"] == pytest.approx(math.sqrt(math.prod(ratios)))
    assert found["median_of_time_ratios"] == pytest.approx(sum(ratios) / 2)
    assert found["forwards_ratio"] == pytest.approx(14 / 8)


def test_specbenchs_own_numbers_are_those_of_the_comparison(result):
    method = compare([result]).rows[1]
    lengths, speedups = values(result, "mal"), values(result, "speedup")
    assert lengths["mal"] == method.quantities["mal"]
    assert lengths["mal_request"] == method.quantities["mal_request"]
    assert lengths["step_compression"] == method.quantities["step_compression"]
    assert speedups["speedup_e2e"] == pytest.approx(method.speedup_e2e.value)
    assert speedups["speedup_mean_rate"] == method.speedup_mean_rate.value
    assert speedups["predicted_speedup"] == method.predicted_speedup


def test_what_the_file_does_not_record_has_no_value(tmp_path):
    rounds = [a_round(1), a_round(3, 4, 2)]
    kept = [{key: e[key] for key in e if key not in ("proposed", "nodes")} for e in rounds]
    rows = [{**row(METHOD, "a", 0, rounds), "rounds": kept}]
    found = values(result_set(tmp_path, rows, metadata(baseline=None)), "mal")
    assert found["mal"] == 3.0
    assert found["one_plus_accepted_per_draft"] is None
    assert found["emitted_per_drafting_round"] is found["expected_from_rate"] is None


def test_without_a_baseline_no_speedup_has_a_value(tmp_path):
    rows = [row(METHOD, "a", 0, plain_rounds(4))]
    found = values(result_set(tmp_path, rows, metadata(baseline=None)), "speedup")
    assert set(found.values()) == {None}


def test_refusals(result, tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'mal'"):
        explain([result], "mall")
    with pytest.raises(UsageError, match="Cannot compare by"):
        explain([result], "mal", by="tasks")
    with pytest.raises(ResultsError):
        explain([], "mal")
    other = result_set(tmp_path, job_rows(2, 1), metadata(device="gpu"), "other")
    with pytest.raises(NotComparable):
        explain([result, other], "mal")
    assert explain([result, other], "mal", allow={"device"}).banners


@pytest.fixture
def explanations(result):
    return {topic: explain([result], topic) for topic in TOPICS}


def printed(explanation, width):
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, legacy_windows=False)
    console.print(report.render(explanation, width=width))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


@pytest.mark.parametrize("topic", sorted(TOPICS))
def test_golden(explanations, topic):
    check_golden(f"explain_{topic}_100.txt", printed(explanations[topic], 100))
    check_golden(f"explain_{topic}.md", report.markdown(explanations[topic]))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(tmp_path, width):
    sets = [
        result_set(
            tmp_path,
            job_rows(3, 1, started_unix=float(n)),
            metadata(parameters={"draft_length": n}),
            f"m{n}",
        )
        for n in range(9)
    ]
    text = printed(explain(sets, "mal"), width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert all(f"draft_length={n}" in text for n in range(9))


def test_json(explanations):
    decoded = json.loads(report.as_json(explanations["mal"]))
    assert decoded["topic"] == "mal" and decoded["format"] == 1
    (found,) = decoded["rows"]
    assert list(found["values"]) == [entry["name"] for entry in decoded["definitions"]]
    assert found["values"]["mal"] == pytest.approx(11 / 5)


def test_every_definition_says_who_uses_it():
    found = [metric.explained for metric in METRICS.values() if metric.explained]
    for topic in TOPICS:
        definitions = sorted((d for d in found if d.topic == topic), key=lambda d: d.place)
        assert [d.place for d in definitions] == list(range(1, len(definitions) + 1))
        assert len({d.title for d in definitions}) == len(definitions)
        assert all(d.formula and d.users.endswith(".") for d in definitions)


PUBLISHED = Path(__file__).parents[4] / "shared" / "data"


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not at hand")
def test_the_published_files_give_three_speedups_and_three_lengths(tmp_path):
    from typer.testing import CliRunner

    from specbench.cli.app import app
    from specbench.store import read_many

    files = [
        str(PUBLISHED / f"rest_published_{name}_vicuna7b.jsonl") for name in ("baseline", "rest")
    ]
    assert (
        CliRunner().invoke(app, ["import", *files, "--results-dir", str(tmp_path)]).exit_code == 0
    )
    results = read_many([tmp_path])
    row_ = compare(results).rows[1]
    assert row_.speedup_mean_rate.value == pytest.approx(1.648, abs=5e-4)
    assert row_.speedup_mean_rate.interval == pytest.approx((1.58, 1.72), abs=0.01)
    assert row_.speedup_pooled_rate.value == pytest.approx(1.703, abs=5e-4)
    assert row_.speedup_e2e.value == pytest.approx(1.735, abs=5e-4)
    assert row_.speedup_e2e.noise_floor is None
    warnings = " ".join(compare(results).warnings)
    assert "one repeat gives no noise floor" in warnings and "another rule" in warnings
    found = values(results[0], "mal")
    assert found["mal"] == pytest.approx(1.981, abs=5e-4)
    assert found["tokens_over_last_index"] == pytest.approx(2.005, abs=5e-4)
