"""Lumina-mGPT 2.0: a checkpoint in its published form, read whole and computed as defined."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from specbench.decoding.loops.speculative_jacobi import SpeculativeJacobi
from specbench.errors import ModelError
from specbench.models import checkpoint as checkpoints
from specbench.models.lumina2 import with_tokens
from specbench.models.movqgan import MoVQDecoder
from specbench.models.state import State
from specbench.schema import catalog
from tests.unit.models.by_hand import (
    Tensors,
    check_laws,
    states,
    write_checkpoint,
    write_tokenizer,
)
from tests.unit.models.image_checks import (
    check_forwards,
    check_identical,
    check_pictures_obey_the_grid,
    law_of,
    load_entry,
    picture,
)

WORDS = ["<|end|>", "a", "red", "cat", "dog", "Generate", "an", "image", "of", "768x768"]
WORDS += ["according", "to", "the", "following", "prompt:"]
SPECIAL = ["<racm3:break>", "<eoss>", "<reserved08799>", "<reserved08706>", "<reserved08824>"]
BREAK, END, ROW_END, SEPARATOR, SIZE = range(len(WORDS), len(WORDS) + len(SPECIAL))
FIRST, CODES, SIDE = 20, 16, 3
HEADS, CHANNELS = 4, 32
VOCAB = FIRST + CODES + 3
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


def tensors():
    """The language model alone, as the release has it: one row for the norms of all heads."""
    made = Tensors()
    made.body(
        "model.",
        channels=CHANNELS,
        feed=48,
        layers=2,
        heads=HEADS,
        groups=HEADS,
        vocabulary=VOCAB,
        rows=(1, 1),
    )
    made.linear("lm_head", VOCAB, CHANNELS)
    return made.state


def write(place):
    """Write the published layout: Alpha-VLLM/Lumina-mGPT-2.0, lumina_mgpt/model."""
    config = {
        "architectures": ["ChameleonXLLMXForConditionalGeneration"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "dropout": 0.05,
        "hidden_act": "silu",
        "hidden_size": CHANNELS,
        "intermediate_size": 48,
        "mask_image_logits": False,
        "max_position_embeddings": 64,
        "mlp_bias": False,
        "model_parallel_size": 1,
        "model_type": "chameleon",
        "num_attention_heads": HEADS,
        "num_hidden_layers": 2,
        "num_key_value_heads": HEADS,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "swin_norm": False,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": VOCAB,
        "vocabulary_map": None,
        "z_loss_weight": 1e-05,
    }
    write_checkpoint(place, config, tensors())
    names = {word: index for index, word in enumerate([*WORDS, *SPECIAL])}
    write_tokenizer(place, names, special=SPECIAL, eos_token="<|end|>")


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
    """Return logits [T, V] of one row."""
    x = state["model.embed_tokens.weight"][torch.tensor(tokens)].double()
    hidden = states(state, "model.", x, heads=HEADS, groups=HEADS)
    return hidden @ state["lm_head.weight"].double().T


def reference(prompt, tokens, scale):
    """Return the mixed logits of every place, from whole sequences."""
    count = len(tokens) + 1
    full, empty = (
        forward(tensors(), [*row, *tokens])[-count:, FIRST : FIRST + CODES]
        for row in (prompt, [BREAK, SIZE, SIZE])
    )
    return empty + scale * (full - empty)


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("caption", ["a red cat", "dog"])
def test_forwards_equal_full_recomputation(pair, scale, caption):
    """The unconditional row is shorter, and stands behind padding.

    transformers' rotary tables are made in float32: agreement ends near 1e-5.
    """
    check_forwards(pair, pair.image.encode(caption), reference, scale, 1e-4)


def test_laws_are_those_of_the_release(pair):
    """Guidance 4 and a cut of the codes, place by place, from the norms' one published row."""
    pair = pair.under(law_of(4.0))
    prompt, drawn = pair.image.encode("a red cat"), picture(pair)
    cache = pair.target_cache(len(prompt) + len(drawn))
    got = pair.target.forward(torch.tensor([[*prompt, *drawn[:-1]]]), cache)[0, len(prompt) - 1 :]
    places = [place for place, token in enumerate(pair.image.grid.forced) if token < 0]
    want = reference(prompt, drawn[:-1], 4.0)
    check_laws(got[places, FIRST : FIRST + CODES], want[places], top_k=8)


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
    torch.testing.assert_close(
        pair.image.vectors("codebook"), movqgan()["quantize.embedding.weight"]
    )


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
    ("place", "message"),
    [
        (None, "no image tokenizer of its own"),
        ("empty", "holds no 'movqgan"),
        ("another", "holds no decoder of MoVQGAN"),
    ],
)
def test_without_its_tokenizer_the_model_still_decodes(folder, tmp_path, place, message):
    if place == "another":
        held = {name: tensor for name, tensor in movqgan().items() if ".up." not in name}
        torch.save(held, tmp_path / "movqgan_270M.ckpt")
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
