"""Small random LlamaGen files in the published format, and what they mean, written out.

The reference computes whole sequences in float64 with complex numbers for the rotations, as the
paper's text and the release's `precompute_freqs_cis_2d` define them, and knows no cache.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

CODES, CLASSES, SIDE, HEADS, CHANNELS, FEED, LAYERS = 24, 5, 3, 2, 32, 48, 2
SLOTS, TEXT_WIDTH = 6, 16


_GENERATOR = torch.Generator().manual_seed(0)


def _random(*shape, scale=0.3):
    return torch.randn(*shape, generator=_GENERATOR, dtype=torch.float64) * scale


def transformer(kind="class", layers=LAYERS, channels=CHANNELS):
    """Return a state dictionary with the published names."""
    state = {"tok_embeddings.weight": _random(CODES, channels, scale=1.0)}
    if kind == "class":
        table = _random(CLASSES + 1, channels, scale=1.0)
        state["cls_embedding.embedding_table.weight"] = table
    else:
        state["cls_embedding.uncond_embedding"] = _random(SLOTS, TEXT_WIDTH, scale=1.0)
        state["cls_embedding.cap_proj.fc1.weight"] = _random(channels, TEXT_WIDTH)
        state["cls_embedding.cap_proj.fc2.weight"] = _random(channels, channels)
    for index in range(layers):
        name = f"layers.{index}."
        state[name + "attention.wqkv.weight"] = _random(3 * channels, channels)
        state[name + "attention.wo.weight"] = _random(channels, channels)
        state[name + "attention_norm.weight"] = 1 + _random(channels)
        state[name + "ffn_norm.weight"] = 1 + _random(channels)
        state[name + "feed_forward.w1.weight"] = _random(FEED, channels)
        state[name + "feed_forward.w3.weight"] = _random(FEED, channels)
        state[name + "feed_forward.w2.weight"] = _random(channels, FEED)
    state["norm.weight"] = 1 + _random(channels)
    state["output.weight"] = _random(CODES, channels)
    return state


def _norm(x, weight):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight


def _rotation(position, slots, width):
    """Return the complex factor of every channel pair at a position, [D / 2]."""
    if position < slots:
        return torch.zeros(width // 2, dtype=torch.complex128)
    row, column = divmod(position - slots, SIDE)
    half = width // 2
    speeds = [10000.0 ** (-channel / half) for channel in range(0, half, 2)]
    angles = [row * speed for speed in speeds] + [column * speed for speed in speeds]
    return torch.polar(
        torch.ones(half, dtype=torch.float64), torch.tensor(angles, dtype=torch.float64)
    )


def forward(state, embedded, slots, hidden=0, heads=HEADS):
    """Return logits [T, K] of a row of embeddings [T, C], its first `hidden` slots unseen."""
    length, channels = embedded.shape
    width = channels // heads
    turns = torch.stack([_rotation(position, slots, width) for position in range(length)])
    causal = torch.ones(length, length).tril().bool()
    causal[:, :hidden] = False
    causal |= torch.eye(length).bool()
    x = embedded
    index = 0
    while f"layers.{index}.attention.wqkv.weight" in state:
        layer = {
            name.removeprefix(f"layers.{index}."): value
            for name, value in state.items()
            if name.startswith(f"layers.{index}.")
        }
        joined = _norm(x, layer["attention_norm.weight"]) @ layer["attention.wqkv.weight"].T
        query, key, value = joined.view(length, 3, heads, width).unbind(1)
        query, key = (
            torch.view_as_real(
                torch.view_as_complex(part.reshape(length, heads, -1, 2)) * turns[:, None]
            ).flatten(2)
            for part in (query, key)
        )
        scores = torch.einsum("qhd,khd->hqk", query, key) / width**0.5
        weights = scores.masked_fill(~causal, -torch.inf).softmax(-1)
        mixed = torch.einsum("hqk,khd->qhd", weights, value).reshape(length, channels)
        x = x + mixed @ layer["attention.wo.weight"].T
        fed = _norm(x, layer["ffn_norm.weight"])
        gate = F.silu(fed @ layer["feed_forward.w1.weight"].T)
        inner = gate * (fed @ layer["feed_forward.w3.weight"].T)
        x = x + inner @ layer["feed_forward.w2.weight"].T
        index += 1
    return _norm(x, state["norm.weight"]) @ state["output.weight"].T


def class_reference(state, heads=HEADS):
    """Return `reference(prompt, tokens, scale)`: the mixed logits of every place."""

    def reference(prompt, tokens, scale):
        table = state["cls_embedding.embedding_table.weight"]
        codes = state["tok_embeddings.weight"][torch.tensor(tokens, dtype=torch.int64)]
        rows = [
            forward(state, torch.cat([table[[index]], codes]), 1, heads=heads)
            for index in (prompt[0] - CODES, CLASSES)
        ]
        return rows[1] + scale * (rows[0] - rows[1])

    return reference


def caption_reference(state, features):
    """Like `class_reference`; `features(prompt)` gives those of the caption, [T, E]."""

    def embed(values):
        inner = F.gelu(values @ state["cls_embedding.cap_proj.fc1.weight"].T, approximate="tanh")
        return inner @ state["cls_embedding.cap_proj.fc2.weight"].T

    def reference(prompt, tokens, scale):
        found = features(prompt)
        hidden = SLOTS - len(found)
        caption = torch.cat([torch.zeros(hidden, TEXT_WIDTH).double(), found])
        codes = state["tok_embeddings.weight"][torch.tensor(tokens, dtype=torch.int64)]
        rows = [
            forward(state, torch.cat([embed(row), codes]), SLOTS, hidden)[SLOTS - 1 :]
            for row in (caption, state["cls_embedding.uncond_embedding"])
        ]
        return rows[1] + scale * (rows[0] - rows[1])

    return reference


# The image tokenizer: VQ-16 with two resolutions in place of five.
VQ_CHANNELS, VQ_WIDE, VQ_LATENT, VQ_CODE = 32, 64, 32, 8


def _conv(state, name, inside, outside, size):
    state[f"{name}.weight"] = _random(outside, inside, size, size, scale=0.1)
    state[f"{name}.bias"] = _random(outside, scale=0.1)


def _scale(state, name, width):
    state[f"{name}.weight"] = 1 + _random(width, scale=0.1)
    state[f"{name}.bias"] = _random(width, scale=0.1)


def _residual(state, name, inside, outside):
    _scale(state, f"{name}.norm1", inside)
    _conv(state, f"{name}.conv1", inside, outside, 3)
    _scale(state, f"{name}.norm2", outside)
    _conv(state, f"{name}.conv2", outside, outside, 3)
    if inside != outside:
        _conv(state, f"{name}.nin_shortcut", inside, outside, 1)


def _attention(state, name, width):
    _scale(state, f"{name}.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        _conv(state, f"{name}.{part}", width, width, 1)


def _middle(state, name, width):
    _residual(state, f"{name}.mid.0", width, width)
    _attention(state, f"{name}.mid.1", width)
    _residual(state, f"{name}.mid.2", width, width)


def image_tokenizer():
    """Return a state dictionary with the published names; levels stand in the order of use."""
    state = {}
    _conv(state, "encoder.conv_in", 3, VQ_CHANNELS, 3)
    _residual(state, "encoder.conv_blocks.0.res.0", VQ_CHANNELS, VQ_CHANNELS)
    _conv(state, "encoder.conv_blocks.0.downsample.conv", VQ_CHANNELS, VQ_CHANNELS, 3)
    _residual(state, "encoder.conv_blocks.1.res.0", VQ_CHANNELS, VQ_WIDE)
    _attention(state, "encoder.conv_blocks.1.attn.0", VQ_WIDE)
    _middle(state, "encoder", VQ_WIDE)
    _scale(state, "encoder.norm_out", VQ_WIDE)
    _conv(state, "encoder.conv_out", VQ_WIDE, VQ_LATENT, 3)
    _conv(state, "decoder.conv_in", VQ_LATENT, VQ_WIDE, 3)
    _middle(state, "decoder", VQ_WIDE)
    for block in range(2):
        _residual(state, f"decoder.conv_blocks.0.res.{block}", VQ_WIDE, VQ_WIDE)
        _attention(state, f"decoder.conv_blocks.0.attn.{block}", VQ_WIDE)
    _conv(state, "decoder.conv_blocks.0.upsample.conv", VQ_WIDE, VQ_WIDE, 3)
    _residual(state, "decoder.conv_blocks.1.res.0", VQ_WIDE, VQ_CHANNELS)
    _residual(state, "decoder.conv_blocks.1.res.1", VQ_CHANNELS, VQ_CHANNELS)
    _scale(state, "decoder.norm_out", VQ_CHANNELS)
    _conv(state, "decoder.conv_out", VQ_CHANNELS, 3, 3)
    state["quantize.embedding.weight"] = _random(CODES, VQ_CODE, scale=2.0)
    state["quantize.codebook_used"] = torch.zeros(100)
    _conv(state, "quant_conv", VQ_LATENT, VQ_CODE, 1)
    _conv(state, "post_quant_conv", VQ_CODE, VQ_LATENT, 1)
    return {name: value.float() for name, value in state.items()}


def draw(state, codes):
    """Return the picture [3, H, W] of codes [h, w], operation by operation."""

    def conv(name, x):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def norm(name, x):
        return F.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def residual(name, x):
        hidden = conv(f"{name}.conv1", F.silu(norm(f"{name}.norm1", x)))
        hidden = conv(f"{name}.conv2", F.silu(norm(f"{name}.norm2", hidden)))
        return hidden + (
            conv(f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.bias" in state else x
        )

    def attention(name, x):
        hidden = norm(f"{name}.norm", x)
        query, key, value = (conv(f"{name}.{part}", hidden).flatten(2)[0] for part in "qkv")
        weights = (query.T @ key / query.shape[0] ** 0.5).softmax(-1)
        return x + conv(f"{name}.proj_out", (value @ weights.T).view_as(x))

    book = F.normalize(state["quantize.embedding.weight"], dim=-1)
    x = conv("post_quant_conv", book[codes].permute(2, 0, 1)[None])
    x = conv("decoder.conv_in", x)
    x = residual("decoder.mid.2", attention("decoder.mid.1", residual("decoder.mid.0", x)))
    for block in range(2):
        x = residual(f"decoder.conv_blocks.0.res.{block}", x)
        x = attention(f"decoder.conv_blocks.0.attn.{block}", x)
    x = conv("decoder.conv_blocks.0.upsample.conv", F.interpolate(x, scale_factor=2))
    for block in range(2):
        x = residual(f"decoder.conv_blocks.1.res.{block}", x)
    return conv("decoder.conv_out", F.silu(norm("decoder.norm_out", x)))[0]
