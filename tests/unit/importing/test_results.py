"""Imported files are result files: paired, comparable where they may be, and never overwritten."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from specbench.compare import compare
from specbench.errors import NotComparable, ResultsError, UsageError
from specbench.importing import Imported, Stated, plan
from specbench.importing import write as write_results
from specbench.schema.result import BASELINE, METHOD
from specbench.store import ResultSet, list_results, read_parquet
from tests.unit.importing.factory import (
    answer,
    choice,
    rest_baseline,
    rest_method,
    spec_bench,
    vllm_run,
    write,
)

QUESTIONS = range(81, 93)


def baseline(tmp_path: Path, **changes: Any) -> Path:
    lines = [{**rest_baseline(at, (1.0 + at % 3 / 10, 0.5)), **changes} for at in QUESTIONS]
    return write(tmp_path / "baseline.jsonl", *lines)


def method(tmp_path: Path, name: str = "rest.jsonl", **changes: Any) -> Path:
    seconds = (0.6, 0.25) if "again" in name else (0.5, 0.25)
    lines = [{**rest_method(at, seconds), **changes} for at in QUESTIONS]
    return write(tmp_path / name, *lines)


def imported(tmp_path: Path, files: Sequence[Path], **options: Any) -> list[ResultSet]:
    written = write_results(plan(files, **options), tmp_path / "results")
    return [read_parquet(each.path) for each in written if each.path]


def only(planned: Sequence[Imported]) -> Imported:
    (one,) = planned
    return one


def test_both_arms_stand_in_one_file_in_whatever_order_they_are_given(tmp_path: Path) -> None:
    for files in (
        [method(tmp_path), baseline(tmp_path)],
        [baseline(tmp_path), method(tmp_path)],
    ):
        (result,) = imported(tmp_path, files)
        rows = result.rows
        assert rows["arm"].value_counts().to_dict() == {BASELINE: 12, METHOD: 12}
        assert set(rows[rows["arm"] == BASELINE]["method"]) == {"ar"}
        assert set(rows[rows["arm"] == METHOD]["method"]) == {"rest"}


def test_turns_are_summed_and_texts_kept(tmp_path: Path) -> None:
    (result,) = imported(tmp_path, [method(tmp_path), baseline(tmp_path)])
    rows = result.rows
    row = rows[(rows["arm"] == METHOD) & (rows["sample_id"] == "81")].iloc[0]
    assert (row["new_tokens"], row["total_ns"]) == (11, 750_000_000)
    assert row["target_forwards"] == 2 + 5
    outputs = result.outputs
    assert list(outputs["output_text"].iloc[-1]) == ["turn 0", "turn 1"]


def test_what_the_rounds_emit_is_what_the_row_counts(tmp_path: Path) -> None:
    (one,) = plan([method(tmp_path), baseline(tmp_path)])
    for row in one.rows:
        assert sum(entry["emitted"] for entry in row["rounds"]) == row["new_tokens"]
        assert sum(entry["target_forwards"] for entry in row["rounds"]) == row["target_forwards"]
    (eager,) = plan([write(tmp_path / "pld.jsonl", spec_bench(81, [3], [2, 1], [2], "pld"))])
    assert [entry["emitted"] for entry in eager.rows[0]["rounds"]] == [0, 2, 1]
    assert eager.rows[0]["target_forwards"] == 2


def test_compare_derives_what_the_authors_would_print(tmp_path: Path) -> None:
    results = imported(tmp_path, [method(tmp_path), baseline(tmp_path)])
    plain, fast = compare(results).rows
    assert plain.quantities["mal"] == 1.0
    assert fast.quantities["mal"] == pytest.approx((0 + 3 + 2 + 2 + 2) / 5)
    assert fast.quantities["accepted_per_round"] == pytest.approx((0 + 2 + 1 + 2 + 1) / 5)
    assert fast.quantities["acceptance_histogram"] == (12, 24, 24)
    assert fast.quantities["acceptance_rate"] is None
    assert fast.quantities["draft_efficiency"] is None
    assert fast.quantities["round_time"] is None
    assert fast.predicted_speedup is None
    assert fast.speedup_e2e is not None
    assert fast.speedup_e2e.value == pytest.approx(sum(1.5 + a % 3 / 10 for a in QUESTIONS) / 9)
    assert fast.speedup_e2e.noise_floor is None
    assert fast.speedup_e2e.verdict == "inconclusive"


def test_what_is_not_recorded_is_null_and_said(tmp_path: Path) -> None:
    (result,) = imported(tmp_path, [method(tmp_path), baseline(tmp_path)])
    rows = result.rows[result.rows["arm"] == METHOD]
    for column in ("ttft_ns", "prefill_ns", "draft_ns", "target_ns", "host_ns", "draft_forwards"):
        assert rows[column].isna().all(), column
    source = result.metadata.source
    assert source["format"] == "rest"
    assert [file["name"] for file in source["files"]] == ["baseline.jsonl", "rest.jsonl"]
    assert any("no noise floor" in sentence for sentence in source["unknown"])
    assert any("device" in sentence for sentence in source["unknown"])
    assert any("counted by another rule" in sentence for sentence in source["odd"])
    assert result.metadata.device == result.metadata.dtype == "unknown"
    assert result.metadata.method.exactness == "unknown"


def test_what_the_user_states_is_known(tmp_path: Path) -> None:
    stated = Stated("m", "t", "lookup", "H100", "float16", 0.0)
    planned = only(plan([method(tmp_path), baseline(tmp_path)], stated))
    about = planned.metadata
    assert (about.model, about.task, about.method.name) == ("m", "t", "lookup")
    assert (about.device, about.dtype, about.temperature) == ("H100", "float16", 0.0)
    assert not any("not stated" in sentence for sentence in about.source["unknown"])


def test_tasks_are_known_by_their_questions(tmp_path: Path) -> None:
    whole = write(tmp_path / "all.jsonl", *(rest_method(at) for at in range(81, 161)))
    assert only(plan([whole])).metadata.task == "mt_bench"
    assert only(plan([method(tmp_path)])).metadata.task == "unknown"


def test_without_a_baseline_there_is_one_arm_and_a_warning(tmp_path: Path) -> None:
    planned = only(plan([method(tmp_path)]))
    assert {row["arm"] for row in planned.rows} == {METHOD}
    assert planned.metadata.baseline is None
    assert any("no speedup" in sentence for sentence in planned.metadata.source["unknown"])


def test_a_baseline_alone_is_plain_decoding(tmp_path: Path) -> None:
    planned = only(plan([baseline(tmp_path)]))
    assert planned.metadata.method.name == "ar"
    assert {row["arm"] for row in planned.rows} == {METHOD}


def test_each_method_becomes_a_file_and_none_is_a_repeat_of_another(tmp_path: Path) -> None:
    files = [baseline(tmp_path), method(tmp_path), method(tmp_path, "rest_again.jsonl")]
    results = imported(tmp_path, files)
    labels = [row.label for row in compare(results).rows if not row.is_baseline]
    assert len(results) == len(labels) == len(set(labels)) == 2


def test_a_copied_baseline_is_no_noise_floor(tmp_path: Path) -> None:
    files = [baseline(tmp_path), method(tmp_path), method(tmp_path, "rest_again.jsonl")]
    for row in compare(imported(tmp_path, files)).rows:
        if row.speedup_e2e is not None:
            assert row.speedup_e2e.noise_floor is None


def test_one_file_under_two_names_is_no_second_measurement(tmp_path: Path) -> None:
    files = [method(tmp_path), method(tmp_path, "copy.jsonl")]
    with pytest.raises(UsageError, match="same bytes"):
        plan([baseline(tmp_path), *files])
    results = [read for file in files for read in imported(tmp_path, [file])]
    comparison = compare(results)
    assert len(comparison.rows) == 1
    assert any("left out" in warning for warning in comparison.warnings)


def test_two_plain_files_need_a_name(tmp_path: Path) -> None:
    other = write(tmp_path / "other.jsonl", *(rest_baseline(at) for at in QUESTIONS))
    with pytest.raises(UsageError, match="Several files are plain"):
        plan([baseline(tmp_path), other])
    planned = only(plan([baseline(tmp_path), other], baseline=other))
    assert planned.metadata.method.name == "ar"


def test_a_named_baseline_need_not_be_listed(tmp_path: Path) -> None:
    planned = only(plan([method(tmp_path)], baseline=baseline(tmp_path)))
    assert planned.metadata.baseline is not None
    with pytest.raises(UsageError, match="no method beside"):
        plan([baseline(tmp_path)], baseline=baseline(tmp_path))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_id": "vicuna-7b-v1.5-temperature-1.0-top_p-0.9"}, "different target laws"),
    ],
)
def test_arms_of_different_laws_are_not_paired(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(NotComparable) as caught:
        plan([method(tmp_path), baseline(tmp_path, **changes)])
    assert reason in caught.value.why


def test_arms_of_different_models_are_not_paired(tmp_path: Path) -> None:
    files = [method(tmp_path), baseline(tmp_path, model_id="llama-7b-temperature-0.0")]
    with pytest.raises(UsageError, match="different models"):
        plan(files)
    assert only(plan(files, Stated(model="right"))).metadata.model == "right"


def test_times_with_and_without_prefill_are_not_paired(tmp_path: Path) -> None:
    other = write(tmp_path / "eagle.jsonl", *(spec_bench(at, [6], [3, 3], [2]) for at in QUESTIONS))
    with pytest.raises(NotComparable) as caught:
        plan([baseline(tmp_path), other])
    assert "times mean different things" in caught.value.why


def test_files_without_a_common_question_are_not_paired(tmp_path: Path) -> None:
    other = write(tmp_path / "other.jsonl", rest_method(1))
    with pytest.raises(NotComparable, match="cannot be paired"):
        plan([baseline(tmp_path), other])


def test_files_of_other_conversations_are_not_paired(tmp_path: Path) -> None:
    short = answer(81, choice([6], [0.5], [2], [0, 3, 2]))
    other = write(tmp_path / "other.jsonl", short)
    with pytest.raises(NotComparable) as caught:
        plan([baseline(tmp_path), other])
    assert "2 turns in one and 1 in the other" in caught.value.why


def test_unknown_laws_are_never_equal(tmp_path: Path) -> None:
    names = ("a", "b")
    files = [method(tmp_path, f"{name}.jsonl", model_id=f"rest-{name}") for name in names]
    laws = [only(plan([file])).metadata for file in files]
    assert all(about.law == "unknown" and about.temperature is None for about in laws)
    assert laws[0].law_hash != laws[1].law_hash
    stated = [only(plan([f], Stated(temperature=0.7))).metadata for f in files]
    assert stated[0].law_hash == stated[1].law_hash
    known = only(plan([method(tmp_path)])).metadata
    assert known.law_hash not in {about.law_hash for about in (*laws, *stated)}


def test_files_of_unknown_laws_are_not_compared_unless_allowed(tmp_path: Path) -> None:
    names = ("a", "b")
    files = [method(tmp_path, f"{name}.jsonl", model_id=f"rest-x-{name}") for name in names]
    stated = Stated(model="x")
    results = [read for file in files for read in imported(tmp_path, [file], stated=stated)]
    with pytest.raises(NotComparable, match="not comparable") as caught:
        compare(results)
    assert caught.value.fix is not None and "--temperature" in caught.value.fix
    assert len(compare(results, allow={"law"}).rows) == 2


def test_a_second_import_takes_a_new_name(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    planned = plan([method(tmp_path), baseline(tmp_path)])
    first = only(write_results(planned, folder)).path
    second = only(write_results(planned, folder)).path
    assert first is not None and second is not None
    assert second.name == f"{first.stem}-2.parquet"


def test_nothing_is_written_where_one_file_is_bad(tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.jsonl", rest_method(81), "{")
    with pytest.raises(ResultsError):
        imported(tmp_path, [baseline(tmp_path), method(tmp_path), bad])
    assert not (tmp_path / "results").exists()


def test_a_claim_of_too_many_rounds_is_refused(tmp_path: Path) -> None:
    huge = [answer(at, choice([10**6], [9.0], [999_999])) for at in range(4)]
    with pytest.raises(ResultsError, match="cannot be imported"):
        plan([write(tmp_path / "huge.jsonl", *huge)])


def test_imported_files_are_listed(tmp_path: Path) -> None:
    imported(tmp_path, [method(tmp_path), baseline(tmp_path)])
    (summary,) = list_results(tmp_path / "results")
    assert summary.metadata is not None and summary.problem == ""
    assert summary.rows == 24


def test_servers_are_paired_by_the_order_of_their_requests(tmp_path: Path) -> None:
    slow = write(tmp_path / "slow.json", vllm_run(12, gap=0.02))
    fast = write(tmp_path / "fast.json", vllm_run(12, gap=0.01))
    stated = Stated(method="ngram", temperature=0.0)
    results = imported(tmp_path, [fast], stated=stated, baseline=slow)
    row = next(row for row in compare(results).rows if not row.is_baseline)
    total = [sum(0.02 + gap * (3 + at) for at in range(12)) for gap in (0.02, 0.01)]
    assert row.speedup_e2e is not None
    assert row.speedup_e2e.value == pytest.approx(total[0] / total[1])
    assert row.quantities["mal"] is None
    assert row.quantities["ttft_ms"] == pytest.approx(20.0)
