"""What a recipe trains: a module, its loss, how it is checked, and how it is written.

A learner is what tells one recipe from another; data, descent, states and provenance are one for
all (`specbench.training.room`). Its random choices come from the generator that it is handed, which
follows from the seed and the step, and it keeps nothing from step to step but the module's weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from specbench.models import checkpoint as checkpoints
from specbench.models.pretrained import read_settings
from specbench.schema.recipe import TrainConfig
from specbench.training.corpus import Batch
from specbench.training.frozen import Frozen


class Sum(NamedTuple):
    """A loss over some places.

    Attributes:
        value: Its sum, a scalar with gradients.
        places: Over how many places; the step descends the quotient over all processes.
    """

    value: Tensor
    places: int


class Laws(NamedTuple):
    """What a draft and the target say of the same places.

    Attributes:
        draft: Logits, [N, V].
        target: Logits, [N, V].
    """

    draft: Tensor
    target: Tensor


@dataclass(frozen=True)
class Room:
    """What a learner is given.

    Attributes:
        config: The training.
        frozen: The target.
        answers: The answers that are learned, as token ids.
        planned: Returns the batch of a later step, without states.
        device: Where the module shall be.
        seed: Of weights that begin at random.
    """

    config: TrainConfig
    frozen: Frozen
    answers: Sequence[Sequence[int]]
    planned: Callable[[int], Batch]
    device: torch.device
    seed: int

    def target_settings(self) -> Any:
        """Return the target's configuration, as transformers reads it."""
        model = self.config.model
        return read_settings(checkpoints.find(model.target, model.target_revision))


class Learner:
    """What a recipe trains.

    Attributes:
        module: What is trained, in float32; parameters without gradients stay as they are.
        refresh: States are kept at multiples of this many steps alone.
    """

    module: nn.Module
    refresh: int = 1

    def layers(self, blocks: int) -> Sequence[int]:
        """Return the target's states that it reads, as `Taps` numbers them.

        Args:
            blocks: Blocks of the target.
        """
        return (-1,)

    def begin(self, room: Room) -> None:
        """Make the module, where it begins.

        Raises:
            SpecbenchError: If it does not fit the target.
        """
        raise NotImplementedError

    def loss(self, step: int, batch: Batch, source: torch.Generator) -> Sum:
        """Return the loss of one step.

        Args:
            step: Its number.
            batch: What is learned, with the states of `layers`.
            source: Random numbers of this step and process, on the CPU.
        """
        raise NotImplementedError

    def drafts(self, batch: Batch) -> Iterator[Laws]:
        """Yield what it drafts for every place, a pair for each depth."""
        raise NotImplementedError

    def write(self, folder: Path) -> None:
        """Write the checkpoint in its published layout."""
        raise NotImplementedError

    def read_beside(self) -> Mapping[str, Any]:
        """Return what else it was made of, for provenance: where it began, a reference."""
        return {}
