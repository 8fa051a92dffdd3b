"""What a method's YAML file says: its promise, its parameters and the parts it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from specbench.errors import ConfigError, did_you_mean
from specbench.schema.families import FAMILIES
from specbench.schema.reading import Reader
from specbench.schema.result import MethodInfo

EXACTNESS = ("exact", "greedy", "lossy")
"""exact: the target's law; greedy: its argmax only; lossy: neither, by a knob."""

MODALITIES = ("text", "image", "any")

CAPABILITIES = ("draft", "tree_mask", "layer_skip", "hidden_states", "features", "image")
"""What a method may need of a model, beside a target."""

_METHOD_KEYS = (
    "name",
    "title",
    "family",
    "paper",
    "exactness",
    "knob",
    "modality",
    "needs",
    "summary",
    "parameters",
    "decoder",
)


@dataclass(frozen=True)
class Paper:
    """Where a method was published.

    Attributes:
        title: The paper's title; empty where there is none.
        authors: Its authors.
        url: Where to read it.
    """

    title: str = ""
    authors: str = ""
    url: str = ""


@dataclass(frozen=True)
class MethodConfig:
    """One decoding method: what it promises and the parts that it is made of.

    Attributes:
        name: Its id, the stem of its YAML file.
        title: A short human name.
        exactness: "exact", "greedy" or "lossy".
        knob: The parameter that makes a lossy method lossy; empty for the others.
        paper: Where it was published.
        family: The group that it is listed with; one of `FAMILIES`.
        modality: "text", "image" or "any".
        needs: What the model must have beside a target; see `CAPABILITIES`.
        summary: One or two sentences on how it works.
        parameters: The values of its own parameters, such as the draft length.
        documentation: One sentence for each parameter.
        decoder: The node that `specbench.schema.build.instantiate` turns into a decoder.
    """

    name: str
    title: str
    exactness: str
    decoder: Mapping[str, Any]
    knob: str = ""
    paper: Paper = Paper()
    family: str = "other"
    modality: str = "text"
    needs: tuple[str, ...] = ()
    summary: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    documentation: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: str = "method") -> MethodConfig:
        """Validate the node of one method.

        Beside the keys of every method, a node may hold parameters of its own; each is
        documented by one sentence under `parameters`.

        Raises:
            ConfigError: If a key is unknown, missing or of a wrong value.
        """
        documentation = values.get("parameters") if isinstance(values, Mapping) else None
        names = tuple(documentation) if isinstance(documentation, Mapping) else ()
        reader = Reader(values, path, (*_METHOD_KEYS, *names))
        exactness = reader.choice("exactness", EXACTNESS)
        knob = reader.text("knob", "", null=True) or ""
        if (exactness == "lossy") != bool(knob):
            raise reader.error(
                "knob", knob or None, "the lossy parameter of a lossy method, null for the others"
            )
        needs = reader.words("needs")
        for need in needs:
            if need not in CAPABILITIES:
                raise reader.error(
                    "needs",
                    need,
                    f"a list of: {', '.join(CAPABILITIES)}",
                    did_you_mean(need, CAPABILITIES),
                )
        for name in names:
            if name not in values:
                raise ConfigError(
                    f"'{reader.path(name)}' is missing",
                    f"it is documented under '{reader.path('parameters')}'",
                    "Give it a value in the method's file.",
                )
        decoder = reader.mapping("decoder")
        if "_target_" not in decoder:
            raise ConfigError(
                f"'{path}.decoder._target_' is missing",
                "it names the class that generates, such as package.module.Class",
                "Add it to the method's file.",
            )
        paper = Reader(reader.mapping("paper"), f"{path}.paper", ("title", "authors", "url"))
        return cls(
            name=reader.text("name"),
            title=reader.text("title"),
            exactness=exactness,
            knob=knob,
            paper=Paper(
                title=paper.text("title", ""),
                authors=paper.text("authors", ""),
                url=paper.text("url", ""),
            ),
            family=reader.choice("family", FAMILIES, "other"),
            modality=reader.choice("modality", MODALITIES, "text"),
            needs=needs,
            summary=reader.text("summary", ""),
            parameters={name: reader.get(name) for name in names},
            documentation={name: str(text) for name, text in reader.mapping("parameters").items()},
            decoder=decoder,
        )

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
