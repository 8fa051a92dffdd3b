"""The typed configuration of one job, validated once, right after composition.

Everything after this module may trust its values: types, ranges and names are checked here, and
every error names the full key path, what is allowed and the nearest valid name. The module knows
nothing of Hydra and nothing of torch; it reads plain dictionaries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from specbench.errors import ConfigError
from specbench.schema.method import MethodConfig, Paper
from specbench.schema.metric import MetricConfig
from specbench.schema.model import ModelConfig
from specbench.schema.reading import Reader

__all__ = [
    "MethodConfig",
    "MetricConfig",
    "ModelConfig",
    "Paper",
    "RunConfig",
    "SamplingConfig",
    "TimingConfig",
    "check_capabilities",
]

_LAW_KEYS = (
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
    "cfg_scale",
    "cfg_schedule",
    "image_scale",
    "text_top_k",
    "unconditional",
)
_SAMPLING_KEYS = (*_LAW_KEYS, "seed")
RUN_ENGINES = ("auto", "graph", "kernels", "compile", "eager")
CFG_SCHEDULES = ("constant", "linear", "cosine")
UNCONDITIONAL = ("own", "last_token", "padded")
_HOTTEST = 1e6
"""Temperatures lie between this and its inverse: beyond, float32 laws overflow or go flat."""
_LARGEST_PENALTY = 100.0
"""Penalties lie between this and its inverse: a float16 logit of 600 stays finite."""
_LEAST_MASS = 1e-6
_LARGEST_SCALE = 1000.0
_LARGEST_SEED = 2**63 - 1
_MOST_TIMES = 100_000
_MOST_THREADS = 1024
_MOST_TOKENS = 10_000_000
_TIMING_KEYS = ("repeats", "processes", "warmup", "threads")
_RUN_KEYS = (
    "method",
    "model",
    "task",
    "baseline",
    "sampling",
    "max_new_tokens",
    "engine",
    "timing",
    "carry_state",
    "score",
    "pictures",
    "metric",
    "results_dir",
    "resume",
    "progress",
)


@dataclass(frozen=True)
class SamplingConfig:
    """The target law's parameters and the seed of every random stream.

    Attributes:
        temperature: 0 is argmax; 1 is the model's own law.
        top_k: Keep the k likeliest tokens; None keeps all.
        top_p: Keep the smallest set of tokens of this mass; None keeps all.
        repetition_penalty: Divides the logits of tokens already seen; 1 is none.
        seed: Key of the random streams.
        cfg_scale: Scale of classifier-free guidance of an image model; 1 is none. None for text.
        cfg_schedule: How the scale grows over a picture; one of `CFG_SCHEDULES`.
        image_scale: Weight of the image condition, for models of three conditioning rows.
        text_top_k: Like `top_k`, for the text tokens beside a picture.
        unconditional: The unconditional row of an image model: the model's own; that behind the
            prompt's last token; or that behind a prompt whose caption is padding.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0
    cfg_scale: float | None = None
    cfg_schedule: str = "constant"
    image_scale: float | None = None
    text_top_k: int | None = None
    unconditional: str = "own"

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], model: Mapping[str, Any] | None = None
    ) -> SamplingConfig:
        """Validate the `sampling` node.

        Args:
            values: The node. A null stands for the model's own value, or else the general one.
            model: The model's own law (`ModelConfig.sampling`).

        Raises:
            ConfigError: If a key is unknown or of a wrong value.
        """
        chosen = {**(model or {})}
        chosen |= {key: value for key, value in values.items() if value is not None}
        reader = Reader(chosen, "sampling", _SAMPLING_KEYS)
        top_k = reader.integer("top_k", 0, minimum=0)
        text_top_k = reader.integer("text_top_k", 0, minimum=0)
        if top_k and text_top_k > top_k:
            raise reader.error("text_top_k", text_top_k, f"at most sampling.top_k={top_k}")
        return cls(
            temperature=_temperature(reader),
            top_k=top_k or None,
            top_p=reader.number("top_p", minimum=_LEAST_MASS, maximum=1, null=True),
            repetition_penalty=reader.number(
                "repetition_penalty", 1.0, minimum=1 / _LARGEST_PENALTY, maximum=_LARGEST_PENALTY
            ),
            cfg_scale=reader.number("cfg_scale", minimum=0, maximum=_LARGEST_SCALE, null=True),
            cfg_schedule=reader.choice("cfg_schedule", CFG_SCHEDULES, "constant"),
            image_scale=reader.number("image_scale", minimum=0, maximum=_LARGEST_SCALE, null=True),
            text_top_k=text_top_k or None,
            unconditional=reader.choice("unconditional", UNCONDITIONAL, "own"),
            seed=reader.integer("seed", 0, minimum=0, maximum=_LARGEST_SEED),
        )


def _temperature(reader: Reader) -> float:
    """Return 0 or a temperature by which float32 logits can be divided."""
    value: float = reader.number("temperature", 0.0, minimum=0, maximum=_HOTTEST)
    if 0 < value < 1 / _HOTTEST:
        allowed = f"0, or a number of at least {1 / _HOTTEST:g} and at most {_HOTTEST:g}"
        raise reader.error("temperature", value, allowed)
    return value


@dataclass(frozen=True)
class TimingConfig:
    """How often each sample is measured.

    Attributes:
        repeats: Measurements of each arm and sample in each process.
        warmup: Samples that run before and are not recorded, in each process.
        threads: CPU threads of the engine, or None for its own choice.
        processes: Fresh processes that measure one after the other.
    """

    repeats: int = 3
    warmup: int = 2
    threads: int | None = None
    processes: int = 1

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TimingConfig:
        """Validate the `timing` node.

        Raises:
            ConfigError: If a key is unknown or of a wrong value.
        """
        reader = Reader(values, "timing", _TIMING_KEYS)
        return cls(
            repeats=reader.integer("repeats", 3, minimum=1, maximum=_MOST_TIMES),
            processes=reader.integer("processes", 1, minimum=1, maximum=_MOST_TIMES),
            warmup=reader.integer("warmup", 2, minimum=0, maximum=_MOST_TIMES),
            threads=reader.integer("threads", minimum=1, maximum=_MOST_THREADS, null=True),
        )


@dataclass(frozen=True)
class RunConfig:
    """Everything that one job needs to know.

    Attributes:
        method: The measured method.
        model: The target and its draft.
        task: The task's node, read by `specbench.tasks.config.TaskConfig.from_dict`.
        baseline: The method that it is measured against, or None.
        sampling: The target law.
        max_new_tokens: Limit of new tokens a turn, or None for the task's own.
        engine: How lean models run their forwards; one of `RUN_ENGINES`. "auto" is "graph" on
            CUDA and "eager" elsewhere.
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
    task: Mapping[str, Any]
    baseline: MethodConfig | None = None
    sampling: SamplingConfig = SamplingConfig()
    max_new_tokens: int | None = None
    engine: str = "auto"
    timing: TimingConfig = TimingConfig()
    carry_state: bool = False
    score: bool = True
    pictures: bool = True
    metric: tuple[MetricConfig, ...] = ()
    results_dir: Path = Path("results")
    resume: bool = True
    progress: bool = True

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """Validate a composed configuration.

        Args:
            values: The configuration; `baseline` is a method's node or None, `metric` holds the
                nodes of the chosen metrics by name.

        Raises:
            ConfigError: If a key is unknown, missing or of a wrong value.
        """
        reader = Reader(values, "", _RUN_KEYS)
        task = reader.mapping("task")
        if not isinstance(task.get("name"), str):
            raise ConfigError("'task' is missing", "", "Add task=NAME to the command.")
        baseline = reader.get("baseline")
        model = ModelConfig.from_dict(reader.mapping("model"))
        metrics = reader.mapping("metric").items()
        return cls(
            method=MethodConfig.from_dict(reader.mapping("method")),
            model=model,
            task=task,
            baseline=None if baseline is None else MethodConfig.from_dict(baseline, "baseline"),
            sampling=SamplingConfig.from_dict(reader.mapping("sampling"), model.sampling),
            max_new_tokens=reader.integer(
                "max_new_tokens", minimum=1, maximum=_MOST_TOKENS, null=True
            ),
            engine=reader.choice("engine", RUN_ENGINES, "auto"),
            timing=TimingConfig.from_dict(reader.mapping("timing")),
            carry_state=reader.boolean("carry_state", False),
            score=reader.boolean("score", True),
            pictures=reader.boolean("pictures", True),
            metric=tuple(MetricConfig.from_dict(node, f"metric.{name}") for name, node in metrics),
            results_dir=Path(reader.text("results_dir", "results")),
            resume=reader.boolean("resume", True),
            progress=reader.boolean("progress", True),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values that JSON can hold."""
        plain = asdict(self)
        plain["results_dir"] = str(self.results_dir)
        plain["task"] = dict(self.task)
        return plain

    def identity(self) -> dict[str, Any]:
        """Return what decides what is measured: all but where it goes and how it is shown.

        Pictures follow from the tokens, and their metrics from the pictures: a finished job can be
        given further metrics without a new measurement. More processes add to what is there.
        The engine that a run came by stands in the identity of its models.
        """
        plain = self.to_dict()
        for key in ("results_dir", "resume", "progress", "pictures", "metric", "engine"):
            del plain[key]
        del plain["timing"]["processes"]
        for key in ("metrics", "references"):
            plain["task"].pop(key, None)
        return plain


def missing_draft(role: str, method: str, model: str) -> ConfigError:
    """Return the error of a method that needs a draft on a model that has none.

    Args:
        role: "method" or "baseline".
        method: Its id.
        model: The model's id.
    """
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
    task, modality = config.task["name"], config.task.get("modality") or "text"
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
        if "draft" in method.needs and model.draft is None:
            raise missing_draft(role, method.name, model.name)
        if method.modality not in ("any", model.modality):
            raise ConfigError(
                f"The {role} '{method.name}' decodes {method.modality}",
                f"the model '{model.name}' is a model of {model.modality}",
                "Choose a method of the model's modality (specbench list methods).",
            )
