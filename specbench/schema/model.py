"""What a model's YAML file says: a target, its draft, and how they are loaded."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import field
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StrictBool, StrictStr, model_validator
from pydantic.dataclasses import dataclass

from specbench.schema.group import Group, Keys, Number, Text, Whole, Words, problem, refused
from specbench.schema.heads import HEADS
from specbench.secrets import scrub

Dtype = Literal["auto", "float32", "bfloat16", "float16", "float64"]

ANY_CHECKPOINT = "hf"
"""The entry that has no target of its own."""


@dataclass(frozen=True)
class ModelConfig(Group):
    """One target model and, where there is one, its draft.

    Attributes:
        name: Its id, the stem of its YAML file.
        title: A short human name.
        target: "embedded:NAME", a hub id ORG/NAME, or a local folder.
        loader: The node that names the loading function.
        summary: One or two sentences.
        licence: The weights' licence.
        modality: What it generates.
        target_revision: Branch, tag or commit of a hub model; None is the hub's default.
        draft: Like `target`, or None.
        draft_revision: Like `target_revision`.
        more_drafts: Further drafts, for methods that draft with several models. A hub model may
            be pinned: ORG/NAME@REVISION.
        parallel_draft: Like one of them, for methods that need a draft of several tokens in one
            forward, where `draft` is none; or None.
        head: Trained weights that draft behind the target's states, named like `target`; None
            takes the one of `heads` whose family the method takes.
        head_revision: Like `target_revision`.
        heads: Heads that were published for the target, by family; ORG/NAME@REVISION where pinned.
        dtype: Compute dtype; "auto" leaves it to device and checkpoint.
        device: "auto", "cpu", "cuda" or "cuda:N".
        device_map: A device map of transformers, or None.
        engine: Whose code computes a forward: the lean decoder or transformers' modules.
        context: Greatest number of tokens in the cache, or None for the model's own.
        weights_gb: Rough gigabytes of weights to fetch and hold, or None for embedded ones.
        chat: Whether prompts go through a chat template.
        chat_template: A template to use instead of the tokenizer's own, or None.
        sampling: The model's own values of `sampling.*` keys, used where the run gives none.
        methods: Its own values of methods' parameters, by method and parameter, used where the
            method's file and the run leave null.
        task: The task that runs where the command names none; None leaves the general one.
        training_task: Whose prompts `specbench train` learns from where the command names none.
    """

    key_path = "model"

    name: Text
    title: Text
    target: Text
    loader: Keys = field(default_factory=dict)
    summary: StrictStr = ""
    licence: StrictStr = ""
    modality: Literal["text", "image"] = "text"
    target_revision: Text | None = None
    draft: Text | None = None
    draft_revision: Text | None = None
    more_drafts: Words = ()
    parallel_draft: Text | None = None
    head: Text | None = None
    head_revision: Text | None = None
    heads: Annotated[
        dict[Literal[tuple(HEADS)], Text],  # type: ignore[valid-type]
        BeforeValidator(lambda value: {} if value is None else value),
        Field(description=f"a group of the keys {', '.join(HEADS)}, each with a head's place"),
    ] = field(default_factory=dict)
    dtype: Dtype = "auto"
    device: Annotated[
        StrictStr,
        Field(pattern="^(auto|cpu|cuda(:[0-9]+)?)$", description="auto, cpu, cuda or cuda:N"),
    ] = "auto"
    device_map: Annotated[
        StrictStr | dict[Any, Any] | None, Field(description="a text, a group of keys or null")
    ] = None
    engine: Literal["auto", "lean", "transformers"] = "auto"
    context: Annotated[Whole, Field(ge=1)] | None = None
    weights_gb: Annotated[Number, Field(ge=0)] | None = None
    chat: Annotated[Literal["auto"] | StrictBool, Field(description="auto, true or false")] = "auto"
    chat_template: Text | None = None
    sampling: Keys = field(default_factory=dict)
    methods: Keys = field(default_factory=dict)
    task: Text | None = None
    training_task: Text | None = None

    @classmethod
    def prepared(cls, values: dict[Any, Any]) -> dict[Any, Any]:
        """Say how the entry that runs any checkpoint is given one."""
        if values.get("target") == "???":
            raise problem(
                "'{path}.target' is missing",
                "this model entry runs any checkpoint and has none of its own",
                "Add {path}.target=ORG/NAME or {path}.target=FOLDER, and {path}.draft= likewise.",
            )
        return values

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.more_drafts and self.draft is None:
            raise refused("more_drafts", list(self.more_drafts), "empty, as draft")
        return self

    def drafts(self, needs: Collection[str]) -> bool:
        """Say whether there is a draft for a method of these needs."""
        parallel = "parallel_draft" in needs and self.parallel_draft is not None
        return self.draft is not None or parallel

    @property
    def label(self) -> str:
        """What the model is called in tables; see `label_of`."""
        return label_of(self.name, self.target)


def label_of(name: str, target: str) -> str:
    """Return what a model is called in tables and in the names of files.

    Returns:
        The id; for the entry that runs any checkpoint, the folder's name or the hub's.
    """
    own: str = scrub(target).rstrip("/").rpartition("/")[2]
    return own if name == ANY_CHECKPOINT and own.strip(".") else name
