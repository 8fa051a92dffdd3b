"""The typed configuration of one job, validated once, right after composition.

Everything after this module may trust its values. The module knows nothing of Hydra and nothing of
torch; it reads plain dictionaries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, model_validator
from pydantic.dataclasses import dataclass

from specbench.errors import ConfigError
from specbench.schema import catalog
from specbench.schema.group import Group, Number, Whole, problem, refused
from specbench.schema.method import MethodConfig
from specbench.schema.metric import MetricConfig
from specbench.schema.model import ModelConfig
from specbench.schema.task import TaskConfig

_HOTTEST = 1e6
"""Temperatures lie between this and its inverse: beyond, float32 laws overflow or go flat."""


def _warm(value: float) -> float:
    if value and not 1 / _HOTTEST <= value <= _HOTTEST:
        raise ValueError
    return value


Temperature = Annotated[
    Number,
    AfterValidator(_warm),
    Field(description=f"0, or a number of at least {1 / _HOTTEST:g} and at most {_HOTTEST:g}"),
]
Unconditional = Literal["own", "last_token", "padded"]
Penalty = Annotated[Number, Field(ge=0.01, le=100.0)]
"""A float16 logit of 600 stays finite."""
Scale = Annotated[Number, Field(ge=0.0, le=1000.0)]
Times = Annotated[Whole, Field(ge=1, le=100_000)]
Count = Annotated[Whole, Field(ge=0), AfterValidator(lambda count: count or None)]
"""How many of the likeliest tokens are kept; 0 keeps all."""


@dataclass(frozen=True)
class SamplingConfig(Group):
    """The target law's parameters and the seed of every random stream.

    Attributes:
        temperature: 0 is argmax; 1 is the model's own law.
        top_k: Keep the k likeliest tokens; None keeps all.
        top_p: Keep the smallest set of tokens of this mass; None keeps all.
        repetition_penalty: Divides the logits of tokens already seen; 1 is none.
        seed: Key of the random streams.
        cfg_scale: Scale of classifier-free guidance of an image model; 1 is none. None for text.
        cfg_schedule: How the scale grows over a picture.
        image_scale: Weight of the image condition, for models of three conditioning rows.
        text_top_k: Like `top_k`, for the text tokens beside a picture.
        unconditional: The unconditional row of an image model: the model's own; that behind the
            prompt's last token; or that behind a prompt whose caption is padding.
    """

    key_path = "sampling"

    temperature: Temperature = 0.0
    top_k: Count | None = None
    top_p: Annotated[Number, Field(ge=1e-6, le=1.0)] | None = None
    repetition_penalty: Penalty = 1.0
    seed: Annotated[Whole, Field(ge=0, le=2**63 - 1)] = 0
    cfg_scale: Scale | None = None
    cfg_schedule: Literal["constant", "linear", "cosine"] = "constant"
    image_scale: Scale | None = None
    text_top_k: Count | None = None
    unconditional: Unconditional = "own"

    @classmethod
    def prepared(cls, values: dict[Any, Any]) -> dict[Any, Any]:
        """Let null stand for the default."""
        return {key: value for key, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.top_k and (self.text_top_k or 0) > self.top_k:
            raise refused("text_top_k", self.text_top_k, f"at most sampling.top_k={self.top_k}")
        return self


@dataclass(frozen=True)
class TimingConfig(Group):
    """How often each sample is measured.

    Attributes:
        repeats: Measurements of each arm and sample in each process.
        warmup: Samples that run before and are not recorded, in each process.
        threads: CPU threads of the engine, or None for its own choice.
        processes: Fresh processes that measure one after the other.
    """

    key_path = "timing"

    repeats: Times = 3
    warmup: Annotated[Whole, Field(ge=0, le=100_000)] = 2
    threads: Annotated[Whole, Field(ge=1, le=1024)] | None = None
    processes: Times = 1


def _folder(value: Any) -> Path:
    if not value or not isinstance(value, (str, Path)):
        raise ValueError
    return Path(value)


@dataclass(frozen=True)
class RunConfig(Group):
    """Everything that one job needs to know.

    Attributes:
        method: The measured method.
        model: The target and its draft.
        task: What is asked.
        baseline: The method that it is measured against, or None.
        sampling: The target law; what the run leaves null is the model's own.
        max_new_tokens: Limit of new tokens a turn, or None for the task's own.
        execution: How lean models run their forwards. "auto" is "graph" on CUDA, and elsewhere
            "native" where a C++ compiler is found, else "eager". (`model.engine` says whose code
            computes them.)
        timing: Repeats, warm-up and threads.
        carry_state: Whether what a method learns in one sample serves it in the next. Every
            repeat starts afresh all the same.
        score: Whether answers are scored and pictures are measured.
        pictures: Whether the pictures of an image model are decoded and kept.
        metric: What is measured of the pictures.
        results_dir: Folder of the result files.
        resume: Whether finished measurements of the same job are kept and not repeated.
        progress: Whether progress may be shown on a terminal.
    """

    method: MethodConfig
    model: ModelConfig
    task: TaskConfig
    baseline: MethodConfig | None = None
    sampling: SamplingConfig = SamplingConfig()
    max_new_tokens: Annotated[Whole, Field(ge=1, le=10_000_000)] | None = None
    execution: Literal["auto", "native", "graph", "kernels", "compile", "eager"] = "auto"
    timing: TimingConfig = TimingConfig()
    carry_state: StrictBool = False
    score: StrictBool = True
    pictures: StrictBool = True
    metric: tuple[MetricConfig, ...] = ()
    results_dir: Annotated[Path, BeforeValidator(_folder), Field(description="a text")] = Path(
        "results"
    )
    resume: StrictBool = True
    progress: StrictBool = True

    @classmethod
    def prepared(cls, values: dict[Any, Any]) -> dict[Any, Any]:
        """Take the model's own law where the run gives none, and metrics from their names."""
        task, model = values.get("task"), values.get("model")
        if isinstance(task, Mapping) and not isinstance(task.get("name"), str):
            raise problem("'task' is missing", "", "Add task=NAME to the command.")
        if isinstance(model, Mapping):
            families = [_heads_of(values.get(key)) for key in ("method", "baseline")]
            values["model"] = model = with_head(model, families)
        own = model.get("sampling") if isinstance(model, Mapping) else None
        given = values.get("sampling")
        if isinstance(own, Mapping) and isinstance(given, Mapping | None):
            chosen = {key: value for key, value in (given or {}).items() if value is not None}
            values["sampling"] = {**own, **chosen}
        if isinstance(metrics := values.get("metric") or {}, Mapping):
            values["metric"] = tuple(
                MetricConfig.from_dict(node, f"metric.{name}") for name, node in metrics.items()
            )
        return values

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values that JSON can hold."""
        return {**asdict(self), "results_dir": str(self.results_dir), "task": dict(self.task.node)}

    def identity(self) -> dict[str, Any]:
        """Return what decides what is measured: all but where it goes and how it is shown.

        Pictures follow from the tokens, and their metrics from the pictures: a finished job can be
        given further metrics without a new measurement. More processes add to what is there.
        The way of execution that a run came by stands in the identity of its models.
        """
        plain = self.to_dict()
        for key in ("results_dir", "resume", "progress", "pictures", "metric", "execution"):
            del plain[key]
        del plain["timing"]["processes"]
        del plain["model"]["training_task"]
        for key in ("metrics", "references"):
            plain["task"].pop(key, None)
        del plain["model"]["heads"]  # the one that runs is `head`
        if self.model.head is None:
            del plain["model"]["head"], plain["model"]["head_revision"]
        for method in (plain["method"], plain["baseline"]):
            if method is not None and not method["heads"]:
                del method["heads"]
        return plain


def with_head(model: Mapping[str, Any], families: Iterable[Collection[str]]) -> Mapping[str, Any]:
    """Return a model's node with the head that its entry has for the methods, if it names none.

    Args:
        model: The node.
        families: The families that each method takes; empty for one that needs no head.
    """
    listed = model.get("heads")
    wanted = [taken for taken in families if taken]
    if model.get("head") is not None or not wanted or not isinstance(listed, Mapping):
        return model
    for family in wanted[0]:
        if family in listed and all(family in taken for taken in wanted):
            place, _, revision = str(listed[family]).partition("@")
            return {**model, "head": place, "head_revision": revision or None}
    return model


def _heads_of(method: Any) -> Collection[str]:
    heads = method.get("heads") if isinstance(method, Mapping) else None
    return heads if isinstance(heads, (list, tuple)) else ()


def missing_head(role: str, method: MethodConfig, model: str) -> ConfigError:
    """Return the error of a method that needs a head on a model that has none for it."""
    kinds = " or ".join(method.heads)
    have = [
        name
        for name in catalog.names("model")
        if set(method.heads) & set(catalog.load("model", name).get("heads") or ())
    ]
    others = f", or a model that lists one: {', '.join(have)}" if have else ""
    return ConfigError(
        f"The {role} '{method.name}' needs a head of the family {kinds}",
        f"the model '{model}' has none",
        f"Add model.head=ORG/NAME or a folder{others} (docs/heads.md).",
    )


def missing_draft(role: str, method: str, model: str) -> ConfigError:
    """Return the error of a method that needs a draft on a model that has none."""
    return ConfigError(
        f"The {role} '{method}' needs a draft model",
        f"the model '{model}' has none",
        "Add model.draft=ORG/NAME or a folder, or choose a method that needs no draft "
        "(specbench list methods).",
    )


def check_guidance(config: RunConfig) -> None:
    """Refuse guidance on a model of text, and an image condition where a model has none.

    Raises:
        ConfigError: If `sampling` asks for what only image models have.
    """
    if config.model.modality == "image":
        if config.sampling.image_scale is not None and "image_scale" not in config.model.sampling:
            raise ConfigError(
                f"'sampling.image_scale' does not apply to '{config.model.name}'",
                "it has two conditioning rows, with and without the caption",
                "Remove sampling.image_scale, or choose a model of three rows, such as anole.",
            )
        check_unconditional(config)
        return
    for key in ("cfg_scale", "image_scale", "text_top_k", "unconditional"):
        if getattr(config.sampling, key) not in (None, "own"):
            raise ConfigError(
                f"'sampling.{key}' does not apply to '{config.model.name}'",
                "guidance mixes the conditioning rows of an image model",
                f"Remove sampling.{key}, or choose an image model (specbench list models).",
            )


def check_unconditional(config: RunConfig) -> None:
    """Refuse an unconditional row that a model's release does not know.

    Raises:
        ConfigError: If the model's rows are fixed, or it names no padding.
    """
    kind, loader = config.sampling.unconditional, config.model.loader
    if kind == "own":
        return
    why = "" if "unconditional" in loader else "its unconditional row is fixed"
    if not why and kind == "padded" and loader.get("padding") is None:
        why = "its entry names no padding token (model.loader.padding)"
    if why:
        raise ConfigError(
            f"'sampling.unconditional={kind}' does not apply to '{config.model.name}'",
            why,
            "Remove sampling.unconditional; docs/published_laws.md says who uses which row.",
        )


def check_pictures(config: RunConfig) -> None:
    """Refuse a task of another modality than the model's, and metrics without pictures.

    Raises:
        ConfigError: If task and model do not fit, or metrics are asked for and there will be no
            pictures.
    """
    model = config.model
    task, modality = config.task.name, config.task.modality
    if modality != model.modality:
        noun = {"text": "text", "image": "pictures"}
        raise ConfigError(
            f"The task '{task}' asks for {noun[modality]}",
            f"the model '{model.name}' generates {noun[model.modality]}",
            "Choose an image model, such as model=tiny_image, or a task of text."
            if modality == "image"
            else "Leave task= out for the model's own, or choose a task of pictures.",
        )
    if not config.metric or not config.score:
        return
    if modality == "text":
        raise ConfigError(
            f"The metric '{config.metric[0].name}' measures pictures",
            f"the task '{task}' asks for text",
            "Leave metric= out: a task of text brings its own scorer.",
        )


def check_capabilities(config: RunConfig) -> None:
    """Refuse what the model cannot do, before anything is loaded.

    Raises:
        ConfigError: If the method, the baseline or the task needs a draft or another modality.
    """
    check_guidance(config)
    check_pictures(config)
    model = config.model
    for role, method in (("method", config.method), ("baseline", config.baseline)):
        if method is None:
            continue
        if "draft" in method.needs and not model.drafts(method.needs):
            raise missing_draft(role, method.name, model.name)
        if "head" in method.needs and model.head is None:
            raise missing_head(role, method, model.name)
        if method.modality not in ("any", model.modality):
            raise ConfigError(
                f"The {role} '{method.name}' decodes {method.modality}",
                f"the model '{model.name}' is a model of {model.modality}",
                "Choose a method of the model's modality (specbench list methods).",
            )
