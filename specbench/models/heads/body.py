"""The transformer block inside a head, in the lean decoder's layout.

Shapes: C channels, D head width, F feed-forward width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from specbench.errors import ModelError
from specbench.models.base import Capability, Model
from specbench.models.decoder import LeanDecoder
from specbench.models.heads.base import HeadFiles, uniform
from specbench.models.lean_weights import Layer, Weights, fused, projection, read_rotary
from specbench.models.linear import Linear
from specbench.models.norm import HeadNorm
from specbench.models.pretrained import first_line
from specbench.models.state import State

EMBEDDING = "embed_tokens.weight"


class BlockSettings:
    """The settings of a head's blocks, as the config.json of a Llama or a Qwen3 says them.

    Args:
        settings: The keys; what is lacking has transformers' default.

    Attributes:
        width: C.
        heads: Query heads.
        groups: Key-value heads.
        head_width: D.
        feed_forward: F.
        layers: Number of blocks.
        epsilon: Of the root-mean-square norms.
        vocab_size: Rows of the embedding.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        left_out = ("model_type", "dtype", "torch_dtype", "architectures")
        own = {key: value for key, value in settings.items() if key not in left_out}
        kind = Qwen3Config if settings.get("model_type") == "qwen3" else LlamaConfig
        self.config: Any = kind(**own)
        config = self.config
        self.width: int = config.hidden_size
        self.heads: int = config.num_attention_heads
        self.groups: int = config.num_key_value_heads
        self.head_width: int = config.head_dim
        self.feed_forward: int = config.intermediate_size
        self.layers: int = config.num_hidden_layers
        self.epsilon: float = config.rms_norm_eps
        self.vocab_size: int = config.vocab_size

    @classmethod
    def of(cls, files: HeadFiles) -> BlockSettings:
        """Return the settings of a head's config.json.

        Raises:
            ModelError: If it is none of a Llama.
        """
        try:
            return cls(files.settings)
        except Exception as error:  # transformers checks by several means
            raise files.unfit(f"its config.json is none of a Llama: {first_line(error)}") from error

    @classmethod
    def small(cls, width: int, vocab_size: int) -> BlockSettings:
        """Return the settings of one block with one head of four numbers."""
        return cls(
            {
                "hidden_size": width,
                "vocab_size": vocab_size,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
                "num_key_value_heads": 1,
                "head_dim": 4,
                "intermediate_size": 8,
            }
        )

    def random_block(self, prefix: str, read: int, draw: torch.Generator) -> dict[str, Tensor]:
        """Return random weights of a block whose attention reads so many channels."""
        return {
            f"{prefix}{name}.weight": uniform(draw, *shape)
            for name, shape in self._shapes(read).items()
        }

    def _shapes(self, read: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a block's weights, by their names in a checkpoint."""
        heads, groups = self.heads * self.head_width, self.groups * self.head_width
        return {
            "self_attn.q_proj": (heads, read),
            "self_attn.k_proj": (groups, read),
            "self_attn.v_proj": (groups, read),
            "self_attn.o_proj": (self.width, heads),
            "mlp.gate_proj": (self.feed_forward, self.width),
            "mlp.up_proj": (self.feed_forward, self.width),
            "mlp.down_proj": (self.width, self.feed_forward),
            "post_attention_layernorm": (self.width,),
        }

    def check_block(self, files: HeadFiles, prefix: str, read: int) -> None:
        """Refuse a block whose weights have other shapes.

        Args:
            files: The head.
            prefix: What the names of the block's weights begin with.
            read: Channels that its attention reads.
        """
        for name, shape in self._shapes(read).items():
            files.expect(f"{prefix}{name}.weight", *shape)

    def head_norm(self, state: State, prefix: str, target: Model) -> HeadNorm | None:
        """Return the norm of a block's queries and keys, of a Qwen3; None where it has none."""
        query, key = (state.get(f"{prefix}self_attn.{name}_norm.weight") for name in "qk")
        if query is None or key is None:
            return None
        rows = [query.expand(self.heads, -1), key.expand(self.groups, -1)]
        return HeadNorm(torch.cat(rows).to(target.device, target.dtype), self.epsilon)

    def body(
        self,
        embedding: Tensor,
        blocks: Sequence[Layer],
        final_norm: Tensor | None,
        head: Callable[[Tensor], Tensor],
        target: Model,
        name: str,
    ) -> LeanDecoder:
        """Return the blocks as a lean decoder with positions to the end of the target's context.

        Args:
            embedding: [V, C].
            blocks: The blocks.
            final_norm: [C], of what the LM head reads; None where it reads the last states.
            head: The LM head, [N, C] -> [N, K].
            target: The model that is drafted for.
            name: What the head is called.
        """
        rotary = LlamaRotaryEmbedding(self.config)
        cos, sin = read_rotary(rotary, target.context, target.device, target.dtype)
        weights = Weights(
            embedding=embedding,
            layers=blocks,
            final_norm=final_norm,
            head=head,
            cos=cos,
            sin=sin,
            heads=self.heads,
            groups=self.groups,
            epsilon=self.epsilon,
        )
        return LeanDecoder(weights, name)


def read_block(
    state: State,
    prefix: str,
    attention_norm: str | None,
    target: Model,
    settings: BlockSettings | None = None,
) -> Layer:
    """Return a block in the lean decoder's layout, where the target computes.

    Args:
        state: The head's weights.
        prefix: What the names of the block's weights begin with.
        attention_norm: The norm of what its attention reads; None where that is normed before.
        target: The model that is drafted for.
        settings: Of the blocks, where queries and keys may be normed; None where they are not.
    """

    def join(part: str, *names: str) -> Linear:
        weights = [state[f"{prefix}{part}.{name}_proj.weight"] for name in names]
        biases = None
        if f"{prefix}{part}.{names[0]}_proj.bias" in state:
            biases = [state[f"{prefix}{part}.{name}_proj.bias"] for name in names]
        return fused(weights, biases, device=target.device, dtype=target.dtype)

    def norm(name: str) -> Tensor:
        return state[f"{prefix}{name}.weight"].to(target.device, target.dtype)

    return Layer(
        attention_norm=None if attention_norm is None else norm(attention_norm),
        qkv=join("self_attn", "q", "k", "v"),
        head_norm=None if settings is None else settings.head_norm(state, prefix, target),
        output=join("self_attn", "o"),
        feed_forward_norm=norm("post_attention_layernorm"),
        gate_up=join("mlp", "gate", "up"),
        down=join("mlp", "down"),
    )


def embedding_of(state: State, target: Model) -> Tensor:
    """Return a head's embedding [V, C]; where it has none, the target's, which was frozen."""
    own = state.get(EMBEDDING)
    if own is not None:
        return own.to(target.device, target.dtype)
    check_shares(target)
    return target.embed(torch.arange(target.vocab_size, device=target.device)[None])[0]


def head_of(target: Model) -> Callable[[Tensor], Tensor]:
    """Return the target's LM head, [N, C] -> [N, V]."""
    check_shares(target)
    return lambda states: target.head(states[None])[0]


def random_lm_head(target: Model, width: int, draw: torch.Generator) -> Linear:
    """Return random weights as an LM head, [N, C] -> [N, V], sharp enough to prefer tokens."""
    head = 4 * uniform(draw, target.vocab_size, width)
    return projection(head, device=target.device, dtype=target.dtype)


def check_shares(target: Model) -> None:
    """Refuse a target that hands out neither its embedding nor its LM head.

    Raises:
        ModelError: If its engine lacks `Capability.FEATURES`.
    """
    if Capability.FEATURES not in target.capabilities:
        raise ModelError(
            f"The head cannot share the embedding and the LM head of '{target.name}'",
            f"the {target.engine} engine does not offer them",
            "Choose a model that the lean engine runs.",
        )
