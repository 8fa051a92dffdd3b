"""The transformer block of a head with gradients, unrolled over the steps of a draft.

Where a draft is i tokens deep, its entry at place t sees the true entries up to t (the keys of step
0) and its own drafted ones (those of steps 1 to i at the same place). So one product over a text
drafts from each of its places at once: EAGLE-3's training-time test, read in SafeAILab/EAGLE,
eagle/traineagle3/cnets.py.

Shape legend: B rows, T tokens, C channels, H query heads, G key-value heads, D head width,
R channels that the attention reads.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

Keys = list[tuple[Tensor, Tensor]]
"""Keys and values of each step so far, [B, H, T, D] each."""


def block_config(settings: Any, vocab_size: int) -> LlamaConfig:
    """Return the configuration of a head of one block like a target's."""
    text = settings.get_text_config()
    plain = text.to_dict()
    copied = (
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
        "rms_norm_eps",
        "rope_parameters",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    )
    kept = {key: plain[key] for key in copied if plain.get(key) is not None}
    return LlamaConfig(
        **kept, vocab_size=vocab_size, num_hidden_layers=1, tie_word_embeddings=False
    )


class Attention(nn.Module):  # type: ignore[misc]
    """A Llama's attention under its published names.

    Args:
        config: Its sizes.
        read: R.
    """

    def __init__(self, config: LlamaConfig, read: int) -> None:
        super().__init__()
        width, self._heads = config.head_dim, config.num_attention_heads
        self._groups = config.num_key_value_heads
        self.q_proj = nn.Linear(read, self._heads * width, bias=False)
        self.k_proj = nn.Linear(read, self._groups * width, bias=False)
        self.v_proj = nn.Linear(read, self._groups * width, bias=False)
        self.o_proj = nn.Linear(self._heads * width, config.hidden_size, bias=False)
        self._rotary = [LlamaRotaryEmbedding(config)]  # in a list: no weight of the module

    def forward(self, x: Tensor, keys: Keys) -> Tensor:
        """Return what every place attends to, [B, T, C]; see `Block.forward`."""
        rows, count = x.shape[:2]
        places = torch.arange(count, device=x.device)[None] + len(keys)
        cos, sin = self._rotary[0].to(x.device)(x, places)

        def split(projected: Tensor, heads: int) -> Tensor:
            return projected.view(rows, count, heads, -1).transpose(1, 2)

        q, k = split(self.q_proj(x), self._heads), split(self.k_proj(x), self._groups)
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        times = self._heads // self._groups
        k = k.repeat_interleave(times, 1)
        v = split(self.v_proj(x), self._groups).repeat_interleave(times, 1)
        keys.append((k, v))
        first, *drafted = keys
        scale = q.shape[-1] ** -0.5
        later = torch.ones(count, count, dtype=torch.bool, device=x.device).triu(1)
        scores = (q @ first[0].transpose(2, 3)).masked_fill(later, -torch.inf)
        own = [(q * key).sum(-1, keepdim=True) for key, _ in drafted]
        weights = (torch.cat([scores, *own], -1) * scale).float().softmax(-1).to(x.dtype)
        out = weights[..., :count] @ first[1]
        for step, (_, value) in enumerate(drafted):
            out = out + weights[..., count + step, None] * value
        mixed: Tensor = self.o_proj(out.transpose(1, 2).reshape(rows, count, -1))
        return mixed


class _FeedForward(nn.Module):  # type: ignore[misc]
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        down: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return down


class Block(nn.Module):  # type: ignore[misc]
    """A Llama block under its published names; what its attention reads is normed before.

    Args:
        config: Its sizes.
        read: R.
    """

    def __init__(self, config: LlamaConfig, read: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, read)
        self.mlp = _FeedForward(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, x: Tensor, residual: Tensor, keys: Keys) -> Tensor:
        """Return the states [B, T, C] of one step, and put its keys behind those of earlier ones.

        Args:
            x: What the attention reads, [B, T, R].
            residual: [B, T, C].
            keys: Of earlier steps, one entry each; empty at the true entries.
        """
        states = residual + self.self_attn(x, keys)
        return states + self.mlp(self.post_attention_layernorm(states))
