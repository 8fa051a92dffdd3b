"""Logs of responses in which a server wrote its times, or what it accepted.

OpenAI's API itself has no times. llama.cpp's server adds `timings` (milliseconds of prompt and
prediction, and how many tokens it drafted and accepted), Groq adds `prompt_time` and
`completion_time` in seconds to `usage`, vLLM `metrics` (--enable-per-request-metrics and
--per-request-spec-decode-metrics). SGLang's `/generate` answers with `meta_info`, its chat
completions with `sglext`, which has rounds and no times.

A line is a response, or an object with the response under `response` (its `body` in files of
OpenAI's batch API) and an id of the request under `custom_id`, `question_id` or `id`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from specbench.importing.documents import Document, Record, read_each
from specbench.importing.fields import (
    BadRecord,
    Count,
    Date,
    Fields,
    Id,
    Milliseconds,
    Seconds,
    Some,
    Text,
    nanoseconds,
    one,
)
from specbench.importing.records import Answer, Label, Notes, Published, Turn
from specbench.importing.speculation import with_accepted_total, with_rounds

_IDS = ("custom_id", "question_id", "request_id")
_NO_TIMES = (
    "the response carries no times: llama.cpp's server writes `timings`, Groq `usage.total_time`, "
    "vLLM `metrics` (--enable-per-request-metrics); for other servers import their benchmark "
    "client's output"
)


class _Usage(Fields):
    completion_tokens: Some
    prompt_tokens: Count


class _GroqUsage(_Usage):
    prompt_time: Seconds = 0.0
    completion_time: Seconds


class _SglangInfo(_Usage):
    """`meta_info` of `/generate`, which times a request as a whole."""

    e2e_latency: Seconds


class _VllmMetrics(Fields):
    """Times to the first token (queue included), and from there to the last."""

    time_to_first_token_ms: Milliseconds
    generation_time_ms: Milliseconds


class _LlamaTimings(Fields):
    predicted_n: Some
    prompt_ms: Milliseconds
    predicted_ms: Milliseconds
    draft_n: Count | None = None
    draft_n_accepted: Count = 0


class _Body(Fields):
    created: Date = 0.0
    model: Text | None = None


class _Read(NamedTuple):
    answer: Answer
    model: str | None
    drafted: int | None
    accepted: int


def looks_like(record: Mapping[str, Any]) -> str | None:
    """Return "openai_chat" or "sglang_generate" if a line is such a response, else None."""
    body = _body(record)
    about = body.get("meta_info")
    if isinstance(about, dict) and "completion_tokens" in about:
        return "sglang_generate"
    found = isinstance(body.get("choices"), list) and isinstance(body.get("usage"), dict)
    timed = isinstance(body.get("timings"), dict)
    return "openai_chat" if found or timed else None


def read(document: Document, format_name: str, skip_bad: bool = False) -> Published:
    """Read a log of chat completions.

    Raises:
        ResultsError: If a line cannot be read.
    """
    notes = Notes()
    lines = read_each(document, lambda record: _line(record, notes), skip_bad, notes)
    repeats: Counter[str] = Counter()
    answers = []
    for line in lines:
        answers.append(replace(line.answer, repeat=repeats[line.answer.sample_id]))
        repeats[line.answer.sample_id] += 1
    turns = [answer.turns[0] for answer in answers]
    if any(turn.total_ns is not None for turn in turns):
        notes.add("Times are the server's own, without the network")
    if any(turn.prefill_ns is not None for turn in turns):
        notes.add("The time of the first token is read as the time over the prompt")
    models = {line.model for line in lines if line.model}
    drafted = [line for line in lines if line.drafted is not None]
    return Published(
        path=document.path,
        sha256=document.sha256,
        format=format_name,
        label=Label(model=models.pop() if len(models) == 1 else None),
        answers=tuple(answers),
        plain=None,
        odd=notes.sentences(),
        unknown=(
            *(() if max(repeats.values()) > 1 else ("Every question was measured once.",)),
            *_unknown_of(turns),
            "Time is not divided into draft, target and host.",
            "Token ids and memory are not recorded.",
        ),
        totals={
            "draft_tokens": sum(line.drafted or 0 for line in drafted),
            "accepted_tokens": sum(line.accepted for line in drafted),
        }
        if drafted
        else {},
    )


def _unknown_of(turns: Sequence[Turn]) -> tuple[str, ...]:
    """Return sentences on what the responses do not record of rounds and times."""
    rounds = [each for turn in turns for each in turn.rounds or ()]
    said = []
    if any(turn.rounds is None for turn in turns) or any(each.accepted is None for each in rounds):
        said.append("What each round accepted and proposed is not recorded.")
    elif any(each.proposed is None for each in rounds):
        said.append("What each round proposed is not recorded.")
    if all(turn.total_ns is None for turn in turns):
        said.append("Times are not recorded: no speedup can be formed.")
    return tuple(said)


def _body(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the response of a line, wherever it stands."""
    response = record.get("response")
    if not isinstance(response, dict):
        return record
    body = response.get("body")
    return body if isinstance(body, dict) else response


def _line(record: Record, notes: Notes) -> _Read:
    body = _body(record.values)
    if not {"usage", "timings", "meta_info"} & set(body):
        raise BadRecord("it is no response of a chat completion: it has neither usage nor timings")
    turn, timings = _timed(body, _text(body), notes)
    named = next((key for key in _IDS if record.values.get(key) is not None), None)
    if named is None:
        notes.add("No id of a request: its line is its id", "response")
        sample_id = f"{record.line:06d}"
    else:
        sample_id = one(Id, record.values[named], named)
    about = _Body.of(body)
    answer = Answer(sample_id, 0, "", about.created, (turn,))
    if timings is None:
        return _Read(answer, about.model, None, 0)
    return _Read(answer, about.model, timings.draft_n, timings.draft_n_accepted)


def _timed(
    body: Mapping[str, Any], text: str | None, notes: Notes
) -> tuple[Turn, _LlamaTimings | None]:
    """Return the generation of a response; with llama.cpp's own account where it is one's."""
    about, timings, metrics = (body.get(key) for key in ("meta_info", "timings", "metrics"))
    if isinstance(about, dict):
        info = _SglangInfo.of(about)
        total = nanoseconds(info.e2e_latency)
        turn = Turn(info.completion_tokens, total, text, prompt_tokens=info.prompt_tokens)
        return with_rounds(_took_time(turn), about, notes), None
    usage = body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    if isinstance(timings, dict):
        times = _LlamaTimings.of(timings)
        spent = (round(1e6 * times.prompt_ms), round(1e6 * times.predicted_ms))
        turn = _turn(times.predicted_n, None, text, *spent)
        if times.draft_n is None:
            return turn, times
        if times.draft_n_accepted > times.draft_n:
            raise BadRecord(f"'draft_n_accepted' is beyond 'draft_n', {times.draft_n}")
        return with_accepted_total(turn, times.draft_n_accepted), times
    if isinstance(metrics, dict) and "generation_time_ms" in metrics:
        notes.add("'generation_time_ms' is read as the time from the first token to the last")
        counts, took = _Usage.of(usage), _VllmMetrics.of(metrics)
        spent = (round(1e6 * took.time_to_first_token_ms), round(1e6 * took.generation_time_ms))
        turn = _turn(counts.completion_tokens, counts.prompt_tokens, text, *spent)
        return with_rounds(turn, metrics.get("speculative_decoding"), notes), None
    if "completion_time" in usage:
        groq = _GroqUsage.of(usage)
        spent = (nanoseconds(groq.prompt_time), nanoseconds(groq.completion_time))
        return _turn(groq.completion_tokens, groq.prompt_tokens, text, *spent), None
    extra = body.get("sglext")
    details = extra.get("spec_tokens_details") if isinstance(extra, dict) else None
    if not isinstance(details, dict):
        raise BadRecord(_NO_TIMES)
    counts = _Usage.of(usage)
    turn = Turn(counts.completion_tokens, None, text, prompt_tokens=counts.prompt_tokens)
    return with_rounds(turn, details, notes), None


def _turn(tokens: int, prompt: int | None, text: str | None, prefill: int, decode: int) -> Turn:
    """Return a generation that took some nanoseconds over its prompt, and some behind it."""
    return _took_time(
        Turn(
            tokens,
            prefill + decode,
            text,
            prefill_ns=prefill,
            decode_ns=decode,
            prompt_tokens=prompt,
        )
    )


def _took_time(turn: Turn) -> Turn:
    if not turn.total_ns:
        raise BadRecord("the response took no time")
    return turn


def _text(body: Mapping[str, Any]) -> str | None:
    """Return the text of the only choice, or None where it is not logged."""
    if isinstance(body.get("text"), str):
        return str(one(Text, body["text"], "text"))
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        return None
    if len(choices) > 1:
        raise BadRecord(f"it has {len(choices)} choices, which share one time")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    return None if content is None else str(one(Text, content, "content"))
