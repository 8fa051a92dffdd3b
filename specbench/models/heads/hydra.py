"""Hydra and Hydra++: heads that also read the tokens drafted before theirs.

Ankner et al. 2024, "Hydra: Sequentially-Dependent Draft Heads for Medusa Decoding"; zankner/Hydra,
hydra/model/hydra_heads/mlp_head.py and prefix_mlp_head.py. Head k (from 0) reads, side by side, the
state at position t and the target's embeddings of the tokens at t + 1 to t + 1 + k, and guesses the
token at t + 2 + k. Its first block is silu(W x + b) + R x + r, R trained; the blocks behind it are
one block, repeated; its LM head has a bias. Hydra reads the target's final, normed state (with
`hidden_state_offset` n the output of the block n before the last). Hydra++ reads that state after a
causal block and a norm of its own, which attend to the states of committed tokens.

Published layout, hydra_lm_head.pt: `hydra_mlp.K.0.linear.*`, `hydra_mlp.K.0.res_connection.*`,
`hydra_mlp.K.1.linear.*` and on, `hydra_lm_head.K.weight` and `.bias`. In Hydra++ a dropout stands
before each part, so that the blocks are numbered 1, 3, 5, ... and the LM heads are
`hydra_lm_head.K.1.*`; its block is `prefix_embeding_layer.layers.0.*` and its norm
`prefix_embeding_layer.norm.weight` (so spelt), beside embeddings that nothing reads. The block has
the settings of the target's.

Shapes: N nodes, B rows, T positions, C channels, K heads, V token ids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from specbench.cache import Cache
from specbench.models.base import CAUSAL, Model, View
from specbench.models.decoder import LeanDecoder
from specbench.models.heads.base import HeadFiles, TargetShape
from specbench.models.heads.body import BlockSettings, read_block
from specbench.models.heads.level import LevelHead, randomised
from specbench.models.heads.medusa import ResidualBlock
from specbench.models.linear import Linear, linear
from specbench.models.state import State

PREFIX = "prefix_embeding_layer"
"""The name of Hydra++'s block in published files."""


@dataclass(frozen=True)
class HydraSettings:
    """The sizes of Hydra's heads.

    Attributes:
        heads: K; a tree uses as many as it is deep.
        layers: Blocks of a head, the first included.
        channels: C.
        vocabulary: V.
        offset: How many blocks below the last one the target's state is taken; 0: the final one.
        plus: Whether a block stands before the heads.
        dropout: Share of its inputs that Hydra++ leaves out in training.
    """

    heads: int
    layers: int
    channels: int
    vocabulary: int
    offset: int = 0
    plus: bool = False
    dropout: float = 0.0

    @classmethod
    def of(cls, files: HeadFiles) -> HydraSettings:
        """Return the sizes of a published head, by its settings and the shapes of its weights.

        Raises:
            ModelError: If they are none, or of heads that do not read drafted tokens.
        """

        def number(key: str, default: int) -> int:
            value = files.settings.get(key, default)
            if type(value) is not int or value < 0:
                raise files.unfit(f"its config.json has {key}={value!r}")
            return value

        if not files.settings.get("grounded_heads", False):
            raise files.unfit("its heads read no tokens (grounded_heads is not true)")
        plus = f"{PREFIX}.norm.weight" in files.shapes
        first, own = ("1", "hydra_lm_head.0.1") if plus else ("0", "hydra_lm_head.0")
        sizes = []
        for name in (f"hydra_mlp.0.{first}.linear.weight", f"{own}.weight"):
            if len(files.shapes.get(name, ())) != 2:
                raise files.unfit(f"it lacks the weight '{name}', or it is no matrix")
            sizes.append(files.shapes[name][0])
        heads = 0
        while f"hydra_mlp.{heads}.{first}.linear.weight" in files.shapes:
            heads += 1
        return cls(
            heads=heads,
            layers=max(number("hydra_num_layers", 1), 1),
            channels=sizes[0],
            vocabulary=sizes[1],
            offset=number("hidden_state_offset", 0),
            plus=plus,
        )


class HydraHeads(nn.Module):  # type: ignore[misc]
    """The heads under their published names: what is read, trained and written.

    Args:
        settings: Their sizes.
        block: The settings of Hydra++'s block, those of the target with one layer; None leaves it
            out, and `forward` with it.
        lm_head: [V, C], the target's, as which the heads' own begin.
    """

    def __init__(
        self,
        settings: HydraSettings,
        block: LlamaConfig | None = None,
        lm_head: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        if block is not None:
            body = LlamaModel(block)
            body.embed_tokens = nn.Identity()
            self.add_module(PREFIX, body)
        self.hydra_mlp = nn.ModuleList()
        self.hydra_lm_head = nn.ModuleList()
        for head in range(settings.heads):
            blocks: list[nn.Module] = [ResidualBlock(settings.channels, head + 2)]
            blocks += [ResidualBlock(settings.channels)] * (settings.layers - 1)
            own = nn.Linear(settings.channels, settings.vocabulary)
            if lm_head is not None:
                own.weight.data.copy_(lm_head)
                nn.init.zeros_(own.bias)
            self.hydra_mlp.append(self._sequence(blocks))
            self.hydra_lm_head.append(self._sequence([own]) if settings.plus else own)

    def _sequence(self, parts: list[nn.Module]) -> nn.Sequential:
        if not self.settings.plus:
            return nn.Sequential(*parts)
        drop = self.settings.dropout
        return nn.Sequential(*(each for part in parts for each in (nn.Dropout(drop), part)))

    def read(self, states: Tensor) -> Tensor:
        """Return what the heads read of the target's states [B, T, C]: them, or Hydra++'s."""
        if not self.settings.plus:
            return states
        read: Tensor = self.get_submodule(PREFIX)(inputs_embeds=states, use_cache=False)[0]
        return read

    def level(self, head: int, inputs: Tensor) -> Tensor:
        """Return the logits [..., V] of a head after inputs [..., (head + 2) C]."""
        logits: Tensor = self.hydra_lm_head[head](self.hydra_mlp[head](inputs))
        return logits

    def forward(self, states: Tensor, embedded: Tensor) -> list[Tensor]:
        """Return each head's logits along texts: the arithmetic of the release, with gradients.

        Args:
            states: [B, T, C] the target's.
            embedded: [B, T, C] the target's embeddings of the same tokens.

        Returns:
            For head k [B, T - 1 - k, V]; those at position t are of the token at t + 2 + k.
        """
        read, length = self.read(states), states.shape[1]
        logits = []
        for head in range(self.settings.heads):
            count = length - 1 - head
            tokens = [embedded[:, 1 + step : 1 + step + count] for step in range(head + 1)]
            logits.append(self.level(head, torch.cat([read[:, :count], *tokens], -1)))
        return logits


class HydraHead(LevelHead):
    """Hydra's heads where they draft: three products for a level.

    Fed what a level reads, [1, N, (k + 2) C], it gives head k's logits, [1, N, V].

    Args:
        heads: On the target's device, in its dtype.
        target: Whose states they read.
        name: What they are called.
        embed: [1, N] token ids to [1, N, C].
        body: Hydra++'s block, or None.

    Attributes:
        embed_drafted: `embed`.
        body: `body`.
    """

    family = "hydra"
    first_key = "hydra_mlp.0.0.linear.weight"

    def __init__(
        self,
        heads: HydraHeads,
        target: Model,
        name: str,
        embed: Callable[[Tensor], Tensor],
        body: LeanDecoder | None,
    ) -> None:
        settings = heads.settings
        super().__init__(name, target, settings.heads)
        self.taps = (target.layers - 1 - settings.offset if settings.offset else -1,)
        self.embed_drafted = embed
        self.body = body
        self._channels = settings.channels
        self._times = settings.layers - 1
        self._first: list[Linear] = []
        self._repeated: list[Linear] = []
        self._own: list[Linear] = []
        for mlp, own in zip(heads.hydra_mlp, heads.hydra_lm_head, strict=True):
            first, *later = (part for part in mlp if isinstance(part, ResidualBlock))
            both = (first.linear, first.res_connection)
            self._first.append(
                linear(
                    torch.cat([part.weight.detach() for part in both]),
                    torch.cat([part.bias.detach() for part in both]),
                )
            )
            self._repeated += [_projection(part.linear) for part in later[:1]]
            self._own.append(_projection(own if isinstance(own, nn.Linear) else own[-1]))

    @classmethod
    def recognises(cls, files: HeadFiles) -> bool:
        """Say whether files hold Hydra's heads in the layout of this class."""
        return cls.first_key in files.shapes

    @classmethod
    def check(cls, files: HeadFiles, target: TargetShape) -> None:
        """Refuse heads of another width or vocabulary, or files that lack weights."""
        settings = HydraSettings.of(files)
        files.fits("hidden width", settings.channels, target.width, target)
        files.fits("vocabulary", settings.vocabulary, target.vocab_size, target)
        if settings.offset >= target.layers:
            raise files.unfit(
                f"it reads a state {settings.offset} blocks below the last of {target.layers}",
                target,
            )
        with torch.device("meta"):
            wanted = HydraHeads(settings).state_dict()
        for name, tensor in wanted.items():
            files.expect(name, *tensor.shape)

    @classmethod
    def load(cls, files: HeadFiles, target: Model) -> Self:
        """Read the weights; the embeddings are the target's.

        Raises:
            ModelError: If blocks that the release repeats are not one.
        """
        state = files.read()
        heads = HydraHeads(HydraSettings.of(files))
        tensors = {name: state[name] for name in heads.state_dict()}
        heads.load_state_dict(tensors)
        for name, kept in heads.state_dict().items():
            if not torch.equal(kept, tensors[name].to(kept.dtype)):
                raise files.unfit(f"'{name}' is not the block that it repeats")
        heads.to(target.device, target.dtype)
        return cls(heads, target, files.source, target.embed, cls._body(files, state, target))

    @classmethod
    def _body(cls, files: HeadFiles, state: State, target: Model) -> LeanDecoder | None:
        """Return the block before the heads; there is none."""
        return None

    @classmethod
    def random(cls, target: Model, width: int, seed: int) -> Self:
        """Return two heads of three blocks with embeddings of their own."""
        body = cls._random_body(target, width, seed)
        heads = HydraHeads(HydraSettings(2, 3, width, target.vocab_size, plus=body is not None))
        table = nn.Embedding(target.vocab_size, width)
        for number, part in enumerate((heads, table)):
            randomised(part, seed + number)
            part.to(target.device, target.dtype).requires_grad_(False)
        return cls(heads, target, "random heads", table, body)

    @classmethod
    def _random_body(cls, target: Model, width: int, seed: int) -> LeanDecoder | None:
        return None

    @torch.inference_mode()
    def forward(self, inputs: Tensor, cache: Cache, view: View = CAUSAL) -> Tensor:
        """Return the logits [1, N, V] of the head that reads inputs of this width."""
        level = inputs.shape[-1] // self._channels - 2
        inner, x = self._first[level](inputs[0]).chunk(2, -1)
        x = x + F.silu(inner)
        for _ in range(self._times):
            x = x + F.silu(self._repeated[level](x))
        return self._own[level](x)[None]

    @torch.inference_mode()
    def along(self, states: Tensor, tokens: Tensor) -> list[Tensor]:
        """Return each level's logits along a known text; see `LevelHead.along`."""
        length = tokens.shape[1]
        cache = self.new_cache(1, length)
        read = states if self.body is None else self.forward(states, cache)
        embedded, logits = self.embed_drafted(tokens), []
        for level in range(min(self.levels, length - 2)):
            count = length - 2 - level
            seen = [embedded[:, step : step + count] for step in range(1, level + 2)]
            inputs = torch.cat([read[:, :count], *seen], -1)
            logits.append(HydraHead.forward(self, inputs, cache)[0])
        return logits


class HydraPlusHead(HydraHead):
    """Hydra++: the same heads behind a block over the states of committed tokens.

    Fed states, [1, T, C], it writes them into its cache and gives what the heads read, [1, T, C].
    """

    family = "hydra_pp"
    first_key = f"{PREFIX}.norm.weight"

    @classmethod
    def check(cls, files: HeadFiles, target: TargetShape) -> None:
        """Refuse heads that do not fit, or a block for another family of targets."""
        super().check(files, target)
        if target.family != "llama":
            raise files.unfit(
                f"its block is a Llama's, and the target is a {target.family}", target
            )
        width = target.width
        for name in ("layers.0.input_layernorm", "layers.0.post_attention_layernorm", "norm"):
            files.expect(f"{PREFIX}.{name}.weight", width)
        for name in ("self_attn.q", "self_attn.k", "self_attn.v", "mlp.gate", "mlp.up"):
            key = f"{PREFIX}.layers.0.{name}_proj.weight"
            files.expect(key, *files.shapes.get(key, ())[:1], width)
        for name in ("self_attn.o", "mlp.down"):
            key = f"{PREFIX}.layers.0.{name}_proj.weight"
            files.expect(key, width, *files.shapes.get(key, ())[1:])

    @classmethod
    def _body(cls, files: HeadFiles, state: State, target: Model) -> LeanDecoder | None:
        if not isinstance(target, LeanDecoder):
            raise files.unfit("its block takes its settings from a target in the lean engine")
        device, dtype, own = target.device, target.dtype, target.weights
        layer = read_block(state, f"{PREFIX}.layers.0.", "input_layernorm", target)
        if layer.qkv.outputs != own.layers[0].qkv.outputs:
            raise files.unfit("its block has other attention heads than the target's")
        norm = state[f"{PREFIX}.norm.weight"].to(device, dtype)
        weights = replace(
            own, layers=[layer], final_norm=norm, head=nn.Identity(), head_first=0, tied=False
        )
        return LeanDecoder(weights, files.source)

    @classmethod
    def _random_body(cls, target: Model, width: int, seed: int) -> LeanDecoder | None:
        settings = BlockSettings.small(width, target.vocab_size)
        tensors = settings.random_block("", width, torch.Generator().manual_seed(seed))
        layer = read_block(State(tensors, Path("random")), "", None, target)
        square = torch.empty(width, width, device=target.device, dtype=target.dtype)
        return settings.body(square, [layer], None, nn.Identity(), target, "random heads")

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """Return an empty cache of the block's keys and values."""
        assert self.body is not None
        return self.body.new_cache(batch, capacity)

    @torch.inference_mode()
    def forward(self, inputs: Tensor, cache: Cache, view: View = CAUSAL) -> Tensor:
        """Read states through the block, or give the logits of a level; by their width."""
        if inputs.shape[-1] == self._channels:
            assert self.body is not None
            return self.body.forward(inputs, cache, view)
        return super().forward(inputs, cache, view)


def _projection(layer: nn.Linear) -> Linear:
    return linear(layer.weight.detach(), layer.bias.detach())
