"""Medusa's and Hydra's heads, in training: each guesses a token further on.

Read in FasterDecoding/Medusa, medusa/train/train_legacy.py, and zankner/Hydra,
hydra/train/train.py. The arithmetic is the heads' own (`specbench.models.heads`).

Shape legend: B rows, T tokens, C channels, K heads, N places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig

from specbench.errors import ConfigError
from specbench.models.heads.hydra import HydraHeads, HydraSettings
from specbench.models.heads.medusa import MedusaHeads, MedusaSettings
from specbench.training.corpus import Batch
from specbench.training.learner import Laws, Learner, Room, Sum
from specbench.training.losses.levels import guessed, level_loss
from specbench.training.saving import write_head


class _Levels(Learner):
    """What both share: places, labels and laws.

    Args:
        heads: K.
        decay: Weight of a head's loss by that of the head before it.
        token_weight: Of the cross-entropy of the tokens that the target wrote.
        law_weight: Of the cross-entropy under the target's law (Hydra's teacher loss).
    """

    def __init__(self, heads: int, decay: float, token_weight: float, law_weight: float) -> None:
        if heads < 1 or token_weight + law_weight <= 0 or min(token_weight, law_weight) < 0:
            raise ConfigError(
                f"'recipe.learner' has heads={heads}, token_weight={token_weight:g} and "
                f"law_weight={law_weight:g}",
                "there is at least one head, and one of the two losses has a weight above 0",
            )
        self._count, self._decay = heads, decay
        self._weights = (token_weight, law_weight)

    def begin(self, room: Room) -> None:
        """Make heads that begin as the target's LM head."""
        self._frozen = room.frozen
        self._head = room.frozen.lm_head()
        self._devices = [room.device] if room.device.type == "cuda" else []
        self.module = self._make(room).to(room.device)

    def _make(self, room: Room) -> MedusaHeads | HydraHeads:
        raise NotImplementedError

    def _guess(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each head's places, [B, T] bool, and its logits there, [N, V]."""
        raise NotImplementedError

    def _law(self, batch: Batch, level: int, places: Tensor) -> Tensor:
        """Return the target's logits for the tokens that a head guesses, [N, V]."""
        return self._frozen.logits(batch.states[-1].roll(-1 - level, 1)[places])

    def loss(self, step: int, batch: Batch, source: torch.Generator) -> Sum:
        """Return the loss of all heads along the answers."""
        with torch.random.fork_rng(self._devices):  # of dropouts, which know no generator
            torch.manual_seed(int(torch.randint(1 << 62, (1,), generator=source)))
            found = list(self._guess(batch))
        logits = [own for _, own in found]
        value = torch.zeros((), device=logits[0].device)
        token_weight, law_weight = self._weights
        if token_weight:
            labels = [
                batch.tokens.roll(-2 - level, 1)[places] for level, (places, _) in enumerate(found)
            ]
            value = value + token_weight * level_loss(logits, labels, self._decay).value
        if law_weight:
            laws = [
                self._law(batch, level, places).softmax(-1)
                for level, (places, _) in enumerate(found)
            ]
            value = value + law_weight * level_loss(logits, laws, self._decay).value
        return Sum(value, len(logits[0]))

    def drafts(self, batch: Batch) -> Iterator[Laws]:
        """Yield each head's law beside the target's."""
        for level, (places, logits) in enumerate(self._guess(batch)):
            yield Laws(logits.float(), self._law(batch, level, places))


class Medusa(_Levels):
    """Medusa's heads.

    Args:
        layers: Residual blocks of a head.
        own_lm_head: Whether each head has an LM head of its own, as the released ones of v1.3 do;
            without, they use the target's (`version` "2").
        options: As `_Levels`.
    """

    def __init__(self, layers: int, own_lm_head: bool, **options: Any) -> None:
        super().__init__(**options)
        self._layers, self._own = layers, own_lm_head

    def _make(self, room: Room) -> MedusaHeads:
        vocabulary, channels = self._head.shape
        own = vocabulary if self._own else None
        settings = MedusaSettings(self._count, self._layers, channels, own)
        return MedusaHeads(settings, self._head if self._own else None)

    def _guess(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        heads: Any = self.module
        for level in range(self._count):
            places = guessed(batch.learned, level)
            states = batch.states[-1][places]
            yield places, heads.level(level, states, lambda x: F.linear(x, self._head))

    def write(self, folder: Path) -> None:
        """Write the heads in Medusa's layout, in float16."""
        settings = {
            "base_model_name_or_path": self._frozen.source,
            "medusa_num_heads": self._count,
            "medusa_num_layers": self._layers,
        }
        if not self._own:
            settings["version"] = "2"
        write_head(self.module, settings, folder, "medusa_lm_head.safetensors")


class Hydra(_Levels):
    """Hydra's heads, and Hydra++'s.

    Args:
        layers: Blocks of a head, the first included; those behind it are one, repeated.
        plus: Whether a block of the target's shape stands before them (Hydra++).
        dropout: Share of its inputs that Hydra++ leaves out in training.
        train_lm_heads: Whether the heads' LM heads are trained, as in the release; else they stay
            the target's, and the file holds them once.
        options: As `_Levels`.
    """

    def __init__(
        self, layers: int, plus: bool, dropout: float, train_lm_heads: bool, **options: Any
    ) -> None:
        super().__init__(**options)
        self._layers, self._plus, self._dropout = layers, plus, dropout
        self._train_lm_heads = train_lm_heads

    def _make(self, room: Room) -> HydraHeads:
        vocabulary, channels = self._head.shape
        settings = HydraSettings(
            self._count, self._layers, channels, vocabulary, plus=self._plus, dropout=self._dropout
        )
        block = None
        if self._plus:
            own = room.target_settings()
            if own.model_type != "llama":
                raise ConfigError(
                    f"Hydra++ cannot be trained behind '{room.config.model.target}'",
                    f"its block is a Llama's, and the target is a {own.model_type}",
                    "Set recipe.learner.plus=false.",
                )
            block = LlamaConfig(**{**own.to_dict(), "num_hidden_layers": 1})
        heads = HydraHeads(settings, block, self._head)
        if not self._train_lm_heads:
            first, *others = (part for part in heads.hydra_lm_head.modules() if _is_linear(part))
            for own in others:
                own.weight, own.bias = first.weight, first.bias
            heads.hydra_lm_head.requires_grad_(False)
        return heads

    def _guess(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        heads: Any = self.module
        read, embedded = heads.read(batch.states[-1]), self._frozen.embed(batch.tokens)
        for level in range(self._count):
            places = guessed(batch.learned, level)
            tokens = [embedded.roll(-1 - step, 1)[places] for step in range(level + 1)]
            yield places, heads.level(level, torch.cat([read[places], *tokens], -1))

    def write(self, folder: Path) -> None:
        """Write the heads in Hydra's layout, in float16; equal tensors are kept once."""
        settings = {
            "base_model_name_or_path": self._frozen.source,
            "grounded_heads": True,
            "hidden_state_offset": 0,
            "hydra_head_arch": "prefix-mlp" if self._plus else "mlp",
            "hydra_num_heads": self._count,
            "hydra_num_layers": self._layers,
        }
        write_head(self.module, settings, folder, "hydra_lm_head.pt")


def _is_linear(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear)
