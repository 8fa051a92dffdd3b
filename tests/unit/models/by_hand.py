"""Checkpoints written tensor by tensor in their publishers' layouts, and what they compute.

No class that reads a checkpoint, of this project or of a library, writes one here: names and
shapes stand as the publishers' files have them. What a Llama-shaped body computes is written out
in float64 from whole sequences and knows no cache.
"""

from __future__ import annotations

import json

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HEAD_EPSILON = 1e-5


class Tensors:
    """Random tensors by name, bfloat16 as published, unless told otherwise.

    Args:
        seed: Of the values.
        dtype: Of what is added from now on.
    """

    def __init__(self, seed=0, dtype=torch.bfloat16):
        self._generator = torch.Generator().manual_seed(seed)
        self.dtype = dtype
        self.state = {}

    def add(self, name, *shape, scale=0.4, around=0.0):
        values = torch.randn(*shape, generator=self._generator) * scale + around
        self.state[name] = values.to(self.dtype)

    def linear(self, name, outputs, inputs, bias=False, scale=0.4):
        self.add(f"{name}.weight", outputs, inputs, scale=scale)
        if bias:
            self.add(f"{name}.bias", outputs, scale=scale)

    def scale(self, name, *shape, bias=False, scale=0.3):
        """A norm's weight around one, and its bias."""
        self.add(f"{name}.weight", *shape, scale=scale, around=1.0)
        if bias:
            self.add(f"{name}.bias", *shape, scale=scale)

    def conv(self, name, inside, outside, *size, scale=0.1):
        self.add(f"{name}.weight", outside, inside, *size, scale=scale)
        self.add(f"{name}.bias", outside, scale=scale)

    def body(self, prefix, *, channels, feed, layers, heads, groups, vocabulary, rows=None):
        """A Llama-shaped body; `rows` are those of its norms of queries and keys, if it has any."""
        width = channels // heads
        self.add(f"{prefix}embed_tokens.weight", vocabulary, channels, scale=1.0)
        for layer in range(layers):
            name = f"{prefix}layers.{layer}."
            self.scale(name + "input_layernorm", channels)
            self.linear(name + "self_attn.q_proj", channels, channels)
            self.linear(name + "self_attn.k_proj", groups * width, channels)
            self.linear(name + "self_attn.v_proj", groups * width, channels)
            self.linear(name + "self_attn.o_proj", channels, channels)
            for part, count in zip(("q_norm", "k_norm"), rows or (), strict=False):
                self.scale(f"{name}self_attn.{part}", count, width, bias=True)
            self.scale(name + "post_attention_layernorm", channels)
            self.linear(name + "mlp.gate_proj", feed, channels)
            self.linear(name + "mlp.up_proj", feed, channels)
            self.linear(name + "mlp.down_proj", channels, feed)
        self.scale(f"{prefix}norm", channels)

    def residual(self, name, inside, outside):
        """A residual block of taming's autoencoder."""
        self.scale(f"{name}.norm1", inside, bias=True, scale=0.1)
        self.conv(f"{name}.conv1", inside, outside, 3, 3)
        self.scale(f"{name}.norm2", outside, bias=True, scale=0.1)
        self.conv(f"{name}.conv2", outside, outside, 3, 3)
        if inside != outside:
            self.conv(f"{name}.nin_shortcut", inside, outside, 1, 1)

    def attention(self, name, width):
        """An attention block of taming's autoencoder."""
        self.scale(f"{name}.norm", width, bias=True, scale=0.1)
        for part in ("q", "k", "v", "proj_out"):
            self.conv(f"{name}.{part}", width, width, 1, 1)

    def middle(self, name, width):
        self.residual(f"{name}.mid.block_1", width, width)
        self.attention(f"{name}.mid.attn_1", width)
        self.residual(f"{name}.mid.block_2", width, width)


def write_checkpoint(folder, config, state, *, files=2):
    """Write config.json and safetensors: some files with an index, as large models have them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_tensors(folder, state, files=files)


def write_tensors(folder, state, *, files=2):
    """Write the safetensors of a checkpoint, in place of those that it had."""
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    if files == 1:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, weight_map = list(state), {}
    for number in range(files):
        held = {name: state[name].contiguous() for name in names[number::files]}
        file = f"model-{number + 1:05d}-of-{files:05d}.safetensors"
        save_file(held, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(held, file)
    size = sum(tensor.nbytes for tensor in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_tokenizer(folder, names, *, special=(), **tokens):
    """Write a word-level tokenizer.json and its configuration.

    Args:
        folder: The checkpoint's.
        names: Ids by token.
        special: Tokens that stand for themselves inside a text.
        tokens: Such as `bos_token="<s>"`.
    """
    whole = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": names[token], "content": token, "special": True, **whole} for token in special
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": names,
            "unk_token": tokens.get("unk_token", next(iter(names))),
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def states(state, prefix, x, *, heads, groups, theta=10000.0, epsilon=1e-5):
    """Return the last states [T, C] of a row of embeddings [T, C] in a Llama-shaped body.

    Query head h looks at key head h G / H. A norm of queries or keys with R rows gives row
    h R / H to head h (Lumina-mGPT, lumina_mgpt/model/chameleon/modeling_chameleon.py).
    """
    wide = {name: value.double() for name, value in state.items() if name.startswith(prefix)}
    length, channels = x.shape
    width = channels // heads
    speeds = theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * speeds
    cos, sin = angles.cos(), angles.sin()
    causal = torch.ones(length, length).tril().bool()

    def norm(x, name):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) * wide[name + ".weight"]

    def head(name, part, index, count):
        """Return a query or key head [T, D], normed where the layer norms it, and turned."""
        rows = slice(index * width, (index + 1) * width)
        values = fed @ wide[f"{name}{part}_proj.weight"][rows].T
        weight = wide.get(f"{name}{part}_norm.weight")
        if weight is not None:
            row = index * weight.shape[0] // count
            values = F.layer_norm(values, (width,), eps=HEAD_EPSILON)
            values = values * weight[row] + wide[f"{name}{part}_norm.bias"][row]
        left, right = values.chunk(2, -1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)

    layer = 0
    while f"{prefix}layers.{layer}.self_attn.q_proj.weight" in wide:
        block = f"{prefix}layers.{layer}."
        name = block + "self_attn."
        fed = norm(x, block + "input_layernorm")
        value = (fed @ wide[name + "v_proj.weight"].T).view(length, groups, width)
        keys = [head(name, "k", index, groups) for index in range(groups)]
        mixed = []
        for index in range(heads):
            group = index * groups // heads
            scores = head(name, "q", index, heads) @ keys[group].T / width**0.5
            mixed.append(scores.masked_fill(~causal, -torch.inf).softmax(-1) @ value[:, group])
        x = x + torch.cat(mixed, -1) @ wide[name + "o_proj.weight"].T
        fed = norm(x, block + "post_attention_layernorm")
        inner = F.silu(fed @ wide[block + "mlp.gate_proj.weight"].T)
        inner = inner * (fed @ wide[block + "mlp.up_proj.weight"].T)
        x = x + inner @ wide[block + "mlp.down_proj.weight"].T
        layer += 1
    return norm(x, f"{prefix}norm")


def law(logits, *, temperature=1.0, top_k=None):
    """Return probabilities [T, K] of logits, cut to the `top_k` largest of each row."""
    logits = logits.double() / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k, -1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    return logits.softmax(-1)


def check_laws(got, want, *, top_k=None, tolerance=1e-4):
    """Two sets of logits [T, K] give the same laws and choose the same codes."""
    left, right = law(got, top_k=top_k), law(want, top_k=top_k)
    assert ((left - right).abs().sum(-1) / 2).max() < tolerance
    assert got.argmax(-1).tolist() == want.argmax(-1).tolist()
