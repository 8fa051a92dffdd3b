"""What a method's YAML file says: its promise, its parameters and the parts it is made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import field
from typing import Any, Literal, Self

from pydantic import StrictStr, model_validator
from pydantic.dataclasses import dataclass

from specbench.schema.families import FAMILIES
from specbench.schema.group import Group, Keys, Text, problem, refused
from specbench.schema.heads import HEADS
from specbench.schema.result import MethodInfo


@dataclass(frozen=True)
class Paper(Group):
    """Where a method was published.

    Attributes:
        title: The paper's title; empty where there is none.
        authors: Its authors.
        url: Where to read it.
    """

    title: StrictStr = ""
    authors: StrictStr = ""
    url: StrictStr = ""


@dataclass(frozen=True)
class MethodConfig(Group):
    """One decoding method: what it promises and the parts that it is made of.

    Beside these keys, a file may hold parameters of its own; each is documented by one sentence
    under `parameters`.

    Attributes:
        name: Its id, the stem of its YAML file.
        title: A short human name.
        exactness: exact: the target's law; greedy: its argmax only; lossy: neither, by a knob.
        decoder: The node that `specbench.schema.build.instantiate` turns into a decoder.
        knob: The parameter that makes a lossy method lossy; empty for the others.
        paper: Where it was published.
        family: The group that it is listed with; one of `FAMILIES`.
        modality: What it decodes.
        needs: What the model must have beside a target.
        heads: Families of heads that it takes, where it needs a head.
        summary: One or two sentences on how it works.
        parameters: The values of its own parameters, such as the draft length.
        documentation: One sentence for each parameter.
    """

    key_path = "method"

    name: Text
    title: Text
    exactness: Literal["exact", "greedy", "lossy"]
    decoder: Keys
    knob: StrictStr = ""
    paper: Paper = Paper()
    family: Literal[FAMILIES] = "other"  # type: ignore[valid-type]
    modality: Literal["text", "image", "any"] = "text"
    needs: tuple[
        Literal[
            "draft",
            "parallel_draft",
            "head",
            "tree_mask",
            "layer_skip",
            "hidden_states",
            "features",
            "image",
        ],
        ...,
    ] = ()
    heads: tuple[Literal[tuple(HEADS)], ...] = ()  # type: ignore[valid-type]
    summary: StrictStr = ""
    parameters: Keys = field(default_factory=dict)
    documentation: Keys = field(default_factory=dict)

    @classmethod
    def keys_of(cls, values: Mapping[Any, Any]) -> Collection[str]:
        """Return the fields and the method's own parameters."""
        keys = [key for key in super().keys_of(values) if key != "documentation"]
        return [*keys, *own_parameters(values)]

    @classmethod
    def prepared(cls, values: dict[Any, Any]) -> dict[Any, Any]:
        """Gather the parameters' values; those of the knob and of `needs` may be null."""
        names = own_parameters(values)
        for name in names:
            if name not in values:
                raise problem(
                    f"'{{path}}.{name}' is missing",
                    "it is documented under '{path}.parameters'",
                    "Give it a value in the method's file.",
                )
        documentation = values.get("parameters")
        if names:
            documentation = {name: str(text) for name, text in values["parameters"].items()}
        parameters = {name: values.pop(name) for name in names}
        for name in ("knob", "needs", "heads"):
            if values.get(name) is None:
                values.pop(name, None)
        return {**values, "parameters": parameters, "documentation": documentation}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.exactness == "lossy") != bool(self.knob):
            allowed = "the lossy parameter of a lossy method, null for the others"
            raise refused("knob", self.knob or None, allowed)
        if ("head" in self.needs) != bool(self.heads):
            raise refused("heads", list(self.heads), "the families of a method that needs a head")
        if "_target_" not in self.decoder:
            raise problem(
                "'{path}.decoder._target_' is missing",
                "it names the class that generates, such as package.module.Class",
                "Add it to the method's file.",
            )
        return self

    def info(self) -> MethodInfo:
        """Return what a result file records of the method."""
        return MethodInfo(
            name=self.name,
            title=self.title,
            exactness=self.exactness,
            knob=self.knob,
            paper=self.paper.title,
            modality=self.modality,
        )


def own_parameters(values: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return the names that an entry documents under `parameters`."""
    documentation = values.get("parameters")
    return tuple(documentation) if isinstance(documentation, Mapping) else ()
