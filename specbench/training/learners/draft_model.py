"""A draft model that learns the target's law: what DistillSpec and AdaSPEC train.

The module is transformers' own, so that what is written is the published layout.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from specbench.errors import ConfigError
from specbench.law import Law
from specbench.models import checkpoint as checkpoints
from specbench.models.decoder import LeanDecoder
from specbench.models.lean_weights import supports
from specbench.models.load import check_vocabularies, load_tokenizer
from specbench.models.pretrained import read_module, read_settings
from specbench.rng import Streams
from specbench.training.answers import write_answers
from specbench.training.corpus import Batch, padded
from specbench.training.learner import Laws, Learner, Room, Sum
from specbench.training.losses.divergences import Distillation
from specbench.training.losses.token_filter import filtered
from specbench.training.saving import write_model


class DraftModel(Learner):
    """A causal language model with the target's vocabulary.

    Args:
        loss: The divergence that is descended.
        keep: Share of the places that are learned, the others filtered out by a reference
            (AdaSPEC); 1 learns all and needs no reference.
        reference: The reference's checkpoint, a draft that was distilled before.
        on_policy: Share of the steps that learn from answers that the draft writes itself.
        student_temperature: At which it writes them.
        refresh: Steps after which it writes new ones, with the weights that it then has.

    Raises:
        ConfigError: If a value is not possible.
    """

    def __init__(
        self,
        loss: Distillation,
        on_policy: float,
        student_temperature: float,
        refresh: int,
        keep: float = 1.0,
        reference: str | None = None,
    ) -> None:
        for name, value in (("on_policy", on_policy), ("keep", keep)):
            if not 0 <= value <= 1 or (name == "keep" and not value):
                raise ConfigError(
                    f"'recipe.learner.{name}' cannot be {value}", "it is a share of at most 1"
                )
        if keep < 1 and reference is None:
            raise ConfigError(
                "'recipe.learner.reference' is missing",
                "the filter needs a draft that was distilled on all tokens before",
                "Train one: specbench train recipe=distillspec output=trained/reference "
                "recipe.learner.loss.divergence=forward_kl recipe.learner.on_policy=0; "
                "then add recipe.learner.reference=trained/reference.",
            )
        self._loss, self._keep, self._place = loss, keep, reference
        self._on_policy, self._temperature = on_policy, student_temperature
        self.refresh = refresh if on_policy else 1
        self._written: dict[int, Batch] = {}

    def begin(self, room: Room) -> None:
        """Load the draft, and the reference where there is one."""
        self._room = room
        model = room.config.model
        assert model.draft is not None, "the recipe needs one"
        self._files = checkpoints.find(model.draft, model.draft_revision)
        self.module = self._read(self._files, room)
        self._reference: nn.Module | None = None
        self._reference_files = None
        if self._place is not None and self._keep < 1:
            self._reference_files = checkpoints.find(self._place, None)
            self._reference = self._read(self._reference_files, room).requires_grad_(False)

    def _read(self, files: checkpoints.Checkpoint, room: Room) -> Any:
        model = room.config.model
        tokenizer = load_tokenizer(files, model)
        check_vocabularies(room.frozen.models.tokenizer, tokenizer, model.target, files.source)
        settings = read_settings(files)
        if self._on_policy and not supports(settings):
            raise ConfigError(
                f"'{files.source}' cannot write answers while it learns",
                f"the lean engine does not run its architecture '{settings.model_type}'",
                "Set recipe.learner.on_policy=0.",
            )
        module, _ = read_module(AutoModelForCausalLM, files, settings, torch.float32)
        return module.to(room.device)

    def loss(self, step: int, batch: Batch, source: torch.Generator) -> Sum:
        """Return the divergence of one step, on the draft's own answers in a share of them."""
        if self._on_policy and self._is_own(step):
            if step not in self._written:
                self._write_answers(step)
            batch = self._room.frozen.seen(self._written.pop(step))
        places = batch.predicting
        draft = self._logits(self.module, batch, places)
        target = self._room.frozen.logits(batch.states[-1][places])[:, : draft.shape[-1]]
        if self._reference is None:
            return self._loss(target, draft)
        with torch.no_grad():
            reference = self._logits(self._reference, batch, places)
        return filtered(target, draft, reference, self._keep)

    def _is_own(self, step: int) -> bool:
        return random.Random(f"on-policy/{self._room.seed}/{step}").random() < self._on_policy

    def _write_answers(self, step: int) -> None:
        """Let the draft answer the prompts of its own steps up to the next refresh."""
        last = (step // self.refresh + 1) * self.refresh
        own = [number for number in range(step, last) if self._is_own(number)]
        asked: list[tuple[int, list[int]]] = []
        for number in own:
            batch = self._room.planned(number)
            for row, learned in zip(batch.tokens, batch.learned, strict=True):
                start = int(learned.int().argmax())
                asked.append((number, row[:start].tolist()))
        models, config = self._room.frozen.models, self._room.config
        limit = config.recipe.data.max_new_tokens or config.task.max_new_tokens
        assert limit is not None
        decoder = LeanDecoder.of(
            copy.deepcopy(self.module), "student", self._room.device, torch.float32
        )
        law = Law(temperature=self._temperature)
        rows = config.recipe.data.rows
        answers: list[list[int]] = []
        for start in range(0, len(asked), rows):
            part = asked[start : start + rows]
            prompts = [prompt for _, prompt in part]
            streams = [
                Streams(self._room.seed, f"student/{number}/{start + index}")
                for index, (number, _) in enumerate(part)
            ]
            answers += write_answers(decoder, prompts, streams, law, models.stop_ids, limit)
        self._written = {}
        for number in own:
            mine = [pair for pair in zip(asked, answers, strict=True) if pair[0][0] == number]
            documents = [prompt + answer for (_, prompt), answer in mine]
            self._written[number] = padded(documents, [len(prompt) for (_, prompt), _ in mine])

    def _logits(self, module: nn.Module, batch: Batch, places: Tensor) -> Tensor:
        """Return a module's logits at some places, [N, V], over the target's ids."""
        body: Any = module
        states = body.model(input_ids=batch.tokens, use_cache=False).last_hidden_state
        logits: Tensor = body.lm_head(states[places]).float()
        return logits[:, : self._room.frozen.models.target.vocab_size]

    def drafts(self, batch: Batch) -> Iterator[Laws]:
        """Yield the draft's law beside the target's."""
        places = batch.predicting
        draft = self._logits(self.module, batch, places)
        target = self._room.frozen.logits(batch.states[-1][places])
        yield Laws(draft, target[:, : draft.shape[-1]])

    def write(self, folder: Path) -> None:
        """Write the draft as it was read: configuration, tokenizer, weights of the same dtype."""
        write_model(self.module, self._files, folder)

    def read_beside(self) -> Mapping[str, Any]:
        """Return the draft that it began as, and the reference."""
        found = {"began_as": checkpoints.describe(self._files)}
        if self._reference_files is not None:
            found["reference"] = checkpoints.describe(self._reference_files)
        return found
