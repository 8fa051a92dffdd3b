"""The training room: `specbench train` from a configuration to a published checkpoint.

What tells one recipe from another is its learner (`specbench.training.learner`). Everything that
a step does follows from the seed and its number, so that a training that was killed goes on to
the very same weights. Processes, devices and number formats are accelerate's.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import reduce

from specbench import __version__
from specbench.errors import ConfigError
from specbench.models import checkpoint as checkpoints
from specbench.models.load import check_needs, load_pair
from specbench.models.pair import ModelPair
from specbench.runner.provenance import device_name
from specbench.schema.build import instantiate
from specbench.schema.recipe import OptimizerConfig, TrainConfig
from specbench.tasks.load import load_task
from specbench.tasks.prompting import for_tokenizer
from specbench.training.corpus import Batch, Order, grouped
from specbench.training.frozen import Frozen
from specbench.training.learner import Learner, Room
from specbench.training.loop import Log, Loss, descend, factor_of, set_rate
from specbench.training.progress import Told
from specbench.training.saving import publish
from specbench.training.state import FILE, digest_of, load_state, save_state

_SHOWN = 20
"""Steps over which a loss is averaged where it is kept."""


def train(config: TrainConfig) -> Path:
    """Train what a configuration says; return the folder of the checkpoint.

    Run by `accelerate launch`, every process calls this and the first one writes.

    Raises:
        SpecbenchError: If something that the user can mend prevents it.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    learner: Learner = instantiate(config.recipe.learner)
    if config.recipe.save_every % learner.refresh:
        raise ConfigError(
            f"'recipe.save_every' cannot be {config.recipe.save_every}",
            f"it must be a multiple of recipe.learner.refresh={learner.refresh}, where a training "
            "can go on",
        )
    accelerator = _accelerator(config)
    told = Told(config.progress and accelerator.is_main_process)
    models = _load(config, accelerator)
    training = _Training(config, learner, accelerator, models, told)
    with told:
        training.run()
    return config.output


def _accelerator(config: TrainConfig) -> Accelerator:
    cpu = config.model.device == "cpu" or not torch.cuda.is_available()
    return Accelerator(cpu=cpu, mixed_precision="no" if cpu else "bf16")


def _load(config: TrainConfig, accelerator: Accelerator) -> ModelPair:
    """Load the target alone, on this process's device."""
    model = config.model
    check_needs(
        checkpoints.find(model.target, model.target_revision),
        model,
        frozenset(config.recipe.needs) - {"draft"},
    )
    if accelerator.device.type == "cuda" and model.device in ("auto", "cuda"):
        model = replace(model, device=f"cuda:{accelerator.local_process_index}")
    return load_pair(model, needs=frozenset({"hidden_states", "features"}))


class _Training:
    """One training at work.

    Args:
        config: What was asked for.
        learner: What is trained.
        accelerator: Processes and devices.
        models: The pair whose target is frozen.
        told: How far it is.
    """

    def __init__(
        self,
        config: TrainConfig,
        learner: Learner,
        accelerator: Accelerator,
        models: ModelPair,
        told: Told,
    ) -> None:
        self._config, self._learner, self._told = config, learner, told
        self._accelerator = accelerator
        self._models = models
        task = for_tokenizer(load_task(config.task), models.tokenizer)
        layers = learner.layers(models.target.layers)
        self._frozen = Frozen(models, task, config.recipe.data, config.seed, layers)
        self._task = task

    def run(self) -> None:
        """Write the corpus, descend, and publish."""
        config, recipe = self._config, self._config.recipe
        self._corpus = self._frozen.corpus(self._accelerator, self._told.about)
        lengths = [len(each.tokens) for each in self._corpus.documents]
        self._order = Order(lengths, recipe.batch_tokens, config.seed)
        answers = [each.tokens[each.prompt :] for each in self._corpus.documents]
        torch.manual_seed(config.seed)
        self._learner.begin(
            Room(config, self._frozen, answers, self._batch, self._accelerator.device, config.seed)
        )
        module = self._learner.module
        parameters = [each for each in module.parameters() if each.requires_grad]
        optimizer = _optimizer(recipe.optimizer, parameters)
        folder = config.output / "state"
        identity = digest_of(
            {
                **config.identity(),
                "corpus": self._corpus.digest,
                "target": self._models.provenance["target"]["digest"],
                "beside": self._learner.read_beside(),
            }
        )
        if not config.resume and self._accelerator.is_main_process:
            (folder / FILE).unlink(missing_ok=True)
        self._accelerator.wait_for_everyone()
        self._history = history = load_state(folder, module, optimizer, identity)
        self._told.begin(config.recipe.name, history.step, recipe.steps)
        if history.step == 0:
            self._check(0)
        self._since: list[float] = []
        begun = time.monotonic() - history.seconds

        def take(step: int) -> None:
            settings = recipe.optimizer
            factor = factor_of(step, recipe.steps, settings.schedule, settings.warmup)
            set_rate(optimizer, settings.rate * factor)
            optimizer.step()

        def keep(step: int) -> None:
            history.step, history.seconds = step, time.monotonic() - begun
            if step % recipe.check_every == 0 or step == recipe.steps:
                self._check(step)
                history.seconds = time.monotonic() - begun
            if step % recipe.save_every == 0 or step == recipe.steps:
                publish(config.output, self._learner.write, self._about())
                save_state(folder, module, optimizer, history, identity)

        descend(
            parameters,
            recipe.steps,
            self._loss,
            take,
            Log(recipe.name, recipe.steps),
            save=keep,
            save_every=1,
            kept=lambda step: step - step % recipe.save_every,
            clip=recipe.optimizer.clip,
            start=history.step,
            say=lambda line: None,
        )

    def _batch(self, step: int, layers: Sequence[int] = ()) -> Batch:
        """Return this process's rows of a step's batch, with the states that are kept on disk."""
        rows = self._order.of(step)[self._accelerator.process_index :: self._processes]
        return self._corpus.batch([self._corpus.documents[row] for row in rows], layers)

    @property
    def _processes(self) -> int:
        return int(self._accelerator.num_processes)

    @property
    def _kept(self) -> Sequence[int]:
        return self._frozen.layers if self._config.recipe.data.taps == "disk" else ()

    def _loss(self, step: int) -> Loss:
        source = torch.Generator()
        place = f"{self._config.seed}/{step}/{self._accelerator.process_index}"
        source.manual_seed(random.Random(f"step/{place}").getrandbits(63))
        batch = self._frozen.seen(self._batch(step, self._kept))
        with self._accelerator.autocast():
            found = self._learner.loss(step, batch, source)
        shared = torch.tensor(
            [found.value.item(), found.places], dtype=torch.float64, device=batch.tokens.device
        )
        total, count = reduce(shared, reduction="sum").tolist()
        shown = total / max(count, 1)
        self._history.tokens += int(count)
        self._since.append(shown)
        if (step + 1) % _SHOWN == 0 or step + 1 == self._config.recipe.steps:
            self._history.losses.append((step + 1, sum(self._since) / len(self._since)))
            self._since.clear()
        self._told.step(step + 1, shown)
        return Loss(found.value / max(count, 1), shown)

    def _held_out(self) -> Iterator[Batch]:
        documents = self._corpus.held_out
        lengths = [len(each.tokens) for each in documents]
        most = self._config.recipe.batch_tokens
        for group in grouped(range(len(documents)), lengths, most):
            batch = self._corpus.batch([documents[index] for index in group], self._kept)
            yield self._frozen.seen(batch)

    @torch.no_grad()
    def _check(self, step: int) -> None:
        """Note how often what is trained would be accepted on prompts that it never saw."""
        found: list[list[float]] = []
        module = self._learner.module.eval()
        for batch in self._held_out():
            for depth, laws in enumerate(self._learner.drafts(batch)):
                overlap = torch.minimum(laws.draft.softmax(-1), laws.target.softmax(-1)).sum()
                same = (laws.draft.argmax(-1) == laws.target.argmax(-1)).sum()
                if depth == len(found):
                    found.append([0.0, 0.0, 0.0])
                for index, value in enumerate((overlap, same, len(laws.draft))):
                    found[depth][index] += float(value)
        module.train()
        sampled = [overlap / count for overlap, _, count in found]
        greedy = [same / count for _, same, count in found]
        self._history.checks.append({"step": step, "sampled": sampled, "greedy": greedy})
        self._told.check(step, sampled, greedy)

    def _about(self) -> dict[str, Any]:
        """Return what is written beside the weights, and from there into every result file."""
        config, history = self._config, self._history
        target = self._models.provenance["target"]
        last = history.checks[-1]
        return {
            "specbench": __version__,
            "recipe": config.recipe.name,
            "settings": config.identity()["recipe"],
            "seed": config.seed,
            "target": {name: target[name] for name in ("source", "revision", "digest")},
            "data": {
                "task": self._task.name,
                "task_digest": self._task.digest,
                "documents": len(self._corpus.documents),
                "digest": self._corpus.digest,
            },
            "steps": history.step,
            "tokens": history.tokens,
            "seconds": round(history.seconds, 1),
            "loss": history.losses[-1][1] if history.losses else None,
            "held_out": {name: last[name] for name in ("sampled", "greedy")},
            "device": device_name(self._accelerator.device),
            "processes": self._processes,
            **self._learner.read_beside(),
            "history": {"losses": history.losses, "checks": history.checks},
        }


def _optimizer(settings: OptimizerConfig, parameters: Sequence[torch.nn.Parameter]) -> Any:
    return torch.optim.AdamW(
        parameters,
        lr=settings.rate,
        betas=(settings.beta1, settings.beta2),
        weight_decay=settings.weight_decay,
    )
