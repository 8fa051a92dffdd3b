"""The typed form of a task's YAML, checked by hand so that a typo names its key."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from specbench.errors import ConfigError
from specbench.schema import catalog
from specbench.schema.reading import Reader
from specbench.tasks.base import DATE, STYLES, PromptFormat
from specbench.tasks.formats import FORMATS

_SOURCE_KEYS = {
    "file": ("kind", "format", "file", "sha256"),
    "hub": (
        "kind",
        "format",
        "dataset",
        "config",
        "split",
        "revision",
        "shots_split",
    ),
    "url": ("kind", "format", "dataset", "url", "revision", "sha256"),
    "classes": ("kind", "format", "classes"),
    "mix": ("kind", "tasks"),
}
MODALITIES = ("text", "image")


@dataclass(frozen=True)
class SourceConfig:
    """Where samples come from.

    Attributes:
        kind: "file" (shipped with the project), "hub" (through `datasets`), "url" (the official
            file, where the benchmark is one and on no hub), "classes" (nothing but class ids) or
            "mix".
        format: Name of the row format, one of `specbench.tasks.formats.FORMATS`.
        file: Name of a file in the project's task folder.
        sha256: Digest that the file must have, or None.
        dataset: Data set on the hub, or the repository of the official file.
        config: The data set's configuration.
        split: The data set's split.
        revision: The pinned revision, or a branch.
        url: Address of the official file; it is kept in the cache under its digest.
        shots_split: The split that worked examples are taken from.
        classes: Number of classes, whose ids count from 0.
        tasks: The tasks that a mix is made of.
    """

    kind: str
    format: str = "specbench"
    file: str | None = None
    sha256: str | None = None
    dataset: str | None = None
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    url: str | None = None
    shots_split: str | None = None
    classes: int = 0
    tasks: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, node: Mapping[str, Any]) -> SourceConfig:
        """Validate the `task.source` node.

        Raises:
            ConfigError: If a key is unknown, missing or of a wrong value.
        """
        kind = Reader({"kind": node.get("kind")}, "task.source", ["kind"]).choice(
            "kind", tuple(_SOURCE_KEYS)
        )
        reader = Reader(node, "task.source", _SOURCE_KEYS[kind])
        if kind == "mix":
            tasks = reader.words("tasks")
            if not tasks:
                raise reader.error("tasks", [], "a list of task names")
            return cls(kind=kind, tasks=tasks)
        row_format = reader.choice("format", tuple(FORMATS), "specbench")
        if kind == "classes":
            return cls(kind, row_format, classes=reader.integer("classes", minimum=1))
        if kind == "file":
            return cls(
                kind,
                row_format,
                file=reader.text("file"),
                sha256=reader.text("sha256", null=True),
            )
        revision = reader.text("revision", null=True)
        if kind == "url":
            return cls(
                kind,
                row_format,
                dataset=reader.text("dataset"),
                url=reader.text("url"),
                sha256=reader.text("sha256"),
                revision=revision,
            )
        return cls(
            kind,
            row_format,
            dataset=reader.text("dataset"),
            config=reader.text("config", null=True),
            split=reader.text("split"),
            revision=revision,
            shots_split=reader.text("shots_split", null=True),
        )


@dataclass(frozen=True)
class TaskConfig:
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
        modality: "text" or "image": what answers the prompts.
        images: Pictures of each prompt.
        metrics: Measures of the pictures where the command names none; see `conf/metric/`.
        references: Node that makes the real pictures of samples, or None; see
            `specbench show task NAME --sample`.
    """

    name: str
    title: str
    version: int
    licence: str
    source: SourceConfig
    max_new_tokens: int | None
    summary: str = ""
    paper: str = ""
    path: str | None = None
    limit: int | None = None
    shots: int = 0
    shots_path: str | None = None
    category: tuple[str, ...] = ()
    prompt: PromptFormat = field(default_factory=PromptFormat)
    stop: tuple[str, ...] = ()
    completion_stop: tuple[str, ...] = ()
    scorer: Mapping[str, Any] | None = None
    modality: str = "text"
    images: int = 1
    metrics: tuple[str, ...] = ()
    references: Mapping[str, Any] | None = None

    @classmethod
    def from_dict(cls, node: Mapping[str, Any]) -> TaskConfig:
        """Validate a task's node.

        Raises:
            ConfigError: If a key is unknown, missing or of a wrong value.
        """
        known = tuple(cls.__dataclass_fields__)
        reader = Reader(node, "task", known)
        category = reader.get("category")
        if isinstance(category, str):
            reader = Reader({**node, "category": [category]}, "task", known)
        scorer = reader.mapping("scorer")
        if scorer and "_target_" not in scorer:
            raise ConfigError(
                "'task.scorer' names no class",
                "a scorer is a group of keys with a _target_",
                "Set task.scorer._target_=specbench.tasks.scorers.ExactMatch, or task.scorer=null.",
            )
        modality = reader.choice("modality", MODALITIES, "text")
        images = reader.integer("images", 1, minimum=1)
        if modality == "text":
            _refuse_pictures(reader, images)
        return cls(
            name=reader.text("name"),
            title=reader.text("title"),
            version=reader.integer("version", minimum=1),
            licence=reader.text("licence"),
            source=SourceConfig.from_dict(reader.mapping("source")),
            max_new_tokens=reader.integer("max_new_tokens", minimum=1, null=modality == "image"),
            summary=reader.text("summary", ""),
            paper=reader.text("paper", ""),
            path=reader.text("path", null=True),
            limit=reader.integer("limit", minimum=1, null=True),
            shots=reader.integer("shots", 0, minimum=0),
            shots_path=reader.text("shots_path", null=True),
            category=reader.words("category"),
            prompt=_prompt_format(reader.mapping("prompt")),
            stop=reader.words("stop"),
            completion_stop=reader.words("completion_stop"),
            scorer=scorer or None,
            modality=modality,
            images=images,
            metrics=reader.words("metrics"),
            references=reader.mapping("references") or None,
        )

    @classmethod
    def named(cls, name: str) -> TaskConfig:
        """Return the project's own entry of that name.

        Raises:
            ConfigError: If there is none.
        """
        return cls.from_dict(catalog.load("task", name))


def _refuse_pictures(reader: Reader, images: int) -> None:
    """Refuse what only a task of pictures can have."""
    if images > 1:
        raise reader.error("images", images, "1 for a task of text")
    metrics = reader.words("metrics")
    if metrics:
        raise reader.error("metrics", list(metrics), "empty for a task of text")


def _day(reader: Reader) -> str:
    text = str(reader.text("date", DATE))
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        raise reader.error("date", text, "a day such as 2024-07-26") from None
    return text


def _prompt_format(node: Mapping[str, Any]) -> PromptFormat:
    reader = Reader(node, "task.prompt", tuple(PromptFormat.__dataclass_fields__))
    templates = {}
    for key in ("template", "completion"):
        templates[key] = reader.text(key, "{question}")
        if "{question}" not in templates[key]:
            raise reader.error(key, templates[key], "a text that contains {question}")
    return PromptFormat(
        style=reader.choice("style", STYLES, "auto"),
        system=reader.text("system", null=True),
        separator=reader.text("separator", "\n\n"),
        answer_prefix=reader.text("answer_prefix", ""),
        chat_template_args=reader.mapping("chat_template_args"),
        thinking=reader.boolean("thinking", null=True),
        date=_day(reader),
        **templates,
    )
