"""Benchmark clients of inference servers that keep what each request took.

vLLM's `bench serve --save-detailed` writes one JSON object a run, SGLang's `bench_serving
--output-details` one line a run, both with arrays of one entry a request. AIPerf's
`profile_export.jsonl` has one line a request. Their counterparts without details hold totals only
and are refused. What a server accepted is recorded for the whole run at most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from specbench.errors import ResultsError
from specbench.importing import reading, speculation
from specbench.importing.reading import BadRecord, Document, Record
from specbench.importing.records import Answer, Label, Notes, Source, Turn

MOST_REQUESTS = 1_000_000
"""Requests of one run beyond which a file is not believed."""

_LONGEST_REASON = 2000
_ARRAYS = ("input_lens", "output_lens", "ttfts", "itls")
_TOTALS = ("mean_ttft_ms", "median_ttft_ms", "request_throughput")
_SPECULATIVE = (
    "accept_length",
    "spec_decode_acceptance_rate",
    "spec_decode_acceptance_length",
    "spec_decode_num_drafts",
    "spec_decode_draft_tokens",
    "spec_decode_accepted_tokens",
    "spec_decode_per_position_acceptance_rates",
)
_UNKNOWN = (
    "What each round accepted and proposed is not recorded.",
    "Time is not divided into draft, target and host; it includes the network and the queue.",
    "Token ids and memory are not recorded.",
)
_SHARED = (
    "Requests shared the server: a sum of their times is no wall time of the whole run, and it "
    "holds waiting for one another"
)


def looks_like(record: Mapping[str, Any]) -> str | None:
    """Return the name of the client that wrote an object, or None."""
    if all(isinstance(record.get(key), list) for key in _ARRAYS):
        return "vllm_bench" if "model_id" in record or "endpoint_type" in record else "sglang_bench"
    metrics = record.get("metrics")
    if isinstance(record.get("metadata"), dict) and isinstance(metrics, dict):
        known = {"request_latency", "output_sequence_length", "error_isl"}
        return "aiperf" if known & set(metrics) else None
    return None


def why_not(record: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return why a known output cannot be imported and what to do, or None if it is not known."""
    if any(key in record for key in _TOTALS):
        return (
            "it holds the totals of a benchmark run and not what each request took",
            "Run it again with --save-detailed (vllm bench serve) or --output-details (SGLang).",
        )
    if "experiments" in record and "version" in record:
        return (
            "a GenAI-Perf profile holds times of responses and no numbers of tokens",
            "Measure with AIPerf and give its profile_export.jsonl.",
        )
    if isinstance(record.get("request_latency"), dict):
        return (
            "it holds AIPerf's statistics over all requests",
            "Give the profile_export.jsonl beside it.",
        )
    return None


def read_runs(document: Document, format_name: str, skip_bad: bool = False) -> Source:
    """Read vLLM's or SGLang's runs: a repeat for each object in the file.

    Args:
        document: Its decoded objects.
        format_name: "vllm_bench" or "sglang_bench".
        skip_bad: Whether runs that cannot be read are left out.

    Raises:
        ResultsError: If a run cannot be read.
    """
    notes = Notes()
    runs, skipped = reading.read_each(document, lambda record: _run(record, notes), skip_bad)
    if skipped:
        notes.add(reading.left_out(skipped))
    models = list(dict.fromkeys(run.model for run in runs))
    if len(models) > 1:
        raise ResultsError(
            f"'{document.path}' holds runs of several models",
            f"the runs of one file are repeats of one another, and these asked "
            f"{', '.join(map(reading.shown, models[:4]))}",
            "Give a file for each model.",
        )
    answers = tuple(
        replace(answer, repeat=repeat) for repeat, run in enumerate(runs) for answer in run.answers
    )
    notes.add(
        "A request's time runs to its last token: its time to first token and the gaps after it"
    )
    if any(_concurrent(record.values) for record in document.records):
        notes.add(_SHARED)
    single = () if len(runs) > 1 else ("There is one run: no noise floor.",)
    return Source(
        path=document.path,
        sha256=document.sha256,
        format=format_name,
        label=Label(model=models[0].rstrip("/").rpartition("/")[2] or None),
        answers=answers,
        plain=None,
        odd=notes.sentences(),
        unknown=(*single, *_UNKNOWN, "When each request began is not recorded as a date."),
        totals=_totals(runs[0].values),
        load=_load(runs[0].values),
    )


def read_aiperf(document: Document, format_name: str, skip_bad: bool = False) -> Source:
    """Read AIPerf's records of single requests; the requests of a session are its turns.

    Args:
        document: Its decoded lines.
        format_name: "aiperf".
        skip_bad: Whether lines that cannot be read are left out.

    Raises:
        ResultsError: If a line cannot be read.
    """
    notes = Notes()
    requests, skipped = reading.read_each(
        document, lambda record: _request(record, notes), skip_bad
    )
    if skipped:
        notes.add(reading.left_out(skipped))
    sessions: dict[str, list[tuple[int, str, Answer]]] = {}
    for turn, conversation, session, answer in requests:
        sessions.setdefault(session, []).append((turn, conversation, answer))
    repeats: dict[str, int] = {}
    answers = []
    for session, members in sessions.items():
        members.sort(key=lambda member: member[0])
        turns = [turn for turn, _, _ in members]
        if turns != list(range(len(turns))):
            raise ResultsError(
                f"'{document.path}' holds a broken session",
                f"session {session} has the turns {reading.shown(turns)}",
                "Export the whole run; every session needs each of its turns once.",
            )
        conversation = members[0][1]
        repeat = repeats.get(conversation, 0)
        repeats[conversation] = repeat + 1
        parts = [answer for _, _, answer in members]
        error = next((answer.error for answer in parts if answer.error), None)
        joined = () if error else tuple(turn for answer in parts for turn in answer.turns)
        answers.append(replace(parts[0], repeat=repeat, turns=joined, error=error))
    single = () if max(repeats.values()) > 1 else ("Every question was measured once.",)
    notes.add(_SHARED)
    return Source(
        path=document.path,
        sha256=document.sha256,
        format=format_name,
        label=Label(),
        answers=tuple(answers),
        plain=None,
        odd=notes.sentences(),
        unknown=(
            *single,
            *(_UNKNOWN[1:] if _stepped(answers) else _UNKNOWN),
            "What was generated is not recorded.",
        ),
    )


def _stepped(answers: Sequence[Answer]) -> bool:
    """Say whether every turn has its rounds."""
    return all(turn.steps is not None for answer in answers for turn in answer.turns)


class _Run(NamedTuple):
    """One run of a benchmark client: what it asked which model, and all that it wrote."""

    answers: tuple[Answer, ...]
    model: str
    values: Mapping[str, Any]


def _run(record: Record, notes: Notes) -> _Run:
    values = record.values
    inputs = reading.listed(values, "input_lens")
    count = len(inputs)
    if not 1 <= count <= MOST_REQUESTS:
        raise BadRecord(f"'input_lens' has {count} entries")
    outputs = reading.listed(values, "output_lens", count)
    ttfts = reading.listed(values, "ttfts", count)
    gaps = reading.listed(values, "itls", count)
    errors = reading.listed(values, "errors", count) if "errors" in values else [""] * count
    texts = (
        reading.listed(values, "generated_texts", count)
        if "generated_texts" in values
        else [None] * count
    )
    model = values.get("model_id")
    answers = tuple(
        _of_run(at, inputs[at], outputs[at], ttfts[at], gaps[at], errors[at], texts[at], notes)
        for at in range(count)
    )
    name = reading.as_text(model, "'model_id'") if isinstance(model, str) else ""
    return _Run(answers, name, values)


def _of_run(
    at: int, prompt: Any, output: Any, ttft: Any, gaps: Any, error: Any, text: Any, notes: Notes
) -> Answer:
    about = (f"{at:06d}", 0, "", 0.0)
    if error:
        return Answer(
            *about, (), reading.as_text(error, f"errors[{at}]").strip()[-_LONGEST_REASON:]
        )
    tokens = reading.whole(output, f"output_lens[{at}]", 0, reading.MOST_TOKENS)
    if tokens == 0:
        return Answer(*about, (), "the server generated no token")
    if not isinstance(gaps, list):
        raise BadRecord(f"itls[{at}] is no list but {reading.shown(gaps)}")
    most = reading.LONGEST_SECONDS
    first = reading.checked(ttft, f"ttfts[{at}]", 0, most)
    after = sum(reading.checked(gap, f"itls[{at}]", 0, most) for gap in gaps)
    if first + after <= 0:
        raise BadRecord(f"request {at} took no time")
    prefill = reading.nanoseconds(first)
    if first == 0:
        notes.add("A time to first token of 0 is read as not recorded", "request")
    turn = Turn(
        new_tokens=tokens,
        total_ns=reading.nanoseconds(first + after),
        text=None if text is None else reading.as_text(text, f"generated_texts[{at}]"),
        prefill_ns=prefill if first else None,
        decode_ns=reading.nanoseconds(after) if first else None,
        prompt_tokens=reading.whole(prompt, f"input_lens[{at}]", 0, reading.MOST_TOKENS),
    )
    return Answer(*about, (turn,))


def _request(record: Record, notes: Notes) -> tuple[int, str, str, Answer]:
    """Return turn, conversation, session and measurement of one AIPerf record."""
    about = record.values.get("metadata")
    metrics = record.values.get("metrics")
    if not isinstance(about, dict) or not isinstance(metrics, dict):
        raise BadRecord("it lacks 'metadata' or 'metrics'")
    conversation = reading.identifier(
        about, "conversation_id" if about.get("conversation_id") is not None else "session_num"
    )
    correlation = about.get("x_correlation_id")
    session = conversation if correlation is None else str(correlation)
    turn = reading.whole(about.get("turn_index", 0), "'turn_index'", 0, 100_000)
    started = reading.checked(about.get("request_start_ns", 0), "'request_start_ns'", 0, 1e20)
    identity = (conversation, 0, "", started / 1e9)
    if record.values.get("error"):
        error = record.values["error"]
        message = error.get("message") if isinstance(error, dict) else error
        reason = reading.as_text(str(message), "'error'")[:_LONGEST_REASON]
        return turn, conversation, session, Answer(*identity, (), reason)
    total = _metric(metrics, "request_latency", reading.LONGEST_SECONDS * 1e3)
    tokens = reading.whole(
        _metric(metrics, "output_sequence_length", reading.MOST_TOKENS),
        "'output_sequence_length'",
        1,
        reading.MOST_TOKENS,
    )
    if total <= 0:
        raise BadRecord(f"'request_latency' is {total:g}")
    first = (
        _metric(metrics, "time_to_first_token", reading.LONGEST_SECONDS * 1e3)
        if "time_to_first_token" in metrics
        else None
    )
    if first is not None and first > total:
        raise BadRecord("'time_to_first_token' is longer than 'request_latency'")
    rounds = speculation.of_vllm(record.values.get("spec_decode_acceptance"), tokens, notes)
    measured = Turn(
        new_tokens=tokens,
        total_ns=round(total * 1e6),
        steps=rounds.steps if rounds else None,
        prefill_tokens=rounds.prefill_tokens if rounds else 0,
        prefill_forwards=1 if rounds else None,
        prefill_ns=None if first is None else round(first * 1e6),
        decode_ns=None if first is None else round((total - first) * 1e6),
    )
    return turn, conversation, session, Answer(*identity, (measured,))


def _metric(metrics: Mapping[str, Any], name: str, most: float) -> float:
    found = metrics.get(name)
    if not isinstance(found, dict):
        raise BadRecord(f"the metric '{name}' is missing")
    unit = found.get("unit")
    if unit not in ("ms", "tokens"):
        raise BadRecord(f"the unit of '{name}' is {reading.shown(unit)}")
    return reading.checked(found.get("value"), f"'{name}'", 0, most)


def _concurrent(values: Mapping[str, Any]) -> bool:
    return values.get("max_concurrency") != 1


def _load(values: Mapping[str, Any]) -> str:
    """Return how a client sent its requests, in words; empty where it does not say."""
    parts = []
    most = values.get("max_concurrency")
    if isinstance(most, int):
        parts.append(f"concurrency {most}")
    rate = values.get("request_rate")
    if isinstance(rate, (int, float, str)) and str(rate) not in ("inf", ""):
        parts.append(f"{rate} requests/s")
    return ", ".join(parts)


def _totals(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run says of its speculative decoding as a whole."""
    return {key: values[key] for key in _SPECULATIVE if _plain(values.get(key))}


def _plain(value: Any) -> bool:
    items: Sequence[Any] = value if isinstance(value, list) else [value]
    return all(
        isinstance(item, (int, float)) and not isinstance(item, bool) and abs(item) < 1e15
        for item in items
    )


READERS: dict[str, Callable[[Document, str, bool], Source]] = {
    "vllm_bench": read_runs,
    "sglang_bench": read_runs,
    "aiperf": read_aiperf,
}
"""Readers by format name."""
