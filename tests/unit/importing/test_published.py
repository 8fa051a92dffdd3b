"""Two published files, and the three speedups that their numbers give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from specbench.compare import Comparison, ComparisonRow, compare
from specbench.importing import Imported, plan, write
from specbench.schema.result import BASELINE, METHOD
from specbench.store import ResultSet, read_parquet

FILES = ("rest_published_baseline_vicuna7b.jsonl", "rest_published_rest_vicuna7b.jsonl")


@pytest.fixture(scope="module")
def published(shared_data: Path) -> Imported:
    """The files, planned."""
    (planned,) = plan([shared_data / name for name in FILES])
    return planned


@pytest.fixture(scope="module")
def result(published: Imported, tmp_path_factory: pytest.TempPathFactory) -> ResultSet:
    """The result file that they become."""
    (written,) = write([published], tmp_path_factory.mktemp("results"))
    assert written.path is not None
    return read_parquet(written.path)


@pytest.fixture(scope="module")
def comparison(result: ResultSet) -> Comparison:
    """What compare makes of it."""
    return compare([result])


@pytest.fixture
def row(comparison: Comparison) -> ComparisonRow:
    """The method's row."""
    return next(row for row in comparison.rows if not row.is_baseline)


def test_the_rows_give_three_speedups(result: ResultSet) -> None:
    rows = result.rows
    rates, tokens, times = {}, {}, {}
    for arm in (BASELINE, METHOD):
        own = rows[rows["arm"] == arm]
        assert len(own) == 80
        rates[arm] = float(np.mean(own["new_tokens"] / (own["total_ns"] / 1e9)))
        tokens[arm], times[arm] = own["new_tokens"].sum(), own["total_ns"].sum() / 1e9
    assert rates[METHOD] / rates[BASELINE] == pytest.approx(1.648, abs=5e-4)
    pooled = (tokens[METHOD] / times[METHOD]) / (tokens[BASELINE] / times[BASELINE])
    assert pooled == pytest.approx(1.703, abs=5e-4)
    assert times[BASELINE] / times[METHOD] == pytest.approx(1.735, abs=5e-4)


def test_compare_names_each_of_them(row: ComparisonRow) -> None:
    assert row.speedup_mean_rate is not None and row.speedup_pooled_rate is not None
    assert row.speedup_e2e is not None
    assert row.speedup_mean_rate.value == pytest.approx(1.648, abs=5e-4)
    assert row.speedup_pooled_rate.value == pytest.approx(1.703, abs=5e-4)
    assert row.speedup_e2e.value == pytest.approx(1.735, abs=5e-4)
    interval = row.speedup_mean_rate.interval
    assert interval is not None
    assert interval.low == pytest.approx(1.58, abs=0.02)
    assert interval.high == pytest.approx(1.72, abs=0.02)


def test_one_run_has_no_noise_floor_and_no_verdict(
    row: ComparisonRow, comparison: Comparison
) -> None:
    assert row.speedup_e2e is not None
    assert row.speedup_e2e.noise_floor is None
    assert row.speedup_e2e.verdict == "inconclusive"
    assert any("noise floor" in warning for warning in comparison.warnings)


def test_acceptance_is_what_rest_prints(row: ComparisonRow, comparison: Comparison) -> None:
    assert row.quantities["mal"] == pytest.approx(40331 / 20360)
    assert row.quantities["step_compression"] == pytest.approx(40491 / (20360 + 160))
    assert row.quantities["accepted_per_round"] == pytest.approx(20131 / 20360)
    plain = next(row for row in comparison.rows if row.is_baseline)
    assert plain.quantities["mal"] == 1.0


def test_everything_odd_in_them_is_said(published: Imported) -> None:
    odd = " ".join(published.metadata.source["odd"])
    for words in (
        "last index of a loop",
        "ends in a colon",
        "(160 turns)",
        "(92 turns)",
        "without the prefill",
        "counted by another rule",
    ):
        assert words in odd
    about = published.metadata
    assert (about.method.name, about.model, about.task) == ("rest", "vicuna-7b-v1.5", "mt_bench")
    assert (about.law, about.temperature) == ("temperature 0", 0.0)
    assert published.same_answers == (63, 80)
