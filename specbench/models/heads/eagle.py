"""EAGLE's head, which EAGLE-2 drafts with too: one block that continues the target's last states.

Li et al. 2024, "EAGLE: Speculative Sampling Requires Rethinking Feature Uncertainty", section 3;
read in the release, github.com/SafeAILab/EAGLE (eagle/model/cnets1.py). A token's embedding and the
feature of the token before it (the target's final, normed state) are joined by `fc`, without an
activation; blocks like the target's follow, the first without a norm before its attention. What
comes out stands for the next feature: the target's own LM head reads it, with no norm between, and
the next entry is fed it.

Published layout: config.json of a Llama of as many blocks, and `embed_tokens.weight`, `fc.weight`
(and `fc.bias`), `layers.N.*` in pytorch_model.bin or safetensors. The embedding is the target's,
frozen; where a file leaves it out, the target's is taken.

Shapes: T tokens, C channels, V ids.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from specbench.models.base import Model
from specbench.models.decoder import LeanDecoder
from specbench.models.heads.base import FeatureHead, HeadFiles, TargetShape, uniform
from specbench.models.heads.body import (
    EMBEDDING,
    BlockSettings,
    embedding_of,
    head_of,
    random_lm_head,
    read_block,
)
from specbench.models.lean_weights import projection
from specbench.models.state import State

_QUERY = "layers.0.self_attn.q_proj.weight"


class EagleHead(FeatureHead):
    """EAGLE's drafter behind one target; its features are C numbers, true and made ones alike.

    Args:
        body: The blocks, and the LM head that reads them.
        fc: [C, 2 C].
        bias: [C] or None.
        target: The model that it drafts for.
    """

    family = "eagle1"
    taps = (-1,)
    made = -1

    def __init__(self, body: LeanDecoder, fc: Tensor, bias: Tensor | None, target: Model) -> None:
        super().__init__(body, target)
        self._fc = projection(fc, bias, device=self.device, dtype=self.dtype)

    @classmethod
    def recognises(cls, files: HeadFiles) -> bool:
        """Say whether the files hold `fc`, and blocks that read its output alone."""
        fc, query = (files.shapes.get(name) for name in ("fc.weight", _QUERY))
        return fc is not None and query is not None and fc[:1] == query[1:]

    @classmethod
    def check(cls, files: HeadFiles, target: TargetShape) -> None:
        """Refuse a head of another width or vocabulary, or one that lacks weights."""
        settings = BlockSettings.of(files)
        files.fits("hidden width", settings.width, target.width, target)
        files.fits("vocabulary", settings.vocab_size, target.vocab_size, target)
        width = settings.width
        files.expect("fc.weight", width, 2 * width)
        if EMBEDDING in files.shapes:
            files.expect(EMBEDDING, target.vocab_size, width)
        for index in range(settings.layers):
            settings.check_block(files, f"layers.{index}.", width)

    @classmethod
    def load(cls, files: HeadFiles, target: Model) -> Self:
        """Read the weights; the LM head and a missing embedding are the target's."""
        state = files.read()
        return cls._of(BlockSettings.of(files), state, head_of(target), target, files.source)

    @classmethod
    def random(cls, target: Model, width: int, seed: int) -> Self:
        """Return a head of one small block, with an LM head of its own."""
        draw = torch.Generator().manual_seed(seed)
        settings = BlockSettings.small(width, target.vocab_size)
        tensors = settings.random_block("layers.0.", width, draw)
        tensors[EMBEDDING] = uniform(draw, target.vocab_size, width)
        tensors["fc.weight"] = uniform(draw, width, 2 * width)
        head = random_lm_head(target, width, draw)
        return cls._of(settings, State(tensors, Path("random")), head, target, "random head")

    @classmethod
    def _of(
        cls,
        settings: BlockSettings,
        state: State,
        head: Callable[[Tensor], Tensor],
        target: Model,
        name: str,
    ) -> Self:
        norms = [None, *["input_layernorm"] * (settings.layers - 1)]
        blocks = [
            read_block(state, f"layers.{index}.", norm, target, settings)
            for index, norm in enumerate(norms)
        ]
        body = settings.body(embedding_of(state, target), blocks, None, head, target, name)
        return cls(body, state["fc.weight"], state.get("fc.bias"), target)

    def features(self, states: tuple[Tensor, ...]) -> Tensor:
        """Return the target's final states themselves."""
        return states[0]

    def inputs(self, tokens: Tensor, features: Tensor) -> Tensor:
        """Join embeddings and features, embeddings first, to [1, T, C]."""
        joined = torch.cat([self.body.embed(tokens), features], -1)
        return self._fc(joined.flatten(0, 1)).view(*tokens.shape, -1)
