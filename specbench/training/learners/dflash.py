"""DFlash's block drafter, in training behind a frozen target.

The arithmetic is that of `specbench.models.heads.dflash`; this module knows what is learned and how
a drafter begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specbench.models.heads.dflash import DFlashBody, DFlashSettings
from specbench.models.linear import PlainLinear
from specbench.training.corpus import Batch
from specbench.training.learner import Laws, Learner, Room, Sum
from specbench.training.losses.blocks import blocks_see, offset_weights, random_anchors
from specbench.training.saving import write_head

_CHECKED_ANCHORS = 24


class DFlash(Learner):
    """A drafter of a whole block of tokens.

    Args:
        block_size: Tokens of a block, the newest one included.
        layers: Its blocks.
        taps: How many of the target's blocks it reads, evenly spread.
        heads: Query and key-value heads.
        head_width: Width of each.
        feed_forward: Width of the feed-forward part.
        anchors: Blocks that are learned of each text.
        decay: A token at offset k counts exp(-(k - 1) / decay).
        mask_token: Id of the mask; null takes the tokenizer's padding.
        labels: "token" learns the next tokens, "law" the target's laws there.
    """

    def __init__(
        self,
        block_size: int,
        layers: int,
        taps: int,
        heads: int,
        head_width: int,
        feed_forward: int,
        anchors: int,
        decay: float,
        mask_token: int | None,
        labels: str,
    ) -> None:
        self._block, self._blocks, self._tapped = block_size, layers, taps
        self._heads, self._head_width, self._feed_forward = heads, head_width, feed_forward
        self._anchors, self._decay = anchors, decay
        self._mask_token, self._labels = mask_token, labels

    def layers(self, blocks: int) -> Sequence[int]:
        """Return the target's blocks that are read, and the final state for its laws."""
        return (*self._taps(blocks), -1)

    def _taps(self, blocks: int) -> list[int]:
        """Return blocks from 1 to the third last, evenly spread: 1, 9, 17, 25, 33 of 36."""
        last, count = blocks - 3, self._tapped
        return [1 + round(index * (last - 1) / max(count - 1, 1)) for index in range(count)]

    def begin(self, room: Room) -> None:
        """Make a drafter whose blocks begin as the identity."""
        target, self._frozen = room.frozen.models.target, room.frozen
        mask = self._mask_token
        if mask is None:
            mask = int(room.frozen.models.tokenizer.pad_token_id)
        self._lm_head = room.frozen.lm_head()
        self._published = {
            "architectures": ["DFlashDraftModel"],
            "model_type": "qwen3",
            "block_size": self._block,
            "num_target_layers": target.layers,
            "dflash_config": {
                "mask_token_id": mask,
                "target_layer_ids": self._taps(target.layers),
            },
            "hidden_size": self._lm_head.shape[1],
            "intermediate_size": self._feed_forward,
            "num_hidden_layers": self._blocks,
            "num_attention_heads": self._heads,
            "num_key_value_heads": self._heads,
            "head_dim": self._head_width,
            "max_position_embeddings": target.context,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "attention_bias": False,
            "tie_word_embeddings": False,
            "vocab_size": target.vocab_size,
            "dtype": "float16",
        }
        self._settings = DFlashSettings(self._published)
        self._rotary = self._settings.rotary(target.context, room.device, torch.float32)
        draw = torch.Generator().manual_seed(room.seed)
        self.module = nn.Module()
        for name, shape in self._settings.shapes().items():
            value = torch.ones(shape)
            if len(shape) == 2:
                value = torch.randn(shape, generator=draw) * shape[1] ** -0.5
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                value = torch.zeros(shape)
            _register(self.module, name, value)
        self.module.to(room.device)

    def _guesses(self, batch: Batch, anchors: Tensor) -> Tensor:
        """Return the logits of blocks behind anchors [B, A], [B, A, K, V]."""
        rows, count = anchors.shape
        tokens, settings = batch.tokens, self._settings
        length, block = tokens.shape[1], self._block
        read = torch.full((rows, count, block), settings.mask_token, device=tokens.device)
        read[..., 0] = tokens.gather(1, anchors)
        cos, sin = self._rotary
        places = (anchors[..., None] + torch.arange(block, device=tokens.device)).flatten(1)
        places = places.clamp(max=len(cos) - 1)
        weights = dict(self.module.named_parameters())
        body = DFlashBody(weights, settings, partial(PlainLinear, bias=None))
        states = [batch.states[tap] for tap in settings.taps]
        keys, values = body.context(states, (cos[None, :length], sin[None, :length]))
        hidden = ~blocks_see(anchors, length, block)
        seen = torch.zeros(hidden.shape, device=tokens.device).masked_fill(hidden, -torch.inf)

        def join(index: int, own_keys: Tensor, own_values: Tensor) -> tuple[Tensor, Tensor]:
            return torch.cat([keys[index], own_keys], 2), torch.cat([values[index], own_values], 2)

        embedded = self._frozen.embed(read.flatten(1))
        made = body.states(embedded, (cos[places], sin[places]), join, seen[:, None])
        return F.linear(made, self._lm_head).view(rows, count, block, -1)

    def _labelled(self, batch: Batch, anchors: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Return the place of each block token and whether it is learned, [B, A, K] each."""
        length = batch.tokens.shape[1]
        places = anchors[..., None] + torch.arange(self._block, device=anchors.device)
        inside = there[..., None] & (places < length)
        places = places.clamp(max=length - 1)
        learned = batch.learned.gather(1, places.flatten(1)).view_as(places)
        counted = inside & learned
        counted[..., 0] = False
        return places, counted

    def loss(self, step: int, batch: Batch, source: torch.Generator) -> Sum:
        """Return the weighted cross-entropy of blocks behind random anchors."""
        anchors, there = random_anchors(batch.learned, self._anchors, source)
        logits = self._guesses(batch, anchors)
        places, counted = self._labelled(batch, anchors, there)
        rows, _, offsets = counted.nonzero(as_tuple=True)
        at = places[counted]
        labels = batch.tokens[rows, at]
        if self._labels == "law":
            labels = self._frozen.logits(batch.states[-1][rows, at - 1]).softmax(-1)
        losses = F.cross_entropy(logits[counted], labels, reduction="none")
        weights = offset_weights(self._block, self._decay).to(losses.device)
        return Sum((losses * weights[offsets]).sum(), len(losses))

    def drafts(self, batch: Batch) -> Iterator[Laws]:
        """Yield the law at each offset beside the target's for the same token."""
        source = torch.Generator().manual_seed(0)
        anchors, there = random_anchors(batch.learned, _CHECKED_ANCHORS, source)
        logits = self._guesses(batch, anchors)
        places, counted = self._labelled(batch, anchors, there)
        for offset in range(1, self._block):
            rows, numbers = counted[..., offset].nonzero(as_tuple=True)
            at = places[rows, numbers, offset]
            target = self._frozen.logits(batch.states[-1][rows, at - 1])
            yield Laws(logits[rows, numbers, offset], target)

    def write(self, folder: Path) -> None:
        """Write the drafter under its published names, in float16."""
        write_head(self.module, self._published, folder, "model.safetensors")


def _register(module: nn.Module, name: str, value: Tensor) -> None:
    """Give a tree of modules a parameter of a dotted name."""
    *path, last = name.split(".")
    for part in path:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        inner: Any = module._modules[part]
        module = inner
    module.register_parameter(last, nn.Parameter(value))
