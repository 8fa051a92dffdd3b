"""Lumina-mGPT 2.0: a checkpoint in its published form, read whole and computed as defined."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import ChameleonConfig, ChameleonForConditionalGeneration, PreTrainedTokenizerFast

from specbench.decoding.loops.speculative_jacobi import SpeculativeJacobi
from specbench.errors import ModelError
from specbench.models import checkpoint as checkpoints
from specbench.models.lumina2 import with_tokens
from specbench.models.movqgan import MoVQDecoder
from specbench.models.published import State
from specbench.schema import catalog
from tests.unit.models.image_checks import (
    check_forwards,
    check_identical,
    check_pictures_obey_the_grid,
    load_entry,
    picture,
)

WORDS = ["<|end|>", "a", "red", "cat", "dog", "Generate", "an", "image", "of", "768x768"]
WORDS += ["according", "to", "the", "following", "prompt:"]
SPECIAL = ["<racm3:break>", "<eoss>", "<reserved08799>", "<reserved08706>", "<reserved08824>"]
BREAK, END, ROW_END, SEPARATOR, SIZE = range(len(WORDS), len(WORDS) + len(SPECIAL))
FIRST, CODES, SIDE = 20, 16, 3
HEADS, CHANNELS = 4, 32
LOADER = {
    "grid": {"rows": SIDE, "columns": SIDE, "row_end": ROW_END, "ending": [END]},
    "first_code": FIRST,
    "codes": CODES,
    "prompt": [
        "Generate an image of 768x768 according to the following prompt:\n{caption}",
        "<reserved08706>",
        BREAK,
        "<reserved08824>",
        "<reserved08824>",
    ],
    "unconditional": [BREAK, "<reserved08824>", "<reserved08824>"],
}


def write(place):
    """Write a random checkpoint: the language model alone, as the release has it."""
    torch.manual_seed(0)
    config = ChameleonConfig(
        vocab_size=FIRST + CODES + 3,
        hidden_size=CHANNELS,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=64,
        initializer_range=0.4,
        vocabulary_map={"<image>": 0},
        vq_config={"base_channels": 32, "channel_multiplier": [1], "num_res_blocks": 1},
    )
    module = ChameleonForConditionalGeneration(config)
    del module.model.vqmodel
    for name, parameter in module.named_parameters():
        if "norm" in name:
            parameter.data += 0.3 * torch.randn_like(parameter)
    module.save_pretrained(place)
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_tokens([AddedToken(word, normalized=False) for word in SPECIAL])
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>").save_pretrained(place)


def movqgan():
    """Return MoVQGAN's published names with two resolutions in place of four."""
    generator = torch.Generator().manual_seed(1)
    state = {}

    def conv(name, inside, outside, size):
        shape = (outside, inside, size, size)
        state[f"{name}.weight"] = 0.1 * torch.randn(shape, generator=generator)
        state[f"{name}.bias"] = 0.1 * torch.randn(outside, generator=generator)

    def norm(name, width):
        state[f"{name}.norm_layer.weight"] = 1 + 0.1 * torch.randn(width, generator=generator)
        state[f"{name}.norm_layer.bias"] = 0.1 * torch.randn(width, generator=generator)
        conv(f"{name}.conv_y", 4, width, 1)
        conv(f"{name}.conv_b", 4, width, 1)

    def residual(name, inside, outside):
        norm(f"{name}.norm1", inside)
        conv(f"{name}.conv1", inside, outside, 3)
        norm(f"{name}.norm2", outside)
        conv(f"{name}.conv2", outside, outside, 3)
        if inside != outside:
            conv(f"{name}.nin_shortcut", inside, outside, 1)

    def attention(name, width):
        norm(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{name}.{part}", width, width, 1)

    state["quantize.embedding.weight"] = torch.randn(CODES, 4, generator=generator)
    conv("post_quant_conv", 4, 4, 1)
    conv("encoder.conv_in", 3, 32, 3)
    conv("decoder.conv_in", 4, 64, 3)
    residual("decoder.mid.block_1", 64, 64)
    attention("decoder.mid.attn_1", 64)
    residual("decoder.mid.block_2", 64, 64)
    for block in range(2):
        residual(f"decoder.up.1.block.{block}", 64, 64)
        attention(f"decoder.up.1.attn.{block}", 64)
    conv("decoder.up.1.upsample.conv", 64, 64, 3)
    residual("decoder.up.0.block.0", 64, 32)
    residual("decoder.up.0.block.1", 32, 32)
    norm("decoder.norm_out", 32)
    conv("decoder.conv_out", 32, 3, 3)
    return state


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("lumina2")
    write(place / "model")
    (place / "vq").mkdir()
    torch.save(movqgan(), place / "vq" / "movqgan_270M.ckpt")
    return place


def load(folder, **loader):
    options = {**LOADER, "image_tokenizer": str(folder / "vq"), **loader}
    return load_entry("lumina2", target=str(folder / "model"), dtype="float64", loader=options)


@pytest.fixture(scope="module")
def pair(folder):
    return load(folder)


def forward(state, tokens):
    """Return logits [T, V] of one row, from the definition of Chameleon's blocks."""

    def norm(x, name):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * state[name]

    def head_norm(x, name):
        normed = F.layer_norm(x, (x.shape[-1],), eps=1e-5)
        return normed * state[f"{name}.weight"] + state[f"{name}.bias"]

    length, width = len(tokens), CHANNELS // HEADS
    speeds = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * speeds
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]

    def turn(x):
        left, right = x.chunk(2, -1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)

    causal = torch.ones(length, length).tril().bool()
    x = state["model.embed_tokens.weight"][torch.tensor(tokens)]
    for layer in range(2):
        name = f"model.layers.{layer}."
        fed = norm(x, name + "input_layernorm.weight")
        query, key, value = (
            (fed @ state[f"{name}self_attn.{part}_proj.weight"].T).view(length, HEADS, width)
            for part in "qkv"
        )
        query = turn(head_norm(query, name + "self_attn.q_norm"))
        key = turn(head_norm(key, name + "self_attn.k_norm"))
        scores = torch.einsum("qhd,khd->hqk", query, key) / width**0.5
        weights = scores.masked_fill(~causal, -torch.inf).softmax(-1)
        mixed = torch.einsum("hqk,khd->qhd", weights, value).reshape(length, CHANNELS)
        x = x + mixed @ state[name + "self_attn.o_proj.weight"].T
        fed = norm(x, name + "post_attention_layernorm.weight")
        inner = F.silu(fed @ state[name + "mlp.gate_proj.weight"].T)
        inner = inner * (fed @ state[name + "mlp.up_proj.weight"].T)
        x = x + inner @ state[name + "mlp.down_proj.weight"].T
    return norm(x, "model.norm.weight") @ state["lm_head.weight"].T


def reference_of(folder):
    loaded = load_file(folder / "model" / "model.safetensors")
    state = {name: value.double() for name, value in loaded.items()}

    def reference(prompt, tokens, scale):
        count = len(tokens) + 1
        full, empty = (
            forward(state, [*row, *tokens])[-count:, FIRST : FIRST + CODES]
            for row in (prompt, [BREAK, SIZE, SIZE])
        )
        return empty + scale * (full - empty)

    return reference


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("caption", ["a red cat", "dog"])
def test_forwards_equal_full_recomputation(folder, pair, scale, caption):
    """The unconditional row is shorter, and stands behind padding.

    transformers' rotary tables are made in float32: agreement ends near 1e-5.
    """
    check_forwards(pair, pair.image.encode(caption), reference_of(folder), scale, 1e-4)


def test_the_prompt_is_the_authors_template(pair):
    """The tokenizer has no token for the beginning: the one for the end stands there."""
    ids = pair.image.encode("a red cat")
    names = [[*WORDS, *SPECIAL][token] for token in ids]
    assert names[0] == "<|end|>"
    assert names[1:11] == WORDS[5:]
    assert names[11:14] == ["a", "red", "cat"]
    assert names[14:] == ["<reserved08706>", "<racm3:break>", *["<reserved08824>"] * 2]


def test_the_entry_is_the_released_grid_and_vocabulary():
    loader = catalog.load("model", "lumina2")["loader"]
    assert loader["prompt"] == [151665 if part == BREAK else part for part in LOADER["prompt"]]
    assert loader["first_code"] + loader["codes"] - 1 == 171383
    assert loader["grid"] == {"rows": 96, "columns": 96, "row_end": 151670, "ending": [151666]}


class _Vocabulary:
    def __init__(self, names, begin=None, end=5):
        self._names = names
        self.bos_token_id = begin
        self.eos_token_id = end

    def get_vocab(self):
        return self._names


def test_names_of_tokens_become_ids():
    options = {"prompt": ["<b> {caption}", "<b>", 7], "unconditional": ["<b>"], "codes": 3}
    filled = with_tokens(options, _Vocabulary({"<b>": 2}, begin=9))
    assert filled == {"prompt": [9, "<b> {caption}", 2, 7], "unconditional": [2], "codes": 3}
    assert with_tokens(options, _Vocabulary({"<b>": 2}))["prompt"][0] == 5
    for tokenizer in (_Vocabulary({}), _Vocabulary({"<b>": 2}, end=None)):
        with pytest.raises(ModelError, match="not that of Lumina"):
            with_tokens(options, tokenizer)


def test_pictures_obey_the_grid_with_a_token_behind_every_row(pair):
    assert pair.image.grid.length == SIDE * (SIDE + 1) + 1
    check_pictures_obey_the_grid(pair, [pair.image.encode(text) for text in ("cat", "a dog")])


@pytest.mark.parametrize("coupling", ["fresh", "maximal", "gumbel"])
def test_jacobi_decoding_draws_the_same_picture(pair, coupling):
    decoder = SpeculativeJacobi(window=4, coupling=coupling, acceptance="oracle")
    decoder.prepare(pair)
    check_identical(pair, pair.image.encode("a red dog"), decoder)
    check_identical(pair, pair.image.encode("a red dog"))


def draw(state, codes):
    """Return the picture [3, H, W] in the release's order of operations."""

    def conv(name, x):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    quantized = state["quantize.embedding.weight"][codes].permute(2, 0, 1)[None]

    def norm(name, x):
        large = F.interpolate(quantized, size=x.shape[-2:], mode="nearest")
        weight, bias = (state[f"{name}.norm_layer.{part}"] for part in ("weight", "bias"))
        grouped = F.group_norm(x, 32, weight, bias, 1e-6)
        return grouped * conv(f"{name}.conv_y", large) + conv(f"{name}.conv_b", large)

    def residual(name, x):
        hidden = norm(f"{name}.norm1", x)
        hidden = conv(f"{name}.conv1", hidden * hidden.sigmoid())
        hidden = norm(f"{name}.norm2", hidden)
        hidden = conv(f"{name}.conv2", hidden * hidden.sigmoid())
        return hidden + (conv(f"{name}.nin_shortcut", x) if x.shape != hidden.shape else x)

    def attention(name, x):
        hidden = norm(f"{name}.norm", x)
        query, key, value = (conv(f"{name}.{part}", hidden).flatten(2)[0] for part in "qkv")
        weights = (query.T @ key / query.shape[0] ** 0.5).softmax(-1)
        return x + conv(f"{name}.proj_out", (value @ weights.T).view_as(x))

    x = conv("decoder.conv_in", conv("post_quant_conv", quantized))
    x = residual("decoder.mid.block_1", x)
    x = residual("decoder.mid.block_2", attention("decoder.mid.attn_1", x))
    for block in range(2):
        x = attention(f"decoder.up.1.attn.{block}", residual(f"decoder.up.1.block.{block}", x))
    x = conv("decoder.up.1.upsample.conv", F.interpolate(x, scale_factor=2))
    for block in range(2):
        x = residual(f"decoder.up.0.block.{block}", x)
    x = norm("decoder.norm_out", x)
    return conv("decoder.conv_out", x * x.sigmoid())[0]


def test_pixels_are_those_of_the_release(folder, pair):
    tokens = picture(pair)
    codes = torch.tensor(pair.image.grid.codes(tokens)).view(SIDE, SIDE) - FIRST
    decoded = draw(movqgan(), codes)
    want = ((decoded + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).numpy()
    got = pair.image.pixels(tokens)
    assert got.shape == (2 * SIDE, 2 * SIDE, 3)
    assert np.abs(got - want).max() <= 1
    decoder = MoVQDecoder(State.read(folder / "vq" / "movqgan_270M.ckpt"), torch.device("cpu"))
    torch.testing.assert_close(decoder.decode(codes[None])[0], decoded, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pair.image.codebook, movqgan()["quantize.embedding.weight"])


def test_norms_that_ignore_the_codes_are_noticed(folder, pair, monkeypatch):
    """A mutation: plain group norms draw another picture."""
    codes = torch.arange(SIDE**2).view(1, SIDE, SIDE)
    decoder = MoVQDecoder(State.read(folder / "vq" / "movqgan_270M.ckpt"), torch.device("cpu"))
    right = decoder.decode(codes)
    original = MoVQDecoder._norm
    monkeypatch.setattr(
        MoVQDecoder,
        "_norm",
        lambda self, name, x, quantized: original(self, name, x, torch.zeros_like(quantized)),
    )
    assert (decoder.decode(codes) - right).abs().max() > 0.01


@pytest.mark.parametrize(
    ("place", "message"), [(None, "no image tokenizer of its own"), ("empty", "holds no 'movqgan")]
)
def test_without_its_tokenizer_the_model_still_decodes(folder, tmp_path, place, message):
    pair = load(folder, image_tokenizer=place and str(tmp_path))
    assert not pair.image.can_draw
    check_identical(pair, pair.image.encode("cat"), temperatures=(0.0,))
    with pytest.raises(ModelError, match=message):
        pair.image.pixels([FIRST])


def test_without_network_the_reason_is_one_sentence(monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(checkpoints.HfApi, "model_info", unreachable)
    with pytest.raises(ModelError, match="the hub cannot be reached") as caught:
        load_entry("lumina2")
    assert caught.value.exit_code == 2
