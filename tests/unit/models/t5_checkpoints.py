"""A random T5 in the layout of google/flan-t5-xl, and what its encoder computes.

The published files hold the whole model, words' table once (`shared.weight`), feed-forward layers
with a gate, and no `encoder.embed_tokens.weight`. Raffel et al. 2020, section 2.1; transformers,
models/t5/modeling_t5.py for the distances' buckets.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.unit.models.by_hand import Tensors, write_checkpoint, write_tokenizer

WORDS = ["<pad>", "</s>", "<unk>", "a", "photo", "of", "red", "blue", "cat", "dog"]
WIDTH, HEADS, HEAD, FEED, LAYERS, BUCKETS = 16, 4, 4, 24, 2, 32


def config():
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "d_ff": FEED,
        "d_kv": HEAD,
        "d_model": WIDTH,
        "decoder_start_token_id": 0,
        "dropout_rate": 0.1,
        "eos_token_id": 1,
        "feed_forward_proj": "gated-gelu",
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "layer_norm_epsilon": 1e-06,
        "model_type": "t5",
        "n_positions": 512,
        "num_decoder_layers": LAYERS,
        "num_heads": HEADS,
        "num_layers": LAYERS,
        "output_past": True,
        "pad_token_id": 0,
        "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": BUCKETS,
        "tie_word_embeddings": False,
        "transformers_version": "4.23.1",
        "use_cache": True,
        "vocab_size": len(WORDS),
    }


def tensors():
    made = Tensors(11, torch.float32)
    made.add("shared.weight", len(WORDS), WIDTH, scale=1.0)
    for half, sublayers in (("encoder", 2), ("decoder", 3)):
        for block in range(LAYERS):
            for layer in range(sublayers - 1):
                name = f"{half}.block.{block}.layer.{layer}"
                kind = "EncDecAttention" if layer else "SelfAttention"
                for part in ("q", "k", "v"):
                    made.linear(f"{name}.{kind}.{part}", HEADS * HEAD, WIDTH)
                made.linear(f"{name}.{kind}.o", WIDTH, HEADS * HEAD)
                if block == layer == 0:
                    made.add(f"{name}.{kind}.relative_attention_bias.weight", BUCKETS, HEADS)
                made.scale(f"{name}.layer_norm", WIDTH)
            name = f"{half}.block.{block}.layer.{sublayers - 1}"
            made.linear(f"{name}.DenseReluDense.wi_0", FEED, WIDTH)
            made.linear(f"{name}.DenseReluDense.wi_1", FEED, WIDTH)
            made.linear(f"{name}.DenseReluDense.wo", WIDTH, FEED)
            made.scale(f"{name}.layer_norm", WIDTH)
        made.scale(f"{half}.final_layer_norm", WIDTH)
    made.linear("lm_head", len(WORDS), WIDTH)
    return made.state


def write(place):
    write_checkpoint(place, config(), tensors())
    names = {word: index for index, word in enumerate(WORDS)}
    known = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_tokenizer(place, names, **known)
    return place


def _bucket(distance):
    """Return the bucket of a key's distance behind a query: half of them for either side."""
    half = BUCKETS // 2
    side, far = (half if distance > 0 else 0), abs(distance)
    exact = half // 2
    if far < exact:
        return side + far
    large = exact + int(math.log(far / exact) / math.log(128 / exact) * (half - exact))
    return side + min(large, half - 1)


def features(ids):
    """Return the encoder's last states [T, E] of the tokens [T] of one caption."""
    wide = {name: value.double() for name, value in tensors().items()}
    length = len(ids)

    def norm(x, name):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * wide[f"{name}.weight"]

    table = wide["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    buckets = [[_bucket(key - query) for key in range(length)] for query in range(length)]
    bias = table[torch.tensor(buckets)].permute(2, 0, 1)
    x = wide["shared.weight"][torch.tensor(ids)]
    for block in range(LAYERS):
        name = f"encoder.block.{block}.layer"
        fed = norm(x, f"{name}.0.layer_norm")
        query, key, value = (
            (fed @ wide[f"{name}.0.SelfAttention.{part}.weight"].T).view(length, HEADS, HEAD)
            for part in "qkv"
        )
        weights = (torch.einsum("qhd,khd->hqk", query, key) + bias).softmax(-1)
        mixed = torch.einsum("hqk,khd->qhd", weights, value).reshape(length, HEADS * HEAD)
        x = x + mixed @ wide[f"{name}.0.SelfAttention.o.weight"].T
        fed = norm(x, f"{name}.1.layer_norm")
        gate = F.gelu(fed @ wide[f"{name}.1.DenseReluDense.wi_0.weight"].T, approximate="tanh")
        inner = gate * (fed @ wide[f"{name}.1.DenseReluDense.wi_1.weight"].T)
        x = x + inner @ wide[f"{name}.1.DenseReluDense.wo.weight"].T
    return norm(x, "encoder.final_layer_norm")
