"""What a task's YAML file says: where samples come from, how they are asked, what scores them."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictStr, model_validator
from pydantic.dataclasses import dataclass

from specbench.schema import catalog
from specbench.schema.group import Group, Keys, Text, Whole, Words, problem, refused

RowFormat = Literal[
    "specbench",
    "gsm8k",
    "humaneval",
    "mt_bench",
    "spec_bench",
    "geneval",
    "coco_captions",
    "coco_longest",
    "class_id",
]
"""Row formats of official files; `specbench.tasks.formats` reads them."""

Style = Literal["auto", "chat", "completion"]

DATE = "2024-07-26"
"""The date that chat templates are told: the one that Llama 3.1's own template falls back to."""

_KEYS = {
    "file": ("format", "file", "sha256"),
    "hub": ("format", "dataset", "config", "split", "revision", "shots_split"),
    "url": ("format", "dataset", "url", "revision", "sha256"),
    "classes": ("format", "classes"),
    "worlds": ("seed", "count"),
    "mix": ("tasks",),
}
"""Keys of a source by its kind."""

_NEEDED = {
    "file": ("file",),
    "hub": ("dataset", "split"),
    "url": ("dataset", "url", "sha256"),
    "classes": ("classes",),
    "worlds": ("count",),
    "mix": ("tasks",),
}


@dataclass(frozen=True)
class SourceConfig(Group):
    """Where samples come from.

    Attributes:
        kind: "file" (shipped with the project), "hub" (through `datasets`), "url" (the official
            file, where the benchmark is one and on no hub), "classes" (nothing but class ids),
            "worlds" (prompts of the embedded worlds to train on, drawn here) or "mix".
        format: The row format.
        file: Name of a file in the project's task folder.
        sha256: Digest that the file must have, or None.
        dataset: Data set on the hub, or the repository of the official file.
        config: The data set's configuration.
        split: The data set's split.
        revision: The pinned revision, or a branch.
        url: Address of the official file; it is kept in the cache under its digest.
        shots_split: The split that worked examples are taken from.
        classes: Number of classes, whose ids count from 0.
        seed: Of the worlds' prompts.
        count: How many of them.
        tasks: The tasks that a mix is made of.
    """

    kind: Literal["file", "hub", "url", "classes", "worlds", "mix"]
    format: RowFormat = "specbench"
    file: Text | None = None
    sha256: Text | None = None
    dataset: Text | None = None
    config: Text | None = None
    split: Text | None = None
    revision: Text | None = None
    url: Text | None = None
    shots_split: Text | None = None
    classes: Annotated[Whole, Field(ge=0)] = 0
    seed: Annotated[Whole, Field(ge=0)] = 0
    count: Annotated[Whole, Field(ge=0)] = 0
    tasks: Words = ()

    @classmethod
    def keys_of(cls, values: Mapping[Any, Any]) -> Collection[str]:
        """Return the keys of a source of this kind."""
        kind = values.get("kind")
        own = _KEYS.get(kind) if isinstance(kind, str) else None
        return super().keys_of(values) if own is None else ["kind", *own]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for key in _NEEDED[self.kind]:
            if not getattr(self, key):
                whole = "a whole number of at least 1"
                words = {"tasks": "a list of task names", "classes": whole, "count": whole}
                raise refused(key, getattr(self, key), words.get(key, "a text"))
        return self


def _template(value: str) -> str:
    if "{question}" not in value:
        raise ValueError
    return value


def _day(value: str) -> str:
    datetime.date.fromisoformat(value)
    return value


Template = Annotated[
    Text, AfterValidator(_template), Field(description="a text that contains {question}")
]


@dataclass(frozen=True)
class PromptFormat(Group):
    """How a user message becomes a prompt.

    Attributes:
        style: "chat" uses the tokenizer's chat template, "completion" plain text, "auto" chat
            where the tokenizer has a template and completion elsewhere.
        system: System message of a chat, or None.
        template: User message of a chat; `{question}` stands for the turn.
        completion: Plain-text prompt of one turn; `{question}` stands for the turn.
        separator: Plain text between an answer and the next turn.
        answer_prefix: Text that begins the answer, tokenised apart from the prompt.
        chat_template_args: Further variables of the tokenizer's chat template.
        thinking: Whether the chat template switches the model's reasoning on; None leaves that
            to the template.
        date: The day that templates print, year-month-day.
    """

    style: Style = "auto"
    system: Text | None = None
    template: Template = "{question}"
    completion: Template = "{question}"
    separator: Text = "\n\n"
    answer_prefix: StrictStr = ""
    chat_template_args: Keys = field(default_factory=dict)
    thinking: StrictBool | None = None
    date: Annotated[Text, AfterValidator(_day), Field(description="a day such as 2024-07-26")] = (
        DATE
    )


@dataclass(frozen=True)
class TaskConfig(Group):
    """One entry of `conf/task`.

    Attributes:
        name: Its id.
        title: Its name for people.
        summary: One sentence for `specbench show`.
        version: The protocol's version.
        paper: Where the benchmark was published.
        licence: Of the data.
        source: Where samples come from.
        path: A local file in the benchmark's official format instead, or None.
        limit: Number of samples, or None for all.
        shots: Worked examples before each question.
        shots_path: A local file to take the worked examples from, or None.
        category: Keep only samples of these categories or groups; empty keeps all.
        prompt: How turns become prompts.
        stop: Stop strings in either style.
        completion_stop: Stop strings in completion style.
        max_new_tokens: The benchmark's own limit, per turn; None for pictures, whose grid of
            tokens the model decides.
        scorer: Node with a `_target_`, or None.
        modality: What answers the prompts.
        images: Pictures of each prompt.
        metrics: Measures of the pictures where the command names none; see `conf/metric/`.
        references: Node that makes the real pictures of samples, or None; see
            `specbench show task NAME --sample`.
        node: The keys as they were written, which a job's identity holds.
    """

    key_path = "task"

    name: Text
    title: Text
    version: Annotated[Whole, Field(ge=1)]
    licence: Text
    source: SourceConfig
    max_new_tokens: Annotated[Whole, Field(ge=1)] | None = None
    summary: StrictStr = ""
    paper: StrictStr = ""
    path: Text | None = None
    limit: Annotated[Whole, Field(ge=1)] | None = None
    shots: Annotated[Whole, Field(ge=0)] = 0
    shots_path: Text | None = None
    category: Annotated[
        Words, BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
    ] = ()
    prompt: PromptFormat = PromptFormat()
    stop: Words = ()
    completion_stop: Words = ()
    scorer: Keys | None = None
    modality: Literal["text", "image"] = "text"
    images: Annotated[Whole, Field(ge=1)] = 1
    metrics: Words = ()
    references: Keys | None = None
    node: Keys = field(default_factory=dict)

    @classmethod
    def named(cls, name: str) -> TaskConfig:
        """Return the project's own entry of that name.

        Raises:
            ConfigError: If there is none.
        """
        return cls.from_dict(catalog.load("task", name))

    @classmethod
    def keys_of(cls, values: Mapping[Any, Any]) -> Collection[str]:
        """Return the fields that a file may state."""
        return [key for key in super().keys_of(values) if key != "node"]

    @classmethod
    def prepared(cls, values: dict[Any, Any]) -> dict[Any, Any]:
        """Keep what was written."""
        return {**values, "node": values}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.scorer and "_target_" not in self.scorer:
            raise problem(
                "'{path}.scorer' names no class",
                "a scorer is a group of keys with a _target_",
                "Set {path}.scorer._target_=specbench.tasks.scorers.ExactMatch, or "
                "{path}.scorer=null.",
            )
        if self.modality == "text":
            if self.max_new_tokens is None:
                raise refused("max_new_tokens", None, "a whole number of at least 1")
            if self.images > 1:
                raise refused("images", self.images, "1 for a task of text")
            if self.metrics:
                raise refused("metrics", list(self.metrics), "empty for a task of text")
        return self
