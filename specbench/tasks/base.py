"""What a task is: samples, the way they are asked, and the way answers are scored.

Free of torch and of any tokenizer, so that listing and checking tasks costs nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol

from specbench.schema.task import DATE, PromptFormat
from specbench.secrets import scrub


@dataclass(frozen=True)
class Sample:
    """One conversation to be answered.

    Attributes:
        id: Unique within the task, such as "gsm8k/17".
        category: The finest class that the benchmark states, or the task's own name.
        turns: User messages in order, before any template; most tasks have one.
        reference: JSON-like value that the scorer needs, or None.
        few_shot: Worked (user, assistant) pairs set before the first turn, before any template.
        group: The class that the benchmark's authors report by; the category where there is none.
    """

    id: str
    category: str
    turns: tuple[str, ...]
    reference: Any
    few_shot: tuple[tuple[str, str], ...] = ()
    group: str = ""

    def __post_init__(self) -> None:
        """Hide secrets in the names, which results carry; the group defaults to the category."""
        names = scrub([self.id, self.category, self.group or self.category])
        for name, shown in zip(("id", "category", "group"), names, strict=True):
            object.__setattr__(self, name, shown)


class Score(NamedTuple):
    """What a scorer says about one answer.

    Attributes:
        value: From 0 to 1, or None where the sample cannot be scored.
        detail: One line for people: the extracted answer, or the sandbox's verdict.
    """

    value: float | None
    detail: str


class Scorer(Protocol):
    """Grades one conversation. Must survive any answer text, and be safe in threads."""

    @property
    def name(self) -> str:
        """The metric's name, such as "exact_match"."""

    @property
    def version(self) -> int:
        """Moves whenever the same answer may get another score."""

    def score(self, sample: Sample, answers: Sequence[str]) -> Score:
        """Score the answers to a sample's turns, in order."""


@dataclass(frozen=True)
class Task:
    """A benchmark that is ready to run.

    Attributes:
        name: Its id.
        title: Its name for people.
        version: Moves whenever prompts, stops or answers' meaning change.
        samples: What is asked, in order, after category filter and limit.
        digest: SHA-256 over version, prompt format, stop strings and all samples of the source
            with their worked examples, *before* filter, limit and further pictures of a prompt:
            two runs of one task under different limits have equal digests and can be paired by
            sample id.
        prompt: How turns become prompts.
        stop: Strings that end an answer in either style, beside the tokenizer's end of text.
        completion_stop: Strings that end an answer in completion style only.
        max_new_tokens: The benchmark's own limit, per turn; None for pictures, whose grid of
            tokens the model decides.
        scorer: Grades answers, or None.
        licence: Of the data.
        source: Where the samples came from, for provenance.
    """

    name: str
    title: str
    version: int
    samples: tuple[Sample, ...]
    digest: str
    prompt: PromptFormat
    stop: tuple[str, ...]
    completion_stop: tuple[str, ...]
    max_new_tokens: int | None
    scorer: Scorer | None
    licence: str
    source: str

    def scorer_of(self, sample: Sample) -> Scorer | None:
        """Return the scorer of one sample: a mixed task has one for each category."""
        choose = getattr(self.scorer, "for_sample", None)
        chosen: Scorer | None = self.scorer if choose is None else choose(sample)
        return chosen

    def scorers(self) -> tuple[Scorer, ...]:
        """Return every scorer that a sample of this task may have, each name once."""
        found = {scorer.name: scorer for scorer in map(self.scorer_of, self.samples) if scorer}
        return tuple(found.values())

    def stop_of(self, sample: Sample) -> tuple[str, ...]:
        """Return the strings that end an answer to this sample."""
        return self.stop

    def max_new_tokens_of(self, sample: Sample) -> int | None:
        """Return the benchmark's limit of new tokens for each turn of this sample."""
        return self.max_new_tokens


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a JSON-like value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def sample_digest(sample: Sample) -> str:
    """Return the SHA-256 of everything in one sample."""
    return digest_of({item.name: getattr(sample, item.name) for item in fields(sample)})


def task_digest(
    version: int,
    prompt: PromptFormat,
    stop: Sequence[str],
    completion_stop: Sequence[str],
    samples: Sequence[Sample],
) -> str:
    """Return the digest that `Task.digest` describes."""
    form = {item.name: getattr(prompt, item.name) for item in fields(prompt)}
    form["chat_template_args"] = dict(prompt.chat_template_args)
    for name, default in (("thinking", None), ("date", DATE)):  # younger than the first digests
        if form[name] == default:
            del form[name]
    digests = [sample_digest(sample) for sample in samples]
    return digest_of([version, form, list(stop), list(completion_stop), digests])
