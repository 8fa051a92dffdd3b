"""Benchmark clients of servers: what each request took, and a refusal where only totals stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from specbench.errors import NotComparable, ResultsError
from specbench.importing import plan, read_source
from specbench.importing.records import Published
from tests.unit.importing.factory import (
    aiperf_record,
    completion,
    sglang_run,
    vllm_run,
    write,
)


def read(tmp_path: Path, *lines: Any, **options: Any) -> Published:
    return read_source(write(tmp_path / "log.jsonl", *lines), **options)


def why(tmp_path: Path, *lines: Any) -> str:
    with pytest.raises(ResultsError) as caught:
        read(tmp_path, *lines)
    return str(caught.value)


def test_a_request_takes_its_first_token_and_the_gaps_after_it(tmp_path: Path) -> None:
    source = read(tmp_path, vllm_run())
    assert source.format == "vllm_bench"
    assert source.label.model == "Llama-3.1-8B-Instruct"
    (turn,) = source.answers[1].turns
    assert (turn.new_tokens, turn.prompt_tokens) == (5, 101)
    assert (turn.prefill_ns, turn.decode_ns) == (20_000_000, 40_000_000)
    assert turn.total_ns == 60_000_000
    assert turn.rounds is None
    assert source.plain is None


def test_a_run_that_is_left_out_says_nothing_of_the_others(tmp_path: Path) -> None:
    bad = vllm_run(model_id="other/model", input_lens=[])
    source = read(tmp_path, bad, vllm_run(), skip_bad=True)
    assert source.label.model == "Llama-3.1-8B-Instruct"
    assert len(source.answers) == 3


def test_a_name_that_cannot_be_written_is_a_bad_line(tmp_path: Path) -> None:
    bad = vllm_run(model_id="model \ud800")
    assert "line 1, cannot be imported" in why(tmp_path, bad)
    assert len(read(tmp_path, bad, vllm_run(), skip_bad=True).answers) == 3


def test_runs_of_several_models_are_no_repeats(tmp_path: Path) -> None:
    assert "several models" in why(tmp_path, vllm_run(), vllm_run(model_id="other"))


def test_runs_of_one_file_are_repeats(tmp_path: Path) -> None:
    source = read(tmp_path, vllm_run(), vllm_run(gap=0.02))
    assert [answer.repeat for answer in source.answers] == [0, 0, 0, 1, 1, 1]
    assert not any("one run" in sentence for sentence in source.unknown)


def test_a_failed_request_is_a_failed_row(tmp_path: Path) -> None:
    run = vllm_run(errors=["", "Traceback: refused\n", ""])
    run["output_lens"][1] = 0
    run["output_lens"][2] = 0
    answers = read(tmp_path, run).answers
    assert [answer.error for answer in answers] == [
        None,
        "Traceback: refused",
        "the server generated no token",
    ]


def test_sharing_a_server_is_said(tmp_path: Path) -> None:
    assert not any("shared" in text for text in read(tmp_path, vllm_run()).odd)
    assert any("shared" in text for text in read(tmp_path, vllm_run(max_concurrency=8)).odd)


def test_acceptance_of_a_whole_run_is_kept_as_a_total(tmp_path: Path) -> None:
    source = read(tmp_path, sglang_run())
    assert source.format == "sglang_bench"
    assert source.totals == {"accept_length": 2.5}


def test_totals_alone_are_refused_with_the_option_that_keeps_requests(tmp_path: Path) -> None:
    run = vllm_run()
    for key in ("input_lens", "output_lens", "ttfts", "itls", "generated_texts", "errors"):
        del run[key]
    assert "--save-detailed" in why(tmp_path, run)
    assert "profile_export.jsonl" in why(tmp_path, {"request_latency": {"avg": 1.0}})
    assert "no numbers of tokens" in why(tmp_path, {"version": "0.1", "experiments": []})


def test_the_turns_of_a_session_are_one_measurement(tmp_path: Path) -> None:
    lines = [aiperf_record("b", 1), aiperf_record("a"), aiperf_record("b", 0)]
    source = read(tmp_path, *lines)
    assert [(a.sample_id, len(a.turns)) for a in source.answers] == [("b", 2), ("a", 1)]
    turn = source.answers[0].turns[0]
    assert (turn.new_tokens, turn.total_ns, turn.prefill_ns) == (9, 300_000_000, 100_000_000)


def test_a_session_without_its_first_turn_is_refused(tmp_path: Path) -> None:
    assert "turns [1]" in why(tmp_path, aiperf_record("b", 1))


def test_a_cancelled_request_fails_its_session(tmp_path: Path) -> None:
    bad = aiperf_record("a", 1, metrics={}, error={"code": 499, "message": "cancelled"})
    bad["metrics"] = {"error_isl": {"value": 550, "unit": "tokens"}}
    (found,) = read(tmp_path, aiperf_record("a"), bad).answers
    assert (found.error, found.turns) == ("cancelled", ())


def test_a_reason_that_no_text_can_hold_is_refused(tmp_path: Path) -> None:
    assert "half of a character" in why(tmp_path, aiperf_record("a", error="\ud800"))


def test_a_unit_that_is_not_understood_is_refused(tmp_path: Path) -> None:
    line = aiperf_record("a")
    line["metrics"]["request_latency"]["unit"] = "sec"
    assert "unit" in why(tmp_path, line)


def test_llama_cpp_writes_its_times_into_the_response(tmp_path: Path) -> None:
    source = read(tmp_path, {"custom_id": "q1", "response": {"body": completion()}})
    assert source.format == "openai_chat"
    (answer,) = source.answers
    assert answer.sample_id == "q1"
    (turn,) = answer.turns
    assert (turn.new_tokens, turn.prefill_ns, turn.decode_ns) == (30, 100_000_000, 400_000_000)
    assert turn.text == "hello"
    assert source.totals == {"draft_tokens": 40, "accepted_tokens": 18}


def test_groq_writes_its_times_into_the_usage(tmp_path: Path) -> None:
    line = completion()
    del line["timings"]
    line["usage"] |= {"prompt_time": 0.1, "completion_time": 0.4, "queue_time": 3.0}
    (turn,) = read(tmp_path, line).answers[0].turns
    assert (turn.new_tokens, turn.total_ns, turn.prompt_tokens) == (30, 500_000_000, 12)


def test_a_response_without_times_is_refused(tmp_path: Path) -> None:
    line = completion()
    del line["timings"]
    assert "carries no times" in why(tmp_path, line)


def test_more_accepted_than_drafted_is_refused(tmp_path: Path) -> None:
    line = completion()
    line["timings"]["draft_n_accepted"] = 41
    assert "draft_n_accepted" in why(tmp_path, line)


def test_runs_of_different_prompts_are_not_paired(tmp_path: Path) -> None:
    one = write(tmp_path / "one.json", vllm_run())
    other = write(tmp_path / "other.json", vllm_run(input_lens=[100, 99, 102]))
    with pytest.raises(NotComparable, match="cannot be paired") as caught:
        plan([other], baseline=one)
    assert "101 tokens in one and of 99" in caught.value.why


def test_a_number_that_is_not_read_may_be_anything(tmp_path: Path) -> None:
    text = json.dumps(vllm_run(mean_ttft_ms=float("nan")))
    assert len(read(tmp_path, text).answers) == 3
