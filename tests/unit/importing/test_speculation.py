"""What servers say of speculation in a response becomes rounds, or a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from specbench.compare import compare
from specbench.errors import NotComparable, ResultsError
from specbench.importing import Stated, plan, read_source, write
from specbench.importing.records import Published
from specbench.store import read_parquet
from tests.unit.importing.factory import aiperf_record, completion, vllm_run
from tests.unit.importing.factory import write as write_lines


def read(tmp_path: Path, *lines: Any) -> Published:
    return read_source(write_lines(tmp_path / "log.jsonl", *lines))


def vllm(speculative: dict[str, Any] | None = None, tokens: int = 11) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": "a",
        "model": "m",
        "choices": [{"message": {"content": "hi"}}],
        "usage": {"prompt_tokens": 7, "completion_tokens": tokens},
        "metrics": {"time_to_first_token_ms": 20.0, "generation_time_ms": 80.0},
    }
    if speculative is not None:
        body["metrics"]["speculative_decoding"] = speculative
    return body


def sglang(tokens: int = 11, **changes: Any) -> dict[str, Any]:
    about = {
        "prompt_tokens": 7,
        "completion_tokens": tokens,
        "e2e_latency": 0.1,
        "spec_verify_ct": 6,
        "spec_accept_token_num": 4,
        "spec_draft_token_num": 18,
        "spec_accept_histogram": [3, 2, 1],
    }
    return {"text": "hi", "meta_info": {**about, **changes}}


SUMMARY = {
    "acceptance_histogram": [3, 2, 1],
    "num_spec_steps": 6,
    "num_accepted_draft_tokens": 4,
    "num_draft_tokens": 18,
}
DETAILED = {**SUMMARY, "per_step_accepted": [0, 2, 0, 1, 1, 0], "per_step_drafted": [3] * 6}


def test_vllm_tells_every_round_where_it_was_asked_to(tmp_path: Path) -> None:
    (turn,) = read(tmp_path, vllm(DETAILED)).answers[0].turns
    assert [step.accepted for step in turn.rounds or ()] == [0, 2, 0, 1, 1, 0]
    assert [step.emitted for step in turn.rounds or ()] == [1, 3, 1, 2, 2, 1]
    assert {step.proposed for step in turn.rounds or ()} == {3}
    assert (turn.prefill_tokens, turn.prefill_ns, turn.total_ns) == (1, 20_000_000, 100_000_000)


@pytest.mark.parametrize("line", [vllm(SUMMARY), sglang()], ids=["vllm", "sglang"])
def test_a_histogram_is_rounds_without_their_order(tmp_path: Path, line: dict[str, Any]) -> None:
    source = read(tmp_path, line)
    (turn,) = source.answers[0].turns
    assert [step.accepted for step in turn.rounds or ()] == [0, 0, 0, 1, 1, 2]
    assert turn.prefill_tokens == 1
    assert any("order of the rounds" in sentence for sentence in source.odd)


def test_sglangs_chat_completions_have_rounds_and_no_times(tmp_path: Path) -> None:
    line = vllm()
    del line["metrics"]
    details = {
        "spec_verify_ct": 6,
        "spec_num_correct_drafts": 4,
        "spec_num_proposed_drafts": 18,
        "spec_correct_drafts_histogram": [3, 2, 1],
    }
    line["sglext"] = {"spec_tokens_details": details}
    source = read(tmp_path, line)
    (turn,) = source.answers[0].turns
    assert (turn.total_ns, len(turn.rounds or ())) == (None, 6)
    assert any("Times are not recorded" in sentence for sentence in source.unknown)
    planned = plan([tmp_path / "log.jsonl"], Stated(temperature=0.0))
    (row,) = compare([read_parquet(write(planned, tmp_path / "out")[0].path)]).rows
    assert row.quantities["mal"] == pytest.approx(10 / 6)
    assert row.speedup_e2e is None


def test_llama_cpp_tells_how_many_rounds_there_were(tmp_path: Path) -> None:
    line = completion()
    line["timings"] |= {"predicted_n": 759, "draft_n": 660, "draft_n_accepted": 538}
    (turn,) = read(tmp_path, line).answers[0].turns
    assert len(turn.rounds or ()) == 220
    assert {step.accepted for step in turn.rounds or ()} == {None}


def test_aiperf_keeps_what_the_server_accepted(tmp_path: Path) -> None:
    record = aiperf_record("a")
    tokens = int(record["metrics"]["output_sequence_length"]["value"])
    said = {"acceptance_histogram": {"0": tokens - 3, "2": 1}, "num_spec_steps": tokens - 2}
    (turn,) = read(tmp_path, {**record, "spec_decode_acceptance": said}).answers[0].turns
    assert (len(turn.rounds or ()), turn.prefill_tokens) == (tokens - 2, 0)


def test_a_last_round_that_was_cut_emits_less(tmp_path: Path) -> None:
    (turn,) = read(tmp_path, vllm(DETAILED, tokens=9)).answers[0].turns
    assert [step.emitted for step in turn.rounds or ()] == [1, 3, 1, 2, 2, 0]
    assert turn.prefill_tokens == 0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (vllm({**SUMMARY, "num_spec_steps": 7}), "6 rounds where 7 are stated"),
        (vllm(SUMMARY, tokens=30), "6 rounds emitted 10 of 30 tokens"),
        (vllm({**DETAILED, "per_step_accepted": [0, -1]}), "per_step"),
        (sglang(spec_accept_histogram=[10**9]), "less than or equal"),
        (sglang(e2e_latency=0), "no time"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(
    tmp_path: Path, line: dict[str, Any], told: str
) -> None:
    with pytest.raises(ResultsError, match="line 1, cannot be imported") as caught:
        read(tmp_path, line)
    assert told in caught.value.why


def test_servers_under_different_loads_are_not_paired(tmp_path: Path) -> None:
    one = write_lines(tmp_path / "one.jsonl", vllm_run(max_concurrency=1))
    many = write_lines(tmp_path / "many.jsonl", vllm_run(max_concurrency=32, date="other"))
    with pytest.raises(NotComparable) as caught:
        plan([many], baseline=one)
    assert "concurrency 1 and concurrency 32" in caught.value.why
    assert plan([many])[0].metadata.timing["load"] == "concurrency 32"


def imported(shared_data: Path, tmp_path: Path, name: str) -> Any:
    path = shared_data.parent / "cases" / "import" / name
    if not path.exists():
        pytest.skip(f"there is no {name}")
    written = write(plan([path], Stated(temperature=0.0)), tmp_path / "out")
    return compare([read_parquet(written[0].path)]).rows[-1]


@pytest.mark.parametrize(
    ("name", "mal"),
    [
        ("i07_vllm_chat_spec.jsonl", 53 / 43),
        ("i08_sglang_generate.jsonl", 199 / 188),
        ("i08_sglext.jsonl", 106 / 43),
        ("i09_llama_spec.jsonl", 758 / 220),
        ("i10_aiperf.jsonl", 128 / 51),
    ],
)
def test_acceptance_lengths_of_servers(
    shared_data: Path, tmp_path: Path, name: str, mal: float
) -> None:
    assert imported(shared_data, tmp_path, name).quantities["mal"] == pytest.approx(mal, abs=1e-4)
