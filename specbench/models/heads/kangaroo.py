"""Kangaroo's adapter: one attention between the target's first blocks and its LM head.

Liu et al. 2024, "Kangaroo: Lossless Self-Speculative Decoding via Double Early Exiting"
(arXiv:2404.18911); read in the release, github.com/Equationliu/Kangaroo (kangaroo/adapter.py,
kangaroo_model.py, data/vicuna_7B_config.json). A block is a norm, an attention and its residual,
without a feed-forward part; a final norm follows, and the target's LM head reads what comes out.

Published layout: config.json of a Llama of as many blocks, and `layers.N.input_layernorm.weight`,
`layers.N.self_attn.{q,k,v,o}_proj.weight` and `norm.weight` in pytorch_model.bin. Which block the
states come from is not written there: it is a parameter of the method.

Shapes: B rows, T tokens, C channels, D head width, V ids.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from specbench.cache import Cache
from specbench.models.base import CAUSAL, Capability, LayerSkip, Model, View
from specbench.models.decoder import LeanDecoder
from specbench.models.heads.base import Head, HeadFiles, TargetShape, uniform
from specbench.models.heads.body import BlockSettings, head_of, random_lm_head
from specbench.models.lean_weights import Layer, fused
from specbench.models.linear import PlainLinear
from specbench.models.state import State

_NORM, _ATTENTION = "norm.weight", "layers.{}.self_attn.{}_proj.weight"
_BEFORE = "layers.{}.input_layernorm.weight"


class KangarooHead(Head):
    """An adapter behind one target; it is fed the states of the block where drafts leave.

    Args:
        body: Its blocks, the final norm and the target's LM head.
        target: The model that it drafts for.
    """

    family = "kangaroo"
    taps = ()
    capabilities = frozenset({Capability.FEATURES})

    def __init__(self, body: LeanDecoder, target: Model) -> None:
        super().__init__(body.name, target, body.layers)
        self._body = body
        self._skip = LayerSkip(feed_forward=frozenset(range(body.layers)))

    @classmethod
    def recognises(cls, files: HeadFiles) -> bool:
        """Say whether the files hold attention without a feed-forward part, and a final norm."""
        names = files.shapes
        return (
            _NORM in names
            and _ATTENTION.format(0, "q") in names
            and not any(".mlp." in name or name == "fc.weight" for name in names)
        )

    @classmethod
    def check(cls, files: HeadFiles, target: TargetShape) -> None:
        """Refuse an adapter of another width or vocabulary, or one that lacks weights."""
        settings = BlockSettings.of(files)
        files.fits("hidden width", settings.width, target.width, target)
        files.fits("vocabulary", settings.vocab_size, target.vocab_size, target)
        for name, shape in _shapes(settings).items():
            files.expect(name, *shape)

    @classmethod
    def load(cls, files: HeadFiles, target: Model) -> Self:
        """Read the weights; the LM head is the target's."""
        settings = BlockSettings.of(files)
        return cls._of(settings, files.read(), head_of(target), target, files.source)

    @classmethod
    def random(cls, target: Model, width: int, seed: int) -> Self:
        """Return an adapter of one small attention, with an LM head of its own."""
        draw = torch.Generator().manual_seed(seed)
        settings = BlockSettings.small(width, target.vocab_size)
        tensors = {name: uniform(draw, *shape) for name, shape in _shapes(settings).items()}
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
        def tensor(key: str) -> Tensor:
            return state[key].to(target.device, target.dtype)

        nothing = PlainLinear(tensor(_NORM).new_zeros(0, settings.width), None)
        blocks = []
        for index in range(settings.layers):
            projections = [[state[_ATTENTION.format(index, part)]] for part in "qkvo"]
            joined = [*projections[0], *projections[1], *projections[2]]
            norm = tensor(_BEFORE.format(index))
            blocks.append(
                Layer(
                    attention_norm=norm,
                    qkv=fused(joined, device=target.device, dtype=target.dtype),
                    head_norm=None,
                    output=fused(projections[3], device=target.device, dtype=target.dtype),
                    feed_forward_norm=norm,  # unused, as the next two: there is no such part
                    gate_up=nothing,
                    down=nothing,
                )
            )
        ids = tensor(_NORM).new_zeros(1, settings.width).expand(target.vocab_size, -1)
        return cls(settings.body(ids, blocks, tensor(_NORM), head, target, name), target)

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """Return an empty cache for `batch` rows of at most `capacity` states."""
        return self._body.new_cache(batch, capacity)

    def forward(self, inputs: Tensor, cache: Cache, view: View = CAUSAL) -> Tensor:
        """Feed states [B, T, C] of the target; return the logits of the tokens behind them."""
        return self._body.forward(inputs, cache, view._replace(skip=self._skip))


def _shapes(settings: BlockSettings) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all weights by their published names."""
    width, queries = settings.width, settings.heads * settings.head_width
    keys = settings.groups * settings.head_width
    shapes: dict[str, tuple[int, ...]] = {_NORM: (width,)}
    for index in range(settings.layers):
        shapes[_BEFORE.format(index)] = (width,)
        for part, size in (("q", queries), ("k", keys), ("v", keys)):
            shapes[_ATTENTION.format(index, part)] = (size, width)
        shapes[_ATTENTION.format(index, "o")] = (width, queries)
    return shapes
