"""A random Janus-Pro checkpoint, written as deepseek-community/Janus-Pro-1B is published.

The names are those of transformers, models/janus/convert_janus_weights_to_hf.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.unit.models.by_hand import Tensors, states, write_checkpoint, write_tokenizer

SPECIAL = ["<pad>", "<s>", "</s>", "<begin_of_image>", "<|User|>:", "<|Assistant|>:"]
WORDS = [*SPECIAL, "a", "red", "blue", "cat", "dog", "and", "the", "on"]
CODES, SIDE = 20, 3
CHANNELS, HEADS, CODE, LATENT = 32, 4, 8, 32
VISION = 16


def config(layers=2):
    """Return the keys of the published config.json, with small sizes."""
    return {
        "architectures": ["JanusForConditionalGeneration"],
        "image_token_id": 0,
        "model_type": "janus",
        "text_config": {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "head_dim": CHANNELS // HEADS,
            "hidden_act": "silu",
            "hidden_size": CHANNELS,
            "intermediate_size": 48,
            "max_position_embeddings": 64,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": HEADS,
            "num_hidden_layers": layers,
            "num_key_value_heads": HEADS,
            "pad_token_id": 0,
            "pretraining_tp": 1,
            "rms_norm_eps": 1e-06,
            "rope_scaling": None,
            "rope_theta": 10000.0,
            "torch_dtype": "bfloat16",
            "vocab_size": len(WORDS),
        },
        "torch_dtype": "bfloat16",
        "transformers_version": "4.52.0.dev0",
        "vision_config": {
            "attention_bias": True,
            "depth": 2,
            "hidden_act": "gelu",
            "hidden_size": VISION,
            "image_size": 16 * SIDE,
            "mlp_ratio": 4.0,
            "model_type": "janus_vision_model",
            "num_attention_heads": 2,
            "num_channels": 3,
            "num_hidden_layers": 1,
            "patch_size": 16,
            "projection_dim": CHANNELS,
            "use_qk_norm": False,
        },
        "vq_config": {
            "base_channels": 32,
            "channel_multiplier": [1, 2],
            "depth": 2,
            "double_latent": False,
            "embed_dim": CODE,
            "hidden_act": "gelu",
            "image_token_embed_dim": CHANNELS,
            "in_channels": 3,
            "latent_channels": LATENT,
            "model_type": "janus_vqgan",
            "num_embeddings": CODES,
            "num_patches": SIDE,
            "num_res_blocks": 1,
            "out_channels": 3,
            "projection_dim": CHANNELS,
        },
    }


def language(seed=0, layers=2):
    """Return the tensors of the words' body and head."""
    made = Tensors(seed)
    made.body(
        "model.language_model.",
        channels=CHANNELS,
        feed=48,
        layers=layers,
        heads=HEADS,
        groups=HEADS,
        vocabulary=len(WORDS),
    )
    made.linear("lm_head", len(WORDS), CHANNELS)
    return made.state


def drawing():
    """Return the tensors that draw: the codes' embeddings and head, and the image tokenizer."""
    made = Tensors(7)
    made.add("model.generation_embeddings.weight", CODES, CODE, scale=1.0)
    made.linear("model.generation_aligner.fc1", CHANNELS, CODE, bias=True)
    made.linear("model.generation_aligner.hidden_layers.0", CHANNELS, CHANNELS, bias=True)
    made.linear("model.generation_head.proj_out", CHANNELS, CHANNELS, bias=True)
    made.linear("model.generation_head.vision_head", CODES, CHANNELS, bias=True)
    made.add("model.vqmodel.quantize.embedding.weight", CODES, CODE, scale=1.0)
    made.conv("model.vqmodel.quant_conv", LATENT, CODE, 1, 1)
    made.conv("model.vqmodel.post_quant_conv", CODE, LATENT, 1, 1)
    encoder, decoder = "model.vqmodel.encoder", "model.vqmodel.decoder"
    made.conv(f"{encoder}.conv_in", 3, 32, 3, 3)
    made.residual(f"{encoder}.down.0.block.0", 32, 32)
    made.conv(f"{encoder}.down.0.downsample.conv", 32, 32, 3, 3)
    made.residual(f"{encoder}.down.1.block.0", 32, 64)
    made.attention(f"{encoder}.down.1.attn.0", 64)
    made.middle(encoder, 64)
    made.scale(f"{encoder}.norm_out", 64, bias=True)
    made.conv(f"{encoder}.conv_out", 64, LATENT, 3, 3)
    made.conv(f"{decoder}.conv_in", LATENT, 64, 3, 3)
    made.middle(decoder, 64)
    for block in range(2):
        made.residual(f"{decoder}.up.0.block.{block}", 64, 64)
        made.attention(f"{decoder}.up.0.attn.{block}", 64)
    made.conv(f"{decoder}.up.0.upsample.conv", 64, 64, 3, 3)
    made.residual(f"{decoder}.up.1.block.0", 64, 32)
    made.residual(f"{decoder}.up.1.block.1", 32, 32)
    made.scale(f"{decoder}.norm_out", 32, bias=True)
    made.conv(f"{decoder}.conv_out", 32, 3, 3, 3)
    return made.state


def eyes():
    """Return the tensors that only read pictures."""
    made = Tensors(9)
    name = "model.vision_model"
    made.conv(f"{name}.embeddings.patch_embedding", 3, VISION, 16, 16)
    made.add(f"{name}.embeddings.position_embedding.weight", SIDE**2, VISION)
    made.scale(f"{name}.encoder.layers.0.layer_norm1", VISION, bias=True)
    for part in ("q_proj", "k_proj", "v_proj", "projection_layer"):
        made.linear(f"{name}.encoder.layers.0.self_attn.{part}", VISION, VISION, bias=True)
    made.scale(f"{name}.encoder.layers.0.layer_norm2", VISION, bias=True)
    made.linear(f"{name}.encoder.layers.0.mlp.fc1", 4 * VISION, VISION, bias=True)
    made.linear(f"{name}.encoder.layers.0.mlp.fc2", VISION, 4 * VISION, bias=True)
    made.scale(f"{name}.post_layernorm", VISION, bias=True)
    made.linear("model.aligner.fc1", CHANNELS, VISION, bias=True)
    made.linear("model.aligner.hidden_layers.0", CHANNELS, CHANNELS, bias=True)
    return made.state


def tensors(seed=0, layers=2):
    """Return all tensors of a checkpoint; every one has the same drawing half."""
    return {**language(seed, layers), **drawing(), **eyes()}


def write(place, seed=0, layers=2, state=None):
    """Write a checkpoint."""
    write_checkpoint(place, config(layers), state or tensors(seed, layers), files=3)
    names = {word: index for index, word in enumerate(WORDS)}
    known = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    write_tokenizer(place, names, special=["<begin_of_image>"], unk_token="<pad>", **known)
    return place


def reference_of(state):
    """Return `reference(prompt, tokens, scale)`: the mixed logits of every place, as defined.

    A code's embedding is its vector through two layers around a GELU, and so is its head
    (deepseek-ai/Janus, janus/models/projector.py and modeling_vlm.py, `vision_head`).
    """
    wide = {name: value.double() for name, value in state.items()}

    def linear(name, x):
        return x @ wide[f"model.{name}.weight"].T + wide[f"model.{name}.bias"]

    def embed(codes):
        inner = linear("generation_aligner.fc1", wide["model.generation_embeddings.weight"][codes])
        return linear("generation_aligner.hidden_layers.0", F.gelu(inner))

    def reference(prompt, tokens, scale):
        codes = torch.tensor(tokens, dtype=torch.int64) - len(WORDS)
        rows = []
        for words in (prompt, [prompt[0], *[0] * (len(prompt) - 2), prompt[-1]]):
            begun = wide["model.language_model.embed_tokens.weight"][torch.tensor(words)]
            whole = torch.cat([begun, embed(codes)])
            hidden = states(
                state, "model.language_model.", whole, heads=HEADS, groups=HEADS, epsilon=1e-6
            )
            inner = F.gelu(linear("generation_head.proj_out", hidden[len(prompt) - 1 :]))
            rows.append(linear("generation_head.vision_head", inner))
        return rows[1] + scale * (rows[0] - rows[1])

    return reference
