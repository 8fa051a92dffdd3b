"""What a model's YAML file says: a target, its draft, and how they are loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from specbench.errors import ConfigError
from specbench.schema.reading import Reader
from specbench.secrets import scrub

MODALITIES = ("text", "image")
DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")
ENGINES = ("auto", "lean", "transformers")

ANY_CHECKPOINT = "hf"
"""The entry that has no target of its own."""

_MODEL_KEYS = (
    "name",
    "title",
    "summary",
    "licence",
    "modality",
    "loader",
    "target",
    "target_revision",
    "draft",
    "draft_revision",
    "more_drafts",
    "dtype",
    "device",
    "device_map",
    "engine",
    "context",
    "weights_gb",
    "chat",
    "chat_template",
    "sampling",
    "methods",
    "task",
)


@dataclass(frozen=True)
class ModelConfig:
    """One target model and, where there is one, its draft.

    Attributes:
        name: Its id, the stem of its YAML file.
        title: A short human name.
        target: "embedded:NAME", a hub id ORG/NAME, or a local folder.
        loader: The node that names the loading function.
        summary: One or two sentences.
        licence: The weights' licence.
        modality: "text" or "image".
        target_revision: Branch, tag or commit of a hub model; None is the hub's default.
        draft: Like `target`, or None.
        draft_revision: Like `target_revision`.
        more_drafts: Further drafts, for methods that draft with several models. A hub model may
            be pinned: ORG/NAME@REVISION.
        dtype: "auto", "float32", "bfloat16", "float16" or "float64".
        device: "auto", "cpu", "cuda" or "cuda:N".
        device_map: A device map of transformers, or None.
        engine: "auto", "lean" or "transformers".
        context: Greatest number of tokens in the cache, or None for the model's own.
        weights_gb: Rough gigabytes of weights to fetch and hold, or None for embedded ones.
        chat: "auto", True or False: whether prompts go through a chat template.
        chat_template: A template to use instead of the tokenizer's own, or None.
        sampling: The model's own values of `sampling.*` keys, used where the run gives none.
        methods: Its own values of methods' parameters, by method and parameter, used where the
            method's file and the run leave null.
        task: The task that runs where the command names none; None leaves the general one.
    """

    name: str
    title: str
    target: str
    loader: Mapping[str, Any]
    summary: str = ""
    licence: str = ""
    modality: str = "text"
    target_revision: str | None = None
    draft: str | None = None
    draft_revision: str | None = None
    more_drafts: tuple[str, ...] = ()
    dtype: str = "auto"
    device: str = "auto"
    device_map: str | Mapping[str, Any] | None = None
    engine: str = "auto"
    context: int | None = None
    weights_gb: float | None = None
    chat: str | bool = "auto"
    chat_template: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Any] = field(default_factory=dict)
    task: str | None = None

    @property
    def label(self) -> str:
        """What the model is called in tables; see `label_of`."""
        return label_of(self.name, self.target)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: str = "model") -> ModelConfig:
        """Validate the node of one model.

        Raises:
            ConfigError: If a key is unknown, missing or of a wrong value.
        """
        reader = Reader(values, path, _MODEL_KEYS)
        if reader.is_missing("target"):
            raise ConfigError(
                f"'{path}.target' is missing",
                "this model entry runs any checkpoint and has none of its own",
                f"Add {path}.target=ORG/NAME or {path}.target=FOLDER, and {path}.draft= likewise.",
            )
        device = reader.text("device", "auto")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise reader.error("device", device, "auto, cpu, cuda or cuda:N")
        device_map = reader.get("device_map")
        if device_map is not None and not isinstance(device_map, (str, Mapping)):
            raise reader.error("device_map", device_map, "a text, a group of keys or null")
        if reader.words("more_drafts") and reader.text("draft", null=True) is None:
            raise reader.error("more_drafts", list(reader.words("more_drafts")), "empty, as draft")
        chat = reader.get("chat", "auto")
        if chat != "auto" and not isinstance(chat, bool):
            raise reader.error("chat", chat, "auto, true or false")
        return cls(
            name=reader.text("name"),
            title=reader.text("title"),
            target=reader.text("target"),
            loader=reader.mapping("loader"),
            summary=reader.text("summary", ""),
            licence=reader.text("licence", ""),
            modality=reader.choice("modality", MODALITIES, "text"),
            target_revision=reader.text("target_revision", null=True),
            draft=reader.text("draft", null=True),
            draft_revision=reader.text("draft_revision", null=True),
            more_drafts=reader.words("more_drafts"),
            dtype=reader.choice("dtype", DTYPES, "auto"),
            device=device,
            device_map=device_map,
            engine=reader.choice("engine", ENGINES, "auto"),
            context=reader.integer("context", minimum=1, null=True),
            weights_gb=reader.number("weights_gb", minimum=0, null=True),
            chat=chat,
            chat_template=reader.text("chat_template", null=True),
            sampling=reader.mapping("sampling"),
            methods=reader.mapping("methods"),
            task=reader.text("task", null=True),
        )


def label_of(name: str, target: str) -> str:
    """Return what a model is called in tables and in the names of files.

    Args:
        name: Its entry's id.
        target: The checkpoint that runs.

    Returns:
        The id; for the entry that runs any checkpoint, the folder's name or the hub's.
    """
    own: str = scrub(target).rstrip("/").rpartition("/")[2]
    return own if name == ANY_CHECKPOINT and own.strip(".") else name
