"""Logs of chat completions in the shape of OpenAI's API, where the server added its times.

The API itself has no times. llama.cpp's server adds `timings` (milliseconds of prompt and
prediction, and how many tokens it drafted and accepted), Groq adds `prompt_time` and
`completion_time` in seconds to `usage`. vLLM, SGLang and OpenAI add nothing to a response; their
benchmark clients measure instead (see `serving`).

A line is a response, or an object with the response under `response` (its `body` in files of
OpenAI's batch API) and an id of the request under `custom_id`, `question_id` or `id`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from specbench.importing import reading
from specbench.importing.reading import BadRecord, Document, Record
from specbench.importing.records import Answer, Label, Notes, Source, Turn

_IDS = ("custom_id", "question_id", "request_id")
_NO_TIMES = (
    "the response carries no times: llama.cpp's server writes `timings`, Groq `usage.total_time`; "
    "for other servers import their benchmark client's output"
)


class _Times(NamedTuple):
    """What a server says of one response.

    Attributes:
        tokens: Generated tokens.
        prompt_tokens: Tokens of the prompt.
        prefill_ns: Nanoseconds over the prompt.
        decode_ns: Nanoseconds of generation.
        drafted: Draft tokens, or None.
        accepted: Accepted ones, or None.
    """

    tokens: int
    prompt_tokens: int | None
    prefill_ns: int
    decode_ns: int
    drafted: int | None = None
    accepted: int | None = None


class _Read(NamedTuple):
    answer: Answer
    model: str
    times: _Times


def looks_like(record: Mapping[str, Any]) -> str | None:
    """Return "openai_chat" if a line is a chat completion, else None."""
    body = _body(record)
    found = isinstance(body.get("choices"), list) and isinstance(body.get("usage"), dict)
    timed = isinstance(body.get("timings"), dict)
    return "openai_chat" if found or timed else None


def read(document: Document, format_name: str, skip_bad: bool = False) -> Source:
    """Read a log of chat completions.

    Args:
        document: Its decoded lines.
        format_name: "openai_chat".
        skip_bad: Whether lines that cannot be read are left out.

    Raises:
        ResultsError: If a line cannot be read.
    """
    notes = Notes()
    repeats: dict[str, int] = {}
    answers: list[Answer] = []

    lines, skipped = reading.read_each(document, lambda record: _line(record, notes), skip_bad)
    for line in lines:
        repeat = repeats.get(line.answer.sample_id, 0)
        repeats[line.answer.sample_id] = repeat + 1
        answers.append(
            Answer(
                line.answer.sample_id,
                repeat,
                "",
                line.answer.started_unix,
                line.answer.turns,
            )
        )
    if skipped:
        notes.add(reading.left_out(skipped))
    notes.add("Times are the server's own: they hold neither network nor queue")
    notes.add("The time of the first token is read as the time over the prompt")
    models = {line.model for line in lines if line.model}
    single = () if max(repeats.values()) > 1 else ("Every question was measured once.",)
    drafted = [line.times for line in lines if line.times.drafted is not None]
    totals = {}
    if drafted:
        totals = {
            "draft_tokens": sum(times.drafted or 0 for times in drafted),
            "accepted_tokens": sum(times.accepted or 0 for times in drafted),
        }
    return Source(
        path=document.path,
        sha256=document.sha256,
        format=format_name,
        label=Label(model=models.pop() if len(models) == 1 else None),
        answers=tuple(answers),
        plain=None,
        odd=notes.sentences(),
        unknown=(
            *single,
            "What each round accepted and proposed is not recorded.",
            "Time is not divided into draft, target and host.",
            "Token ids and memory are not recorded.",
        ),
        totals=totals,
    )


def _body(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the response of a line, wherever it stands."""
    response = record.get("response")
    if not isinstance(response, dict):
        return record
    body = response.get("body")
    return body if isinstance(body, dict) else response


def _line(record: Record, notes: Notes) -> _Read:
    body = _body(record.values)
    if "usage" not in body and "timings" not in body:
        raise BadRecord("it is no response of a chat completion: it has neither usage nor timings")
    times = _times(body)
    named = next((key for key in _IDS if record.values.get(key) is not None), None)
    if named is None:
        notes.add("No id of a request: its line is its id", "response")
        sample_id = f"{record.line:06d}"
    else:
        sample_id = reading.identifier(record.values, named)
    turn = Turn(
        new_tokens=times.tokens,
        total_ns=times.prefill_ns + times.decode_ns,
        text=_text(body),
        prefill_ns=times.prefill_ns,
        decode_ns=times.decode_ns,
        prompt_tokens=times.prompt_tokens,
    )
    created = reading.checked(body.get("created", 0), "'created'", 0, 1e11)
    answer = Answer(sample_id, 0, "", float(created), (turn,))
    return _Read(answer, reading.text_or(body, "model"), times)


def _times(body: Mapping[str, Any]) -> _Times:
    usage = body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    timings = body.get("timings")
    if isinstance(timings, dict):
        return _of_llama_cpp(timings)
    if "completion_time" not in usage:
        raise BadRecord(_NO_TIMES)
    most = reading.LONGEST_SECONDS
    prefill = reading.checked(usage.get("prompt_time", 0), "'prompt_time'", 0, most)
    decode = reading.number(usage, "completion_time", 0, most)
    return _taking_time(
        _Times(
            reading.whole(
                usage.get("completion_tokens"), "'completion_tokens'", 1, reading.MOST_TOKENS
            ),
            reading.whole(usage.get("prompt_tokens"), "'prompt_tokens'", 0, reading.MOST_TOKENS),
            reading.nanoseconds(prefill),
            reading.nanoseconds(decode),
        )
    )


def _of_llama_cpp(timings: Mapping[str, Any]) -> _Times:
    most = reading.LONGEST_SECONDS * 1e3
    tokens = reading.whole(timings.get("predicted_n"), "'predicted_n'", 1, reading.MOST_TOKENS)
    drafted = accepted = None
    if "draft_n" in timings:
        drafted = reading.whole(timings["draft_n"], "'draft_n'", 0, reading.MOST_TOKENS)
        accepted = reading.whole(
            timings.get("draft_n_accepted", 0), "'draft_n_accepted'", 0, drafted
        )
    return _taking_time(
        _Times(
            tokens,
            None,
            round(reading.number(timings, "prompt_ms", 0, most) * 1e6),
            round(reading.number(timings, "predicted_ms", 0, most) * 1e6),
            drafted,
            accepted,
        )
    )


def _taking_time(times: _Times) -> _Times:
    if times.prefill_ns + times.decode_ns <= 0:
        raise BadRecord("the response took no time")
    return times


def _text(body: Mapping[str, Any]) -> str | None:
    """Return the text of the only choice, or None where it is not logged."""
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        return None
    if len(choices) > 1:
        raise BadRecord(f"it has {len(choices)} choices, which share one time")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    return None if content is None else reading.as_text(content, "'content'")
