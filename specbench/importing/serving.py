"""Benchmark clients of inference servers that keep what each request took.

vLLM's `bench serve --save-detailed` writes one JSON object a run, SGLang's `bench_serving
--output-details` one line a run, both with arrays of one entry a request. AIPerf's
`profile_export.jsonl` has one line a request. Their counterparts without details hold totals only
and are refused. What a server accepted is recorded for the whole run at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from specbench.errors import ResultsError
from specbench.importing.documents import Document, Record, read_each
from specbench.importing.fields import (
    BadRecord,
    Count,
    Fields,
    Id,
    Milliseconds,
    Number,
    Seconds,
    Some,
    Text,
    nanoseconds,
    one,
    shown,
)
from specbench.importing.records import Answer, Label, Notes, Published, Turn
from specbench.importing.speculation import with_rounds

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


def read_runs(document: Document, format_name: str, skip_bad: bool = False) -> Published:
    """Read vLLM's or SGLang's runs: a repeat for each object in the file.

    Raises:
        ResultsError: If a run cannot be read.
    """
    notes = Notes()
    runs = read_each(document, lambda record: _run(record, notes), skip_bad, notes)
    models = list(dict.fromkeys(run.model for run in runs))
    if len(models) > 1:
        raise ResultsError(
            f"'{document.path}' holds runs of several models",
            f"the runs of one file are repeats of one another, and these asked "
            f"{', '.join(map(shown, models[:4]))}",
            "Give a file for each model.",
        )
    answers = tuple(
        replace(answer, repeat=repeat) for repeat, run in enumerate(runs) for answer in run.answers
    )
    notes.add(
        "A request's time runs to its last token: its time to first token and the gaps after it"
    )
    if any(record.values.get("max_concurrency") != 1 for record in document.records):
        notes.add(_SHARED)
    single = () if len(runs) > 1 else ("There is one run: no noise floor.",)
    return Published(
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


def read_aiperf(document: Document, format_name: str, skip_bad: bool = False) -> Published:
    """Read AIPerf's records of single requests; the requests of a session are its turns.

    Raises:
        ResultsError: If a line cannot be read.
    """
    notes = Notes()
    requests = read_each(document, lambda record: _request(record, notes), skip_bad, notes)
    sessions: dict[str, list[tuple[int, str, Answer]]] = {}
    for turn, conversation, session, answer in requests:
        sessions.setdefault(session, []).append((turn, conversation, answer))
    repeats: Counter[str] = Counter()
    answers = []
    for session, members in sessions.items():
        members.sort(key=lambda member: member[0])
        turns = [turn for turn, _, _ in members]
        if turns != list(range(len(turns))):
            raise ResultsError(
                f"'{document.path}' holds a broken session",
                f"session {session} has the turns {shown(turns)}",
                "Export the whole run; every session needs each of its turns once.",
            )
        conversation = members[0][1]
        parts = [answer for _, _, answer in members]
        error = next((answer.error for answer in parts if answer.error), None)
        joined = () if error else tuple(turn for answer in parts for turn in answer.turns)
        repeat = repeats[conversation]
        answers.append(replace(parts[0], repeat=repeat, turns=joined, error=error))
        repeats[conversation] += 1
    single = () if max(repeats.values()) > 1 else ("Every question was measured once.",)
    notes.add(_SHARED)
    stepped = all(turn.rounds is not None for answer in answers for turn in answer.turns)
    return Published(
        path=document.path,
        sha256=document.sha256,
        format=format_name,
        label=Label(),
        answers=tuple(answers),
        plain=None,
        odd=notes.sentences(),
        unknown=(
            *single,
            *_UNKNOWN[1 if stepped else 0 :],
            "What was generated is not recorded.",
        ),
    )


class _Run(NamedTuple):
    """One run of a benchmark client: what it asked which model, and all that it wrote."""

    answers: tuple[Answer, ...]
    model: str
    values: Mapping[str, Any]


class _Columns(Fields):
    """The arrays of a run: an entry for each request, read where the request succeeded."""

    input_lens: list[Any] = Field(min_length=1, max_length=MOST_REQUESTS)
    output_lens: list[Any]
    ttfts: list[Any]
    itls: list[Any]
    errors: list[Any] | None = None
    generated_texts: list[Any] | None = None


class _Timed(Fields):
    """One request of a run."""

    input_lens: Count
    output_lens: Some
    ttfts: Seconds
    itls: list[Seconds]
    generated_texts: Text | None


def _run(record: Record, notes: Notes) -> _Run:
    values = record.values
    columns = {name: column for name, column in _Columns.of(values) if column is not None}
    count = len(columns["input_lens"])
    for name, column in columns.items():
        if len(column) != count:
            raise BadRecord(f"'{name}' has {len(column)} entries where {count} are needed")
    columns = {"errors": [""] * count, "generated_texts": [None] * count, **columns}
    answers = tuple(
        _of_run(at, {name: column[at] for name, column in columns.items()}, notes)
        for at in range(count)
    )
    named = isinstance(values.get("model_id"), str)
    return _Run(answers, one(Text, values["model_id"], "model_id") if named else "", values)


def _of_run(at: int, values: Mapping[str, Any], notes: Notes) -> Answer:
    about = (f"{at:06d}", 0, "", 0.0)
    if values["errors"]:
        return Answer(*about, (), one(Text, values["errors"], "errors").strip()[-_LONGEST_REASON:])
    if values["output_lens"] == 0:
        return Answer(*about, (), "the server generated no token")
    try:
        request = _Timed.of(values)
    except BadRecord as error:
        raise BadRecord(f"request {at}: {error}") from error
    first, after = request.ttfts, sum(request.itls)
    if first + after <= 0:
        raise BadRecord(f"request {at} took no time")
    if first == 0:
        notes.add("A time to first token of 0 is read as not recorded", "request")
    turn = Turn(
        new_tokens=request.output_lens,
        total_ns=nanoseconds(first + after),
        text=request.generated_texts,
        prefill_ns=nanoseconds(first) if first else None,
        decode_ns=nanoseconds(after) if first else None,
        prompt_tokens=request.input_lens,
    )
    return Answer(*about, (turn,))


class _Time(Fields):
    unit: Literal["ms"]
    value: Milliseconds


class _Length(Fields):
    unit: Literal["tokens"]
    value: Some


class _Metrics(Fields):
    request_latency: _Time
    output_sequence_length: _Length
    time_to_first_token: _Time | None = None


class _Metadata(Fields):
    """Whose request it was."""

    conversation_id: Id | None = None
    session_num: Id | None = None
    x_correlation_id: Any = None
    turn_index: Annotated[Count, Field(le=100_000)] = 0
    request_start_ns: Number = 0.0


def _request(record: Record, notes: Notes) -> tuple[int, str, str, Answer]:
    """Return turn, conversation, session and measurement of one AIPerf record."""
    values = record.values
    if not isinstance(values.get("metadata"), dict) or not isinstance(values.get("metrics"), dict):
        raise BadRecord("it lacks 'metadata' or 'metrics'")
    about = _Metadata.of(values["metadata"])
    conversation = about.conversation_id or about.session_num
    if conversation is None:
        raise BadRecord("'session_num' is missing")
    session = conversation if about.x_correlation_id is None else str(about.x_correlation_id)
    place = (about.turn_index, conversation, session)
    identity = (conversation, 0, "", about.request_start_ns / 1e9)
    if error := values.get("error"):
        message = error.get("message") if isinstance(error, dict) else error
        reason = one(Text, str(message), "error")[:_LONGEST_REASON]
        return *place, Answer(*identity, (), reason)
    metrics = _Metrics.of(values["metrics"])
    total, first = metrics.request_latency.value, metrics.time_to_first_token
    if total <= 0:
        raise BadRecord(f"'request_latency' is {total:g}")
    if first is not None and first.value > total:
        raise BadRecord("'time_to_first_token' is longer than 'request_latency'")
    measured = Turn(
        new_tokens=metrics.output_sequence_length.value,
        total_ns=round(total * 1e6),
        prefill_ns=None if first is None else round(first.value * 1e6),
        decode_ns=None if first is None else round((total - first.value) * 1e6),
    )
    turn = with_rounds(measured, values.get("spec_decode_acceptance"), notes)
    return *place, Answer(*identity, (turn,))


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


READERS: dict[str, Callable[[Document, str, bool], Published]] = {
    "vllm_bench": read_runs,
    "sglang_bench": read_runs,
    "aiperf": read_aiperf,
}
"""Readers by format name."""
