"""Small random heads in their published layouts, key by key, and their arithmetic by hand."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

WIDTH, HEADS, GROUPS, FEED_FORWARD, VOCAB = 32, 4, 2, 48, 96
LAYERS = 6

EAGLE_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 1,
    "hidden_act": "silu",
    "hidden_size": WIDTH,
    "initializer_range": 0.02,
    "intermediate_size": FEED_FORWARD,
    "max_position_embeddings": 2048,
    "model_type": "llama",
    "num_attention_heads": HEADS,
    "num_hidden_layers": 1,
    "num_key_value_heads": GROUPS,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "rope_theta": 5000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.31.0",
    "use_cache": True,
    "vocab_size": VOCAB,
}
"""The keys of the config.json of a public EAGLE head, at a small size."""


def block(prefix: str, read: int, draw: torch.Generator) -> dict[str, Tensor]:
    """Return one Llama block whose attention reads so many channels."""
    head = WIDTH // HEADS

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw) * shape[-1] ** -0.5

    return {
        f"{prefix}self_attn.q_proj.weight": random(HEADS * head, read),
        f"{prefix}self_attn.k_proj.weight": random(GROUPS * head, read),
        f"{prefix}self_attn.v_proj.weight": random(GROUPS * head, read),
        f"{prefix}self_attn.o_proj.weight": random(WIDTH, HEADS * head),
        f"{prefix}mlp.gate_proj.weight": random(FEED_FORWARD, WIDTH),
        f"{prefix}mlp.up_proj.weight": random(FEED_FORWARD, WIDTH),
        f"{prefix}mlp.down_proj.weight": random(WIDTH, FEED_FORWARD),
        f"{prefix}post_attention_layernorm.weight": 1 + 0.3 * random(WIDTH),
    }


def write(folder: Path, config: dict, tensors: dict[str, Tensor], pickled: bool = False) -> Path:
    """Write a checkpoint folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if pickled:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors")
    return folder


def eagle_tensors(seed: int = 0, bias: bool = True) -> dict[str, Tensor]:
    """Return the weights of an EAGLE head of one block."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {
        "embed_tokens.weight": torch.randn(VOCAB, WIDTH, generator=draw),
        "fc.weight": torch.randn(WIDTH, 2 * WIDTH, generator=draw) * 0.2,
        **block("layers.0.", WIDTH, draw),
    }
    if bias:
        tensors["fc.bias"] = torch.randn(WIDTH, generator=draw)
    return tensors


# The published arithmetic, in float64 and without a cache.


def rms(x: Tensor, weight: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Return the root-mean-square norm."""
    return x / (x.pow(2).mean(-1, keepdim=True) + epsilon).sqrt() * weight


def rotated(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Rotate [T, H, D] by angles position / theta^(2 i / D), halves paired."""
    half = x.shape[-1] // 2
    rates = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = positions[:, None, None].double() * rates
    low, high = x[..., :half], x[..., half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)


def attention(
    t: dict[str, Tensor], prefix: str, x: Tensor, positions: Tensor, sees: Tensor, theta: float
) -> Tensor:
    """Return what each entry attends to, after the output projection, [T, C]."""
    head = WIDTH // HEADS
    q, k, v = (
        (x @ t[f"{prefix}self_attn.{name}_proj.weight"].T).view(len(x), -1, head) for name in "qkv"
    )
    q, k = rotated(q, positions, theta), rotated(k, positions, theta)
    k, v = (each.repeat_interleave(HEADS // GROUPS, 1) for each in (k, v))
    scores = torch.einsum("thd,shd->hts", q, k) * head**-0.5
    weights = scores.masked_fill(~sees, -torch.inf).softmax(-1)
    mixed = torch.einsum("hts,shd->thd", weights, v).reshape(len(x), -1)
    return mixed @ t[f"{prefix}self_attn.o_proj.weight"].T


def feed_forward(t: dict[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    """Return x plus the gated feed-forward part of its norm."""
    normed = rms(x, t[f"{prefix}post_attention_layernorm.weight"])
    gate, up = (normed @ t[f"{prefix}mlp.{name}_proj.weight"].T for name in ("gate", "up"))
    return x + (torch.nn.functional.silu(gate) * up) @ t[f"{prefix}mlp.down_proj.weight"].T


def doubled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in float64."""
    return {name: tensor.double() for name, tensor in tensors.items()}


def eagle_features(
    tensors: dict[str, Tensor], tokens: Tensor, features: Tensor, positions: Tensor, sees: Tensor
) -> Tensor:
    """Return what an EAGLE head makes of tokens [T] with the features before them, [T, C]."""
    t = doubled(tensors)
    x = torch.cat([t["embed_tokens.weight"][tokens], features.double()], -1) @ t["fc.weight"].T
    if "fc.bias" in t:
        x = x + t["fc.bias"]
    x = x + attention(t, "layers.0.", x, positions, sees, EAGLE_CONFIG["rope_theta"])
    return feed_forward(t, "layers.0.", x)


# EAGLE-3.

DRAFT_VOCAB = 40

EAGLE3_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 1,
    "hidden_act": "silu",
    "hidden_size": WIDTH,
    "intermediate_size": FEED_FORWARD,
    "max_position_embeddings": 2048,
    "model_type": "llama",
    "num_attention_heads": HEADS,
    "num_hidden_layers": 1,
    "num_key_value_heads": GROUPS,
    "rms_norm_eps": 1e-06,
    "rope_theta": 5000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "vocab_size": VOCAB,
    "draft_vocab_size": DRAFT_VOCAB,
}
"""The release's layout; SpecForge's has architectures LlamaForCausalLMEagle3 and further keys."""

SPECULATORS_CONFIG = {
    "architectures": ["Eagle3Speculator"],
    "draft_vocab_size": DRAFT_VOCAB,
    "norm_before_residual": False,
    "speculators_config": {"algorithm": "eagle3", "verifier": {"name_or_path": None}},
    "speculators_model_type": "eagle3",
    "target_hidden_size": None,
    "tie_word_embeddings": False,
    "transformer_layer_config": {
        "attention_bias": False,
        "head_dim": WIDTH // HEADS,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "intermediate_size": FEED_FORWARD,
        "max_position_embeddings": 2048,
        "model_type": "llama",
        "num_attention_heads": HEADS,
        "num_hidden_layers": 1,
        "num_key_value_heads": GROUPS,
        "rms_norm_eps": 1e-06,
        "rope_theta": 5000.0,
        "vocab_size": VOCAB,
    },
}
"""The layout of speculators' `Eagle3Speculator`."""


def eagle3_tensors(first: str = "midlayer.", width: int = WIDTH, seed: int = 0, taps: int = 3):
    """Return the weights of an EAGLE-3 head; the embedding is the target's and left out."""
    draw = torch.Generator().manual_seed(seed)

    def norm(count: int) -> Tensor:
        return 1 + 0.3 * torch.randn(count, generator=draw)

    known = torch.randperm(VOCAB, generator=draw)[:DRAFT_VOCAB].sort().values
    mask = torch.zeros(VOCAB, dtype=torch.bool)
    mask[known] = True
    return {
        "fc.weight": torch.randn(WIDTH, taps * width, generator=draw) * 0.2,
        **block(first, 2 * WIDTH, draw),
        f"{first}hidden_norm.weight": norm(WIDTH),
        f"{first}input_layernorm.weight": norm(WIDTH),
        "norm.weight": norm(WIDTH),
        "lm_head.weight": torch.randn(DRAFT_VOCAB, WIDTH, generator=draw),
        "d2t": known - torch.arange(DRAFT_VOCAB),
        "t2d": mask,
    }


def eagle3_entry(
    t: dict[str, Tensor],
    first: str,
    embedded: Tensor,
    features: Tensor,
    positions: Tensor,
    sees: Tensor,
    norm_before_residual: bool = False,
) -> Tensor:
    """Return what the first block of an EAGLE-3 head makes, [T, C], in float64."""
    normed = rms(features, t[f"{first}hidden_norm.weight"])
    read = torch.cat([rms(embedded, t[f"{first}input_layernorm.weight"]), normed], -1)
    residual = normed if norm_before_residual else features
    x = residual + attention(t, first, read, positions, sees, 5000.0)
    return feed_forward(t, first, x)
