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

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from specbench.importing import reading, speculation
from specbench.importing.reading import BadRecord, Document, Record
from specbench.importing.records import Answer, Label, Notes, Source, Turn
from specbench.importing.speculation import Rounds

_IDS = ("custom_id", "question_id", "request_id")
_NO_TIMES = (
    "the response carries no times: llama.cpp's server writes `timings`, Groq `usage.total_time`, "
    "vLLM `metrics` (--enable-per-request-metrics); for other servers import their benchmark "
    "client's output"
)


class _Times(NamedTuple):
    """What a server says of one response.

    Attributes:
        tokens: Generated tokens.
        prompt_tokens: Tokens of the prompt.
        prefill_ns: Nanoseconds over the prompt, or None.
        decode_ns: Nanoseconds of generation, or None.
        total_ns: Both together, or None where there are no times at all.
        drafted: Draft tokens, or None.
        accepted: Accepted ones, or None.
        rounds: The verification rounds, or None.
    """

    tokens: int
    prompt_tokens: int | None
    prefill_ns: int | None
    decode_ns: int | None
    total_ns: int | None
    drafted: int | None = None
    accepted: int | None = None
    rounds: Rounds | None = None


class _Read(NamedTuple):
    answer: Answer
    model: str
    times: _Times


def looks_like(record: Mapping[str, Any]) -> str | None:
    """Return "openai_chat" or "sglang_generate" if a line is such a response, else None."""
    body = _body(record)
    about = body.get("meta_info")
    if isinstance(about, dict) and "completion_tokens" in about:
        return "sglang_generate"
    found = isinstance(body.get("choices"), list) and isinstance(body.get("usage"), dict)
    timed = isinstance(body.get("timings"), dict)
    return "openai_chat" if found or timed else None


def read(document: Document, format_name: str, skip_bad: bool = False) -> Source:
    """Read a log of chat completions.

    Args:
        document: Its decoded lines.
        format_name: "openai_chat" or "sglang_generate".
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
    times = [line.times for line in lines]
    if any(each.total_ns is not None for each in times):
        notes.add("Times are the server's own, without the network")
    if any(each.prefill_ns is not None for each in times):
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
            *_unknown_of(times),
            "Time is not divided into draft, target and host.",
            "Token ids and memory are not recorded.",
        ),
        totals=totals,
    )


def _unknown_of(times: Sequence[_Times]) -> tuple[str, ...]:
    """Return sentences on what the responses do not record of rounds and times."""
    steps = [step for each in times for step in (each.rounds.steps if each.rounds else ())]
    said = []
    if any(each.rounds is None for each in times) or any(s.accepted is None for s in steps):
        said.append("What each round accepted and proposed is not recorded.")
    elif any(step.proposed is None for step in steps):
        said.append("What each round proposed is not recorded.")
    if all(each.total_ns is None for each in times):
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
    times = _times(body, notes)
    named = next((key for key in _IDS if record.values.get(key) is not None), None)
    if named is None:
        notes.add("No id of a request: its line is its id", "response")
        sample_id = f"{record.line:06d}"
    else:
        sample_id = reading.identifier(record.values, named)
    turn = Turn(
        new_tokens=times.tokens,
        total_ns=times.total_ns,
        text=_text(body),
        steps=times.rounds.steps if times.rounds else None,
        prefill_tokens=times.rounds.prefill_tokens if times.rounds else 0,
        prefill_forwards=1 if times.rounds else None,
        prefill_ns=times.prefill_ns,
        decode_ns=times.decode_ns,
        prompt_tokens=times.prompt_tokens,
    )
    created = reading.checked(body.get("created", 0), "'created'", 0, 1e11)
    answer = Answer(sample_id, 0, "", float(created), (turn,))
    return _Read(answer, reading.text_or(body, "model"), times)


def _times(body: Mapping[str, Any], notes: Notes) -> _Times:
    about = body.get("meta_info")
    if isinstance(about, dict):
        return _of_sglang(about, notes)
    usage = body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    timings = body.get("timings")
    if isinstance(timings, dict):
        return _of_llama_cpp(timings)
    metrics = body.get("metrics")
    if isinstance(metrics, dict) and "generation_time_ms" in metrics:
        return _of_vllm(usage, metrics, notes)
    extra = body.get("sglext")
    details = extra.get("spec_tokens_details") if isinstance(extra, dict) else None
    if "completion_time" not in usage and isinstance(details, dict):
        tokens = _tokens(usage)
        rounds = speculation.of_sglang(details, tokens, notes)
        return _Times(tokens, _prompt(usage), None, None, None, rounds=rounds)
    if "completion_time" not in usage:
        raise BadRecord(_NO_TIMES)
    most = reading.LONGEST_SECONDS
    prefill = reading.checked(usage.get("prompt_time", 0), "'prompt_time'", 0, most)
    decode = reading.number(usage, "completion_time", 0, most)
    return _taking(
        _tokens(usage),
        _prompt(usage),
        reading.nanoseconds(prefill),
        reading.nanoseconds(decode),
    )


def _tokens(usage: Mapping[str, Any]) -> int:
    return reading.whole(
        usage.get("completion_tokens"), "'completion_tokens'", 1, reading.MOST_TOKENS
    )


def _prompt(usage: Mapping[str, Any]) -> int:
    return reading.whole(usage.get("prompt_tokens"), "'prompt_tokens'", 0, reading.MOST_TOKENS)


def _of_vllm(usage: Mapping[str, Any], metrics: Mapping[str, Any], notes: Notes) -> _Times:
    """Read vLLM's `metrics`: to the first token (queue included), and from there to the last."""
    most = reading.LONGEST_SECONDS * 1e3
    tokens = _tokens(usage)
    first = reading.number(metrics, "time_to_first_token_ms", 0, most)
    after = reading.number(metrics, "generation_time_ms", 0, most)
    notes.add("'generation_time_ms' is read as the time from the first token to the last")
    times = _taking(tokens, _prompt(usage), round(first * 1e6), round(after * 1e6))
    said = metrics.get("speculative_decoding")
    return times._replace(rounds=speculation.of_vllm(said, tokens, notes))


def _of_sglang(about: Mapping[str, Any], notes: Notes) -> _Times:
    """Read `meta_info` of SGLang's `/generate`, which times a request as a whole."""
    tokens, prompt = _tokens(about), _prompt(about)
    seconds = reading.number(about, "e2e_latency", 0, reading.LONGEST_SECONDS)
    if seconds <= 0:
        raise BadRecord("the response took no time")
    rounds = speculation.of_sglang(about, tokens, notes)
    return _Times(tokens, prompt, None, None, reading.nanoseconds(seconds), rounds=rounds)


def _of_llama_cpp(timings: Mapping[str, Any]) -> _Times:
    most = reading.LONGEST_SECONDS * 1e3
    tokens = reading.whole(timings.get("predicted_n"), "'predicted_n'", 1, reading.MOST_TOKENS)
    times = _taking(
        tokens,
        None,
        round(reading.number(timings, "prompt_ms", 0, most) * 1e6),
        round(reading.number(timings, "predicted_ms", 0, most) * 1e6),
    )
    if "draft_n" not in timings:
        return times
    drafted = reading.whole(timings["draft_n"], "'draft_n'", 0, reading.MOST_TOKENS)
    accepted = reading.whole(timings.get("draft_n_accepted", 0), "'draft_n_accepted'", 0, drafted)
    rounds = speculation.of_totals(tokens, accepted)
    return times._replace(drafted=drafted, accepted=accepted, rounds=rounds)


def _taking(tokens: int, prompt: int | None, prefill_ns: int, decode_ns: int) -> _Times:
    if prefill_ns + decode_ns <= 0:
        raise BadRecord("the response took no time")
    return _Times(tokens, prompt, prefill_ns, decode_ns, prefill_ns + decode_ns)


def _text(body: Mapping[str, Any]) -> str | None:
    """Return the text of the only choice, or None where it is not logged."""
    if isinstance(body.get("text"), str):
        return reading.as_text(body["text"], "'text'")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        return None
    if len(choices) > 1:
        raise BadRecord(f"it has {len(choices)} choices, which share one time")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    return None if content is None else reading.as_text(content, "'content'")
