"""A copy of the target that learns to be read early: what LayerSkip trains.

Shape legend: B rows, T tokens, C channels, N places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM

from specbench.errors import ConfigError
from specbench.models import checkpoint as checkpoints
from specbench.models.pretrained import read_module, read_settings
from specbench.training.corpus import Batch
from specbench.training.learner import Laws, Learner, Room, Sum
from specbench.training.losses.early_exit import (
    CURRICULA,
    dropout_rates,
    enabled_exits,
    exit_weights,
)
from specbench.training.saving import write_model


class EarlyExit(Learner):
    """The target's own weights, trained on its own answers with layer dropout and early exits.

    Args:
        max_dropout: Probability with which the last layer is left out for a row.
        curriculum: Which exits a step learns: "gradual" or "rotating".
        rotation: Layers between two exits of one step, where they rotate.
        weighting: Of the exits: "linear" or "uniform".
        scale: Of every exit's loss but the last one's.

    Raises:
        ConfigError: If a value is not possible.
    """

    def __init__(
        self, max_dropout: float, curriculum: str, rotation: int, weighting: str, scale: float
    ) -> None:
        if curriculum not in CURRICULA or not 0 <= max_dropout < 1 or rotation < 1:
            raise ConfigError(
                f"'recipe.learner' has curriculum={curriculum}, max_dropout={max_dropout:g} and "
                f"rotation={rotation}",
                f"the curriculum is one of {', '.join(CURRICULA)}, the dropout less than 1, the "
                "rotation at least 1",
            )
        self._dropout, self._curriculum, self._rotation = max_dropout, curriculum, rotation
        self._weighting, self._scale = weighting, scale

    def layers(self, blocks: int) -> Sequence[int]:
        """Return nothing: it has the target's layers itself."""
        return ()

    def begin(self, room: Room) -> None:
        """Load a copy of the target."""
        model = room.config.model
        self._files = checkpoints.find(model.target, model.target_revision)
        settings = read_settings(self._files)
        module, _ = read_module(AutoModelForCausalLM, self._files, settings, torch.float32)
        self.module = module.to(room.device)
        self._steps = room.config.recipe.steps

    def _states(self, batch: Batch, source: torch.Generator | None) -> Iterator[Tensor]:
        """Yield the states behind each layer, [B, T, C]; with a source some rows skip some."""
        whole: Any = self.module
        body = whole.model
        states = body.embed_tokens(batch.tokens)
        places = torch.arange(states.shape[1], device=states.device)[None]
        rotary = body.rotary_emb(states, places)
        rates = dropout_rates(len(body.layers), self._dropout)
        for layer, rate in zip(body.layers, rates, strict=True):
            kept = torch.ones(len(states), dtype=torch.bool)
            if source is not None:
                kept = torch.rand(len(states), generator=source) >= rate
            if kept.any():
                rows = kept.nonzero()[:, 0].to(states.device)
                made = layer(states[rows], position_embeddings=rotary, position_ids=places)
                made = made[0] if isinstance(made, tuple) else made
                states = states.index_copy(0, rows, made)
            yield states

    def _law(self, states: Tensor) -> Tensor:
        whole: Any = self.module
        logits: Tensor = whole.lm_head(whole.model.norm(states)).float()
        return logits

    def loss(self, step: int, batch: Batch, source: torch.Generator) -> Sum:
        """Return the weighted cross-entropies of the exits that this step learns."""
        count = len(self.module.model.layers)
        enabled = enabled_exits(self._curriculum, count, step, self._steps, self._rotation)
        weights = exit_weights(enabled, self._weighting, self._scale)
        places = batch.predicting
        labels = batch.tokens.roll(-1, 1)[places]
        losses = [
            weight * F.cross_entropy(self._law(states[places]), labels, reduction="sum")
            for weight, states in zip(weights, self._states(batch, source), strict=True)
            if weight
        ]
        return Sum(torch.stack(losses).sum(), len(labels))

    def drafts(self, batch: Batch) -> Iterator[Laws]:
        """Yield the law at each early exit beside the model's own."""
        places = batch.predicting
        *exits, last = [self._law(states[places]) for states in self._states(batch, None)]
        for early in exits:
            yield Laws(early, last)

    def write(self, folder: Path) -> None:
        """Write the model as it was read: configuration, tokenizer, weights of the same dtype."""
        write_model(self.module, self._files, folder)
