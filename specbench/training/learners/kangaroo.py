"""Kangaroo's adapter, in training: behind the target's first blocks it learns the target's law.

Read in github.com/Equationliu/Kangaroo (train.py): the cross-entropy under the target's law at
every place, read by the frozen LM head; all else is frozen too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig

from specbench.decoding.ranges import check_whole
from specbench.training.corpus import Batch
from specbench.training.learner import Laws, Learner, Room, Sum
from specbench.training.learners.block import Attention, block_config
from specbench.training.losses.features import soft_cross_entropy
from specbench.training.saving import write_head


class Kangaroo(Learner):
    """One attention between two norms.

    Args:
        exit_layer: Blocks of the target behind which it stands; the published file does not say.

    Raises:
        ConfigError: If it is less than one.
    """

    module: _Adapter

    def __init__(self, exit_layer: int) -> None:
        check_whole("exit_layer", exit_layer, 1)
        self._exit = exit_layer - 1

    def layers(self, blocks: int) -> Sequence[int]:
        """Return the exit block, and the final state for the target's law."""
        return (self._exit, -1)

    def begin(self, room: Room) -> None:
        """Make an adapter that begins as the residual alone."""
        self._frozen = room.frozen
        self._head = room.frozen.lm_head()
        self._config = block_config(room.target_settings(), room.frozen.models.target.vocab_size)
        self.module = _Adapter(self._config).to(room.device)
        nn.init.zeros_(self.module.layers[0].self_attn.o_proj.weight)

    def drafts(self, batch: Batch) -> Iterator[Laws]:
        """Yield the law of the next token, all tokens before it as the target wrote them."""
        places = batch.predicting
        own = F.linear(self.module(batch.states[self._exit])[places], self._head).float()
        yield Laws(own, self._frozen.logits(batch.states[-1][places]))

    def loss(self, step: int, batch: Batch, source: object) -> Sum:
        """Return the cross-entropy under the target's law."""
        laws = next(self.drafts(batch))
        return Sum(soft_cross_entropy(laws.target, laws.draft).sum(), len(laws.draft))

    def write(self, folder: Path) -> None:
        """Write the adapter under its published names in float16."""
        write_head(self.module, self._config.to_dict(), folder, "model.safetensors")


class _Layer(nn.Module):  # type: ignore[misc]
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = Attention(config, config.hidden_size)


class _Adapter(nn.Module):  # type: ignore[misc]
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_Layer(config)])
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, states: Tensor) -> Tensor:
        for layer in self.layers:
            states = states + layer.self_attn(layer.input_layernorm(states), [])
        normed: Tensor = self.norm(states)
        return normed
