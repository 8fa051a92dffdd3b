"""What a recipe's YAML file says, and the configuration of one training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StrictBool, StrictStr, model_validator
from pydantic.dataclasses import dataclass

from specbench.schema.config import Temperature
from specbench.schema.group import Group, Keys, Number, Text, Whole, Words, problem
from specbench.schema.model import ModelConfig
from specbench.schema.task import TaskConfig

Positive = Annotated[Number, Field(gt=0.0)]
Share = Annotated[Number, Field(ge=0.0, le=1.0)]
Beta = Annotated[Number, Field(ge=0.0, lt=1.0)]
Count = Annotated[Whole, Field(ge=1)]


@dataclass(frozen=True)
class DataConfig(Group):
    """What a training learns from.

    Attributes:
        prompts: Prompts to learn from, from the start of the task.
        held_out: Prompts to check acceptance on, from the end of the task.
        temperature: Of the target's law when it writes the answers.
        max_new_tokens: Most tokens of an answer; None is the task's limit.
        rows: Answers that are written together.
        taps: Where the target's hidden states come from: "disk" computes them once and keeps
            them, memory-mapped; "stream" computes them again for every batch.
    """

    key_path = "recipe.data"

    prompts: Count
    held_out: Count
    temperature: Temperature = 1.0
    max_new_tokens: Count | None = None
    rows: Count = 32
    taps: Literal["disk", "stream"] = "disk"


@dataclass(frozen=True)
class OptimizerConfig(Group):
    """AdamW and its schedule.

    Attributes:
        rate: Highest learning rate.
        beta1: Memory of the gradient's mean.
        beta2: Memory of its square.
        weight_decay: Decoupled, times the rate.
        schedule: How the rate falls behind the warm-up: not at all, or to zero.
        warmup: Share of the steps in which the rate rises.
        clip: Greatest norm of a gradient; null does not cut.

    AdamW: Loshchilov and Hutter 2019, "Decoupled weight decay regularization".
    """

    key_path = "recipe.optimizer"

    rate: Positive
    beta1: Beta = 0.9
    beta2: Beta = 0.95
    weight_decay: Annotated[Number, Field(ge=0.0)] = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup: Share = 0.05
    clip: Positive | None = 1.0


@dataclass(frozen=True)
class RecipeConfig(Group):
    """One entry of `conf/recipe`.

    Attributes:
        name: Its id.
        title: Its name for people.
        trains: What comes out: a draft model, a head behind the target's states, or a target.
        learner: Node of the class that is trained, with its losses.
        data: What it learns from.
        optimizer: How it descends.
        steps: Steps of the optimizer.
        batch_tokens: Tokens of a step, padding included, over all processes.
        save_every: Steps between two states that a training can go on from.
        check_every: Steps between two checks on held-out prompts.
        needs: What the pair must have: "draft", or a capability of the target.
        summary: One or two sentences.
        paper: Where the recipe was published.
    """

    key_path = "recipe"

    name: Text
    title: Text
    trains: Literal["draft", "head", "target"]
    learner: Keys
    data: DataConfig
    optimizer: OptimizerConfig
    steps: Count
    batch_tokens: Count
    save_every: Count
    check_every: Count
    needs: Words = ()
    summary: StrictStr = ""
    paper: StrictStr = ""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if "_target_" not in self.learner:
            raise problem(
                "'{path}.learner' names no class", "a learner is a group of keys with a _target_"
            )
        return self


def _folder(value: Any) -> Any:
    return Path(value).expanduser() if isinstance(value, str) and value else value


@dataclass(frozen=True)
class TrainConfig(Group):
    """One training.

    Attributes:
        recipe: How.
        model: The frozen target, and the draft that is trained on, where the recipe trains one.
        task: Whose prompts.
        output: Folder of the checkpoint.
        seed: Of answers, order, noise and weights that begin at random.
        threads: Threads of a CPU; None leaves them to torch.
        resume: Whether to go on from the state in the folder.
        progress: Whether to say how far it is.
    """

    recipe: RecipeConfig
    model: ModelConfig
    task: TaskConfig
    output: Annotated[Path, BeforeValidator(_folder), Field(description="a text")]
    seed: Annotated[Whole, Field(ge=0, le=2**31 - 1)] = 0
    threads: Annotated[Whole, Field(ge=1)] | None = None
    resume: StrictBool = True
    progress: StrictBool = True

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.task.modality != "text" or self.model.modality != "text":
            raise problem(
                "A recipe trains on text",
                f"the model '{self.model.name}' draws pictures",
                "Choose a model of text, such as model=tiny_text.",
            )
        if "draft" in self.recipe.needs and self.model.draft is None:
            raise problem(
                f"The recipe '{self.recipe.name}' trains a draft model",
                f"the model '{self.model.name}' has none to begin with",
                "Add model.draft=ORG/NAME or a folder.",
            )
        return self

    def identity(self) -> dict[str, Any]:
        """Return what decides the weights: all but where they go and how it is shown.

        How often a state is saved or checked decides nothing.
        """
        plain = {**asdict(self), "task": dict(self.task.node)}
        for key in ("output", "resume", "progress"):
            del plain[key]
        for key in ("save_every", "check_every", "title", "summary", "paper"):
            del plain["recipe"][key]
        return plain
