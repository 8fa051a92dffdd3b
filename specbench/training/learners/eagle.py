"""EAGLE's heads, in training: they continue the target's states, and their own behind these.

Entry t joins token t + 1 and the feature of token t; what it makes stands for the feature of
token t + 1, whose law is of token t + 2. Step i of a draft reads token t + 1 + i and what step
i - 1 made.

Shape legend: B rows, T tokens, C channels, V vocabulary, D ids of a draft vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specbench.training.corpus import Batch
from specbench.training.learner import Laws, Learner, Room, Sum
from specbench.training.learners.block import Block, Keys, block_config
from specbench.training.losses.features import (
    feature_loss,
    frequent_ids,
    noisy,
    reduced,
    soft_cross_entropy,
)
from specbench.training.losses.levels import guessed
from specbench.training.saving import write_head


class _Eagle(Learner):
    """What both generations share: places, and drafting from all of them at once.

    Args:
        check_depth: Tokens of a draft that are checked on held-out prompts.
    """

    file = "model.safetensors"

    def __init__(self, check_depth: int) -> None:
        self._depth = check_depth

    def begin(self, room: Room) -> None:
        """Make a head whose block begins as the residual alone."""
        self._frozen = room.frozen
        self._head = room.frozen.lm_head()
        self._config = block_config(room.target_settings(), room.frozen.models.target.vocab_size)
        self.module = self._make().to(room.device)
        for name, parameter in self.module.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)

    def _make(self) -> nn.Module:
        raise NotImplementedError

    def _features(self, batch: Batch) -> Tensor:
        """Return the features of the true tokens, [B, T, C]."""
        raise NotImplementedError

    def _step(self, embedded: Tensor, features: Tensor, keys: Keys) -> Tensor:
        """Return what a step makes, [B, T, C]."""
        raise NotImplementedError

    def _law(self, made: Tensor) -> Tensor:
        """Return the logits of what was made, [N, C] to [N, V or D]."""
        raise NotImplementedError

    def _drafted(self, batch: Batch, features: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield for each step its places, [B, T] bool, and what it makes, [B, T, C]."""
        embedded = self._frozen.embed(batch.tokens)
        keys: Keys = []
        for step in range(batch.tokens.shape[1]):
            features = self._step(embedded.roll(-1 - step, 1), features, keys)
            yield guessed(batch.learned, step), features

    def _target(self, batch: Batch, step: int, places: Tensor) -> Tensor:
        """Return the target's logits for the tokens that a step drafts, [N, V]."""
        return self._frozen.logits(batch.states[-1].roll(-1 - step, 1)[places])

    def drafts(self, batch: Batch) -> Iterator[Laws]:
        """Yield the law of each step of a draft, all tokens before it as the target wrote them."""
        steps = islice(self._drafted(batch, self._features(batch)), self._depth)
        for step, (places, made) in enumerate(steps):
            yield Laws(self._whole(self._law(made[places])), self._target(batch, step, places))

    def _whole(self, logits: Tensor) -> Tensor:
        """Return logits over all ids of the target."""
        return logits.float()

    def write(self, folder: Path) -> None:
        """Write the head under its published names in float16; the embedding is the target's."""
        write_head(self.module, self._config.to_dict(), folder, self.file)


class Eagle1(_Eagle):
    """EAGLE-1's head, which EAGLE-2 drafts with too.

    Args:
        feature_weight: Of the smooth L1 loss of features.
        law_weight: Of the cross-entropy under the target's law.
        noise: Width of the uniform noise on features of a text of 512 tokens.
        check_depth: Tokens of a draft that are checked on held-out prompts.
    """

    def __init__(
        self, feature_weight: float, law_weight: float, noise: float, check_depth: int
    ) -> None:
        super().__init__(check_depth)
        self._weights, self._noise = (feature_weight, law_weight), noise

    def _make(self) -> nn.Module:
        channels = self._config.hidden_size
        module = nn.Module()
        module.fc = nn.Linear(2 * channels, channels, bias=False)
        module.layers = nn.ModuleList([Block(self._config, channels)])
        return module

    def _features(self, batch: Batch) -> Tensor:
        return batch.states[-1]

    def _step(self, embedded: Tensor, features: Tensor, keys: Keys) -> Tensor:
        module: Any = self.module
        x = module.fc(torch.cat([embedded, features], -1))
        made: Tensor = module.layers[0](x, x, keys)
        return made

    def _law(self, made: Tensor) -> Tensor:
        return F.linear(made, self._head)

    def loss(self, step: int, batch: Batch, source: torch.Generator) -> Sum:
        """Return the loss of the first step behind true, noisy features."""
        features = noisy(batch.states[-1], self._noise, source)
        places, made = next(self._drafted(batch, features))
        true = batch.states[-1].roll(-1, 1)[places]
        own = made[places]
        laws = soft_cross_entropy(self._frozen.logits(true), self._law(own).float())
        feature_weight, law_weight = self._weights
        value = feature_weight * feature_loss(own, true) + law_weight * laws
        return Sum(value.sum(), len(own))


class Eagle3(_Eagle):
    """EAGLE-3's head: three layers of the target, a vocabulary of its own, unrolled steps.

    Args:
        steps: Steps of a draft that are learned.
        decay: Weight of a step's loss by that of the step before it.
        draft_vocabulary: D, the most frequent ids of the answers.
        check_depth: Tokens of a draft that are checked on held-out prompts.
    """

    def __init__(self, steps: int, decay: float, draft_vocabulary: int, check_depth: int) -> None:
        super().__init__(check_depth)
        self._steps, self._decay, self._size = steps, decay, draft_vocabulary

    def layers(self, blocks: int) -> Sequence[int]:
        """Return a low, a middle and a high block, and the final state for the target's law."""
        return (1, blocks // 2 - 1, blocks - 4, -1)

    def begin(self, room: Room) -> None:
        """Choose the draft vocabulary and make the head."""
        self._taps = self.layers(room.frozen.models.target.layers)[:3]
        vocabulary = room.frozen.models.target.vocab_size
        answers = torch.tensor([token for text in room.answers for token in text])
        self._ids = frequent_ids(answers, min(self._size, vocabulary), vocabulary).to(room.device)
        super().begin(room)
        self._config.draft_vocab_size = len(self._ids)

    def _make(self) -> nn.Module:
        config = self._config
        channels, vocabulary = config.hidden_size, config.vocab_size
        module = nn.Module()
        module.fc = nn.Linear(3 * channels, channels, bias=False)
        module.midlayer = Block(config, 2 * channels)
        for name in ("input_layernorm", "hidden_norm"):
            module.midlayer.add_module(name, nn.RMSNorm(channels, eps=config.rms_norm_eps))
        module.norm = nn.RMSNorm(channels, eps=config.rms_norm_eps)
        module.lm_head = nn.Linear(channels, len(self._ids), bias=False)
        module.lm_head.weight.data.copy_(self._head[self._ids])
        own = torch.arange(len(self._ids), device=self._ids.device)
        module.register_buffer("d2t", self._ids - own)
        known = torch.zeros(vocabulary, dtype=torch.bool, device=self._ids.device)
        module.register_buffer("t2d", known.index_fill(0, self._ids, True))
        return module

    def _features(self, batch: Batch) -> Tensor:
        module: Any = self.module
        features: Tensor = module.fc(torch.cat([batch.states[layer] for layer in self._taps], -1))
        return features

    def _step(self, embedded: Tensor, features: Tensor, keys: Keys) -> Tensor:
        block: Any = self.module.midlayer
        read = torch.cat([block.input_layernorm(embedded), block.hidden_norm(features)], -1)
        made: Tensor = block(read, features, keys)
        return made

    def _law(self, made: Tensor) -> Tensor:
        module: Any = self.module
        logits: Tensor = module.lm_head(module.norm(made))
        return logits

    def _whole(self, logits: Tensor) -> Tensor:
        whole = logits.new_full((len(logits), self._config.vocab_size), -torch.inf).float()
        return whole.index_copy(1, self._ids, logits.float())

    def loss(self, step: int, batch: Batch, source: torch.Generator) -> Sum:
        """Return the loss of all steps, each behind what the step before it made."""
        losses: list[Tensor] = []
        first = 0
        steps = islice(self._drafted(batch, self._features(batch)), self._steps)
        for number, (places, made) in enumerate(steps):
            target, known = reduced(self._target(batch, number, places), self._ids)
            own = self._law(made[places]).float()[known]
            losses.append(self._decay**number * soft_cross_entropy(target[known], own).sum())
            first = first or len(own)
        return Sum(torch.stack(losses).sum(), first)
