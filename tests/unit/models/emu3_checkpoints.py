"""A random Emu3 checkpoint, written as BAAI/Emu3-Gen-hf is published.

Its names are those of the library's first release of the architecture: the language model below
`text_model.`, the tokenizer of videos below `vqmodel.` (transformers,
models/emu3/convert_emu3_weights_to_hf.py).
"""

from __future__ import annotations

import torch

from tests.unit.models.by_hand import Tensors, write_checkpoint, write_tokenizer

WORDS = ("<pad>", "a", "red", "circle", "blurry", "bad", "worst", "2*3")
BOS, IMAGE_START, IMAGE, EOL, EOF, IMAGE_END, EOS = range(len(WORDS), len(WORDS) + 7)
SPECIAL = {
    "<|extra_203|>": BOS,
    "<|image start|>": IMAGE_START,
    "<|image token|>": IMAGE,
    "<|extra_200|>": EOL,
    "<|extra_201|>": EOF,
    "<|image end|>": IMAGE_END,
    "<|extra_204|>": EOS,
}
FIRST, CODES = EOS + 1, 20
VOCAB = FIRST + CODES
ROWS, COLUMNS = 2, 3
HEADS, GROUPS, CHANNELS, THETA = 4, 2, 32, 1e6
LATENT, WIDE = 4, 32


def names():
    words = {word: index for index, word in enumerate(WORDS)}
    codes = {f"<|visual token {code:06d}|>": FIRST + code for code in range(CODES)}
    return {**words, **SPECIAL, **codes}


def config():
    """Return the keys of the published config.json, with small sizes."""
    return {
        "architectures": ["Emu3ForConditionalGeneration"],
        "image_token_id": IMAGE,
        "initializer_range": 0.02,
        "model_type": "emu3",
        "text_config": {
            "attention_bias": False,
            "attention_dropout": 0.1,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "hidden_act": "silu",
            "hidden_size": CHANNELS,
            "intermediate_size": 40,
            "max_position_embeddings": 96,
            "mlp_bias": False,
            "model_type": "emu3_text_model",
            "num_attention_heads": HEADS,
            "num_hidden_layers": 2,
            "num_key_value_heads": GROUPS,
            "pad_token_id": 0,
            "rms_norm_eps": 1e-05,
            "rope_scaling": None,
            "rope_theta": THETA,
            "vocab_size": VOCAB,
        },
        "torch_dtype": "bfloat16",
        "transformers_version": "4.48.0.dev0",
        "vocabulary_map": names(),
        "vq_config": {
            "attn_resolutions": [],
            "base_channels": WIDE,
            "channel_multiplier": [1, 1],
            "codebook_size": CODES,
            "double_latent": False,
            "embed_dim": LATENT,
            "hidden_size": WIDE,
            "in_channels": 3,
            "latent_channels": LATENT,
            "model_type": "emu3_vqgan",
            "num_res_blocks": 1,
            "out_channels": 3,
            "temporal_downsample_factor": 2,
        },
    }


def language():
    """Return the tensors of the language model."""
    made = Tensors()
    made.body(
        "text_model.model.",
        channels=CHANNELS,
        feed=40,
        layers=2,
        heads=HEADS,
        groups=GROUPS,
        vocabulary=VOCAB,
    )
    made.linear("text_model.lm_head", VOCAB, CHANNELS)
    return made.state


class _Video(Tensors):
    """The names of the tokenizer of videos: norms that see the codes, and blocks over time."""

    def spatial(self, name, width):
        self.scale(f"{name}.norm_layer", width, bias=True, scale=0.1)
        self.conv(f"{name}.conv_y", LATENT, width, 1, 1)
        self.conv(f"{name}.conv_b", LATENT, width, 1, 1)

    def block(self, name, norm):
        for part in ("1", "2"):
            norm(f"{name}.norm{part}", WIDE)
            self.conv(f"{name}.conv{part}", WIDE, WIDE, 3, 3)

    def middle_block(self, name, norm):
        self.block(f"{name}.middle_block.block_1", norm)
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            self.linear(f"{name}.middle_block.attn_1.{part}", WIDE, WIDE, bias=True, scale=0.2)
        norm(f"{name}.middle_block.attn_norm", WIDE)
        self.block(f"{name}.middle_block.block_2", norm)

    def time_block(self, name):
        for part in ("1", "2"):
            self.scale(f"{name}.norm{part}", LATENT, bias=True, scale=0.1)
            self.add(f"{name}.norm{part}.running_mean", LATENT, scale=0.1)
            self.state[f"{name}.norm{part}.running_var"] = torch.ones(LATENT, dtype=self.dtype)
            self.state[f"{name}.norm{part}.num_batches_tracked"] = torch.tensor(7)
            self.conv(f"{name}.conv{part}.conv", LATENT, LATENT, 3, 3, 3)


def tokenizer_of_videos():
    """Return its tensors, in float32."""
    made = _Video(5, torch.float32)
    plain = lambda name, width: made.scale(name, width, bias=True, scale=0.1)  # noqa: E731
    made.conv("encoder.conv_in", 3, WIDE, 3, 3)
    for level in range(2):
        made.block(f"encoder.down_block.down.{level}.block.0", plain)
    made.conv("encoder.down_block.down.0.downsample.conv", WIDE, WIDE, 3, 3)
    made.middle_block("encoder", plain)
    plain("encoder.norm_out", WIDE)
    made.conv("encoder.conv_out", WIDE, LATENT, 3, 3)
    made.conv("encoder.time_conv.0.conv.conv", LATENT, LATENT, 4, 3, 3)
    made.time_block("encoder.time_res_stack.0")
    made.time_block("decoder.time_res_stack.0")
    made.conv("decoder.time_conv.0.conv.conv", LATENT, LATENT, 3, 3, 3)
    made.conv("decoder.conv_in", LATENT, WIDE, 3, 3)
    made.middle_block("decoder", made.spatial)
    for level in range(2):
        for block in range(2):
            made.block(f"decoder.up_block.up.{level}.block.{block}", made.spatial)
    made.conv("decoder.up_block.up.1.upsample.conv", WIDE, WIDE, 3, 3)
    made.spatial("decoder.norm_out", WIDE)
    made.conv("decoder.conv_out", WIDE, 3, 3, 3)
    made.add("quantize.embedding.weight", CODES, LATENT, scale=1.0)
    made.conv("quant_conv.conv", LATENT, LATENT, 3, 1, 1)
    made.conv("post_quant_conv.conv", LATENT, LATENT, 3, 1, 1)
    return made.state


def write(folder, pixels=True):
    """Write the checkpoint, with or without its tokenizer of videos."""
    state = language()
    if pixels:
        state |= {f"vqmodel.{name}": tensor for name, tensor in tokenizer_of_videos().items()}
    write_checkpoint(folder, config(), state, files=3)
    write_tokenizer(folder, names(), bos_token="<|extra_203|>", eos_token="<|extra_204|>")
    return folder
