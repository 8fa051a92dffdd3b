"""Made-up published files whose every derived number can be worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def choice(
    new_tokens: list[int],
    wall_time: list[float],
    idxs: list[int] | None = None,
    lengths: list[int] | None = None,
    key: str = "accept_lengths:",
    **changes: Any,
) -> dict[str, Any]:
    """One choice of an answer file, one entry a turn; `idxs` defaults to one token a step."""
    steps = [count - 1 for count in new_tokens] if idxs is None else idxs
    values: dict[str, Any] = {
        "index": 0,
        "turns": [f"turn {place}" for place in range(len(new_tokens))],
        "idxs": steps,
        "new_tokens": new_tokens,
        "wall_time": wall_time,
    }
    if lengths is not None:
        values[key] = lengths
    return {**values, **changes}


def answer(question: Any, *choices: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """One line of an answer file."""
    values = {
        "category": "writing",
        "question_id": question,
        "answer_id": "a",
        "model_id": "rest-vicuna-7b-v1.5-temperature-0.0-top_p-0",
        "choices": list(choices),
        "tstamp": 1700000000.0,
    }
    return {**values, **changes}


def rest_method(question: int = 81, seconds: tuple[float, float] = (0.5, 0.25)) -> dict[str, Any]:
    """Two turns of REST: 6 tokens in 3 steps (the first accepted none), 5 in 2 (it accepted 2).

    Its lengths are one token short in each turn: 0 + 3 + 2 = 5 and 2 + 2 = 4.
    """
    return answer(question, choice([6, 5], list(seconds), [2, 1], [0, 3, 2, 2, 2]))


def rest_baseline(question: int = 81, seconds: tuple[float, float] = (1.0, 0.5)) -> dict[str, Any]:
    """The same two turns token by token."""
    plain = choice([6, 4], list(seconds), [5, 3], [1] * 10)
    return answer(question, plain, model_id="vicuna-7b-v1.5-temperature-0.0-top_p-0")


def spec_bench(
    question: int, tokens: list[int], lengths: list[int], steps: list[int], method: str = "eagle"
) -> dict[str, Any]:
    """One line of Spec-Bench."""
    one = choice(tokens, [0.5] * len(tokens), None, lengths, "accept_lengths", decoding_steps=steps)
    del one["idxs"]
    return answer(question, one, model_id=f"vicuna-7b-v1.3-{method}-float16-temperature-0.0")


def vllm_run(requests: int = 3, gap: float = 0.01, **changes: Any) -> dict[str, Any]:
    """One run of `vllm bench serve --save-detailed`: request i has 4 + i tokens."""
    lengths = [4 + place for place in range(requests)]
    values = {
        "date": "20260101-000000",
        "endpoint_type": "openai-chat",
        "backend": "openai-chat",
        "model_id": "meta-llama/Llama-3.1-8B-Instruct",
        "num_prompts": requests,
        "max_concurrency": 1,
        "duration": 1.0,
        "mean_ttft_ms": 20.0,
        "input_lens": [100 + place for place in range(requests)],
        "output_lens": lengths,
        "ttfts": [0.02] * requests,
        "itls": [[gap] * (length - 1) for length in lengths],
        "generated_texts": ["text"] * requests,
        "errors": [""] * requests,
    }
    return {**values, **changes}


def sglang_run(**changes: Any) -> dict[str, Any]:
    """One line of SGLang's `bench_serving --output-details`."""
    values = vllm_run()
    for key in ("date", "endpoint_type", "model_id", "num_prompts"):
        del values[key]
    return {**values, "dataset_name": "sharegpt", "accept_length": 2.5, **changes}


def aiperf_record(conversation: str, turn: int = 0, **changes: Any) -> dict[str, Any]:
    """One line of AIPerf's `profile_export.jsonl`: 9 tokens in 300 ms, the first after 100 ms."""
    values = {
        "metadata": {
            "session_num": 0,
            "x_correlation_id": f"session of {conversation}",
            "conversation_id": conversation,
            "turn_index": turn,
            "request_start_ns": 1_759_813_207_532_900_363,
            "benchmark_phase": "profiling",
            "was_cancelled": False,
        },
        "metrics": {
            "request_latency": {"value": 300.0, "unit": "ms"},
            "time_to_first_token": {"value": 100.0, "unit": "ms"},
            "output_sequence_length": {"value": 9, "unit": "tokens"},
        },
        "error": None,
    }
    return {**values, **changes}


def completion(**changes: Any) -> dict[str, Any]:
    """A chat completion of llama.cpp's server: 30 tokens in 400 ms after 100 ms of prompt."""
    values = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "llama-3.1-8b-q4",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}}],
        "usage": {"completion_tokens": 30, "prompt_tokens": 12, "total_tokens": 42},
        "timings": {
            "prompt_n": 12,
            "prompt_ms": 100.0,
            "predicted_n": 30,
            "predicted_ms": 400.0,
            "draft_n": 40,
            "draft_n_accepted": 18,
        },
    }
    return {**values, **changes}


def write(path: Path, *lines: Any) -> Path:
    """Write values as JSON lines; a text is written as it is."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path
