"""Random checkpoints of the Chameleon family, written as they are published.

Lumina-mGPT: Alpha-VLLM/Lumina-mGPT, lumina_mgpt/model (the classes that wrote its files). Its norms
of queries and keys have a row for each shard of the training; transformers' conversion of Anole
and facebook/chameleon-7b has one for each head. Either kind says `model_parallel_size: 1`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from specbench.schema.model import ModelConfig
from tests.unit.models.by_hand import Tensors, states, write_checkpoint, write_tokenizer

CODES, FIRST = 24, 4
BEGIN, END, ROW_END, SIZE, TURN = 28, 29, 30, 31, 32
WORDS = ("a", "red", "blue", "circle", "left", "of")
VOCAB = 48
ROWS, COLUMNS = 3, 4
HEADS, GROUPS, CHANNELS = 4, 4, 32
NUMBERS = torch.randperm(CODES, generator=torch.Generator().manual_seed(7)).tolist()
"""The image tokenizer's number of each code, in the order of token ids."""

LAYOUT = {
    "grid": {"rows": ROWS, "columns": COLUMNS, "row_end": ROW_END, "ending": [END, TURN]},
    "first_code": FIRST,
    "codes": CODES,
    "prompt": [0, "a {caption}", TURN, BEGIN, SIZE, SIZE],
    "unconditional": [BEGIN, SIZE, SIZE],
    "image_conditional": [0, BEGIN, SIZE, SIZE],
}
VQ_CHANNELS, VQ_WIDTH = 32, 6
VQ = {
    "embed_dim": VQ_WIDTH,
    "num_embeddings": CODES,
    "latent_channels": VQ_WIDTH,
    "resolution": 8,
    "base_channels": VQ_CHANNELS,
    "channel_multiplier": [1, 1],
    "num_res_blocks": 1,
    "attn_resolutions": None,
    "attn_type": "vanilla",
    "double_latent": False,
    "dropout": 0.0,
    "in_channels": 3,
}
META_VQ = {
    "embed_dim": VQ_WIDTH,
    "n_embed": CODES,
    "ddconfig": {
        "double_z": False,
        "z_channels": VQ_WIDTH,
        "resolution": 8,
        "in_channels": 3,
        "out_ch": 3,
        "ch": VQ_CHANNELS,
        "ch_mult": [1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    },
}
"""`model.params` of Meta's vqgan.yaml."""


def vocabulary():
    """Return ids by name, in the form of the published vocabulary."""
    names = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    for index, number in enumerate(NUMBERS):
        letters = "".join(chr(ord("A") + int(digit)) for digit in str(number))
        names[f"IMGIMG{letters}Z"] = FIRST + index
    special = ["<racm3:break>", "<eoss>", "<reserved08799>", "<reserved08800>", "<reserved08706>"]
    for name in (*special, *WORDS):
        names[name] = len(names)
    assert names["<reserved08706>"] == TURN
    return names


def config(layers=2, groups=GROUPS, **keys):
    """Return the keys of Lumina-mGPT's config.json, with small sizes."""
    return {
        "architectures": ["ChameleonXLLMXForConditionalGeneration"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "dropout": 0.0,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": CHANNELS,
        "initializer_range": 0.02,
        "intermediate_size": 40,
        "mask_image_logits": False,
        "max_position_embeddings": 128,
        "mlp_bias": False,
        "model_parallel_size": 1,
        "model_type": "chameleon",
        "num_attention_heads": HEADS,
        "num_hidden_layers": layers,
        "num_key_value_heads": groups,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "swin_norm": False,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.44.0.dev0",
        "use_cache": True,
        "vocab_size": VOCAB,
        "vocabulary_map": {**vocabulary(), "<image>": VOCAB - 1},
        "vq_config": VQ,
        "z_loss_weight": 0.0,
        **keys,
    }


def tensors(seed=0, layers=2, groups=GROUPS, rows=(1, 1)):
    """Return the language model's tensors; `rows` are those of its norms of queries and keys."""
    made = Tensors(seed)
    made.body(
        "model.",
        channels=CHANNELS,
        feed=40,
        layers=layers,
        heads=HEADS,
        groups=groups,
        vocabulary=VOCAB,
        rows=rows,
    )
    made.linear("lm_head", VOCAB, CHANNELS)
    return made.state


def image_tokenizer(seed=3):
    """Return Meta's image tokenizer with two resolutions, by the names of its vqgan.ckpt."""
    made = Tensors(seed, torch.float32)
    wide = VQ_CHANNELS
    made.conv("encoder.conv_in", 3, wide, 3, 3)
    for level in range(2):
        made.residual(f"encoder.down.{level}.block.0", wide, wide)
    made.conv("encoder.down.0.downsample.conv", wide, wide, 3, 3)
    made.middle("encoder", wide)
    made.scale("encoder.norm_out", wide, bias=True)
    made.conv("encoder.conv_out", wide, VQ_WIDTH, 3, 3)
    made.conv("decoder.conv_in", VQ_WIDTH, wide, 3, 3)
    made.middle("decoder", wide)
    for level in range(2):
        for block in range(2):
            made.residual(f"decoder.up.{level}.block.{block}", wide, wide)
    made.conv("decoder.up.1.upsample.conv", wide, wide, 3, 3)
    made.scale("decoder.norm_out", wide, bias=True)
    made.conv("decoder.conv_out", wide, 3, 3, 3)
    made.add("quantize.embedding.weight", CODES, VQ_WIDTH, scale=1.0)
    made.conv("quant_conv", VQ_WIDTH, VQ_WIDTH, 1, 1)
    made.conv("post_quant_conv", VQ_WIDTH, VQ_WIDTH, 1, 1)
    return made.state


def draw(state, numbers):
    """Return the picture [3, H, W] of code numbers [h, w], operation by operation."""

    def conv(name, x):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def norm(name, x):
        return F.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def residual(name, x):
        hidden = conv(f"{name}.conv1", F.silu(norm(f"{name}.norm1", x)))
        return x + conv(f"{name}.conv2", F.silu(norm(f"{name}.norm2", hidden)))

    def attention(name, x):
        hidden = norm(f"{name}.norm", x)
        query, key, value = (conv(f"{name}.{part}", hidden).flatten(2)[0] for part in "qkv")
        weights = (query.T @ key / query.shape[0] ** 0.5).softmax(-1)
        return x + conv(f"{name}.proj_out", (value @ weights.T).view_as(x))

    x = state["quantize.embedding.weight"][numbers].permute(2, 0, 1)[None]
    x = conv("decoder.conv_in", conv("post_quant_conv", x))
    x = attention("decoder.mid.attn_1", residual("decoder.mid.block_1", x))
    x = residual("decoder.mid.block_2", x)
    for level in (1, 0):
        for block in range(2):
            x = residual(f"decoder.up.{level}.block.{block}", x)
        if level:
            x = conv("decoder.up.1.upsample.conv", F.interpolate(x, scale_factor=2.0))
    return conv("decoder.conv_out", F.silu(norm("decoder.norm_out", x)))[0].clamp(-1, 1)


def inside(decoder=False):
    """Return the image tokenizer as a checkpoint holds it; published ones drop its decoder."""
    return {
        f"model.vqmodel.{name}": tensor
        for name, tensor in image_tokenizer().items()
        if decoder or not name.startswith("decoder.")
    }


def write(folder, seed=0, layers=2, groups=GROUPS, rows=(1, 1), **keys):
    """Write a random Chameleon with the encoder's half of its image tokenizer, as published."""
    state = tensors(seed, layers, groups, rows)
    write_checkpoint(folder, config(layers, groups, **keys), {**state, **inside()})
    known = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_tokenizer(folder, vocabulary(), **known)
    return folder


def entry(folder, **keys):
    """Return the model entry of a folder, computed in float64."""
    return ModelConfig.from_dict(
        {
            "name": "toy",
            "title": "Toy",
            "modality": "image",
            "loader": {"_target_": "specbench.models.chameleon.load"},
            "target": str(folder),
            "dtype": "float64",
            "device": "cpu",
            **keys,
        }
    )


def logits_of(state, tokens, groups=GROUPS):
    """Return the logits [T, V] of a row of tokens, from the definition."""
    x = state["model.embed_tokens.weight"][torch.tensor(tokens)].double()
    return (
        states(state, "model.", x, heads=HEADS, groups=groups) @ state["lm_head.weight"].double().T
    )


def close(left, right):
    """The library's rotary tables are float32: agreement ends near 1e-5."""
    torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)


CAPTION = "red circle left of a blue circle"
TOKENS = [5, 9, 4, 27, ROW_END, 6, 6, 20, 13, ROW_END, 11, 8, 17, 26, ROW_END, END]
