"""What the Chameleon family reads (checkpoints, image tokenizers, entries) and refuses."""

from __future__ import annotations

import json
import re

import pytest
import torch
import yaml
from safetensors.torch import save_file

from specbench.errors import ConfigError, ModelError
from specbench.law import Guidance, Law
from specbench.models import checkpoint
from specbench.models.base import View
from specbench.models.chameleon import Chameleon, load
from specbench.models.image_side import Layout
from specbench.models.pixels import to_pixels
from specbench.models.vqgan import Vqgan
from specbench.paths import conf_dir
from specbench.runner.pictures import check_drawing
from specbench.schema.model import ModelConfig
from specbench.training.pictures import tokenizer as world_words
from specbench.training.pictures.model import build_model, load_model, save_model
from specbench.training.pictures.vq import CONFIG as WORLD_VQ
from tests.unit.models.by_hand import write_tensors
from tests.unit.models.chameleon_checkpoints import (
    CODES,
    COLUMNS,
    FIRST,
    HEADS,
    LAYOUT,
    META_VQ,
    NUMBERS,
    ROWS,
    TOKENS,
    VQ,
    close,
    draw,
    entry,
    image_tokenizer,
    inside,
    tensors,
    write,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("chameleon"))


@pytest.fixture(scope="module")
def pair(folder):
    return load(entry(folder), **LAYOUT)


def drawn(numbers):
    """The picture of code numbers by the definition, as bytes."""
    decoded = draw(image_tokenizer(), torch.tensor(numbers).view(ROWS, COLUMNS))
    return to_pixels(decoded[None], rounded=False)


def test_ids_are_not_numbers_codebook_and_pixels_follow_the_names(pair, tmp_path):
    """The published vocabulary names each code; its order is not taken for granted."""
    codebook = image_tokenizer()["quantize.embedding.weight"]
    for space in ("codebook", "rows"):
        torch.testing.assert_close(pair.image.vectors(space), codebook[NUMBERS])
    embeddings = tensors()["model.embed_tokens.weight"][FIRST : FIRST + CODES]
    torch.testing.assert_close(pair.image.vectors("embeddings").float(), embeddings.float())
    assert not pair.image.can_draw
    with pytest.raises(ModelError, match="pixel decoder"):
        pair.image.pixels(TOKENS)
    drawing = load(entry(with_decoder(tmp_path)), **LAYOUT)
    assert drawing.image.can_draw
    codes = [token - FIRST for token in TOKENS if FIRST <= token < FIRST + CODES]
    want = drawn([NUMBERS[code] for code in codes])
    assert want.shape == (2 * ROWS, 2 * COLUMNS, 3)
    assert near(drawing.image.pixels(TOKENS), want)
    assert not near(drawing.image.pixels(TOKENS), drawn(codes))
    short = drawing.image.pixels(TOKENS[:3])
    assert near(short, drawn([NUMBERS[code] for code in (*codes[:3], *[0] * 9)]))


def near(left, right):
    """Say whether two pictures differ by rounding alone."""
    return abs(left.astype(int) - right.astype(int)).max() <= 1


def with_decoder(place):
    """Write a checkpoint with the image tokenizer's decoder inside, as Anole's conversion.

    Its norms of queries and keys have a row for each head.
    """
    folder = write(place / "with_decoder", rows=(HEADS, HEADS))
    write_tensors(folder, {**tensors(rows=(HEADS, HEADS)), **inside(decoder=True)}, files=3)
    return folder


def meta_folder(place, extra=None):
    """Write an image tokenizer as Meta publishes it."""
    params = {**META_VQ, "lossconfig": {"target": "x"}}
    (place / "vqgan.yaml").write_text(yaml.safe_dump({"model": {"params": params}}))
    state = {"state_dict": {**image_tokenizer(), "loss.weight": torch.zeros(2)}}
    torch.save({**state, **(extra or {})}, place / "vqgan.ckpt")
    return place


def transformers_folder(place):
    """Write an image tokenizer as it is converted for transformers."""
    (place / "config.json").write_text(json.dumps({**VQ, "model_type": "chameleon_vqgan"}))
    write_tensors(place, image_tokenizer(), files=1)
    return place


@pytest.mark.parametrize("form", [meta_folder, transformers_folder])
def test_published_image_tokenizers_draw(folder, tmp_path, form):
    place = str(form(tmp_path))
    pair = load(entry(folder), **LAYOUT, image_tokenizer=place)
    drawing, about = pair.image, pair.provenance["image_tokenizer"]
    assert about["source"] == place and about["digest"].startswith("sha256:")
    assert "image_tokenizer" not in load(entry(folder), **LAYOUT).provenance
    numbers = [NUMBERS[token - FIRST] for token in TOKENS if FIRST <= token < FIRST + CODES]
    assert near(drawing.pixels(TOKENS), drawn(numbers))


def broken(file):
    file.write_text("model: 7 ")


def reworded(place, key, value):
    """Write an image tokenizer whose configuration has another value."""
    file = meta_folder(place) / "vqgan.yaml"
    content = yaml.safe_load(file.read_text())
    content["model"]["params"]["ddconfig"][key] = value
    file.write_text(yaml.safe_dump(content))


class Unsafe:
    """Something that only a full unpickler would build."""


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda place: meta_folder(place, {"callbacks": Unsafe()}), r"Unsafe\), and such a file"),
        (lambda place: place, "neither vqgan.yaml"),
        (lambda place: broken(meta_folder(place) / "vqgan.yaml"), "describes no image tokenizer"),
        (lambda place: broken(transformers_folder(place) / "model.safetensors"), "cannot be read"),
        (lambda place: reworded(place, "ch", "wide"), "describes no image tokenizer"),
        (lambda place: reworded(place, "ch", 48), "describes no image tokenizer"),
        (lambda place: reworded(place, "ch", 64), r"shape \[32, 3, 3, 3\] and not \[64, 3, 3, 3\]"),
    ],
    ids=["unsafe", "empty", "configuration", "safetensors", "word", "groups", "another width"],
)
def test_a_tokenizer_that_cannot_be_read_costs_pictures_and_not_the_run(
    folder, tmp_path, spoil, reason
):
    spoil(tmp_path)
    pair = load(entry(folder), **LAYOUT, image_tokenizer=str(tmp_path))
    assert not pair.image.can_draw
    for ask in (lambda: pair.image.pixels(TOKENS), lambda: pair.image.vectors("codebook")):
        with pytest.raises(ModelError, match=reason) as caught:
            ask()
        assert caught.value.exit_code == 2
    with pytest.raises(ModelError, match="cannot turn its tokens into pictures") as caught:
        check_drawing(pair.image, pair.name)
    assert re.search(reason, caught.value.why) and "\n" not in caught.value.why
    assert "pictures=false" in caught.value.fix


def test_an_image_tokenizer_in_the_oldest_form_of_torch_is_read(folder, tmp_path):
    file = meta_folder(tmp_path) / "vqgan.ckpt"
    state = {"state_dict": image_tokenizer()}
    torch.save(state, file, _use_new_zipfile_serialization=False)
    assert load(entry(folder), **LAYOUT, image_tokenizer=str(tmp_path)).image.can_draw
    file.write_text("no checkpoint at all")
    drawing = load(entry(folder), **LAYOUT, image_tokenizer=str(tmp_path)).image
    with pytest.raises(ModelError, match="cannot be read"):
        drawing.pixels(TOKENS)


def test_a_tokenizer_that_cannot_be_fetched_is_the_cause_that_is_told(folder, monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(checkpoint.HfApi, "model_info", unreachable)
    pair = load(entry(folder), **LAYOUT, image_tokenizer="leloy/Anole-7b-v0.1-vqvae-hf")
    with pytest.raises(ModelError, match="cannot turn its tokens into pictures") as caught:
        check_drawing(pair.image, pair.name)
    assert "vqvae-hf' is not on this machine and the hub cannot be reached" in caught.value.why


def test_the_embedded_layout_finds_its_tokenizer_beside_it(tmp_path):
    place = with_decoder(tmp_path)
    (place / "vq").mkdir()
    state = image_tokenizer(seed=9)
    (place / "vq" / "config.json").write_text(json.dumps(META_VQ))
    write_tensors(place / "vq", state, files=1)
    pair = load(entry(place), **LAYOUT)
    codebook = state["quantize.embedding.weight"][NUMBERS].float()
    torch.testing.assert_close(pair.image.vectors("codebook"), codebook)


def test_memory_is_asked_for_before_anything_is_read(folder, monkeypatch):
    monkeypatch.setattr(Chameleon, "read_settings", lambda *_: pytest.fail("read too early"))
    with pytest.raises(ModelError, match=r"needs about 99999\.0 GB") as caught:
        load(entry(folder, weights_gb=99999), **LAYOUT)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["lumina", "anole"])
def test_without_network_one_clear_error(name, monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(checkpoint, "try_to_load_from_cache", lambda *args, **kwargs: None)
    monkeypatch.setattr(checkpoint.HfApi, "model_info", unreachable)
    values = yaml.safe_load((conf_dir() / "model" / f"{name}.yaml").read_text())
    options = {key: value for key, value in values["loader"].items() if key != "_target_"}
    with pytest.raises(ModelError, match="hub cannot be reached") as caught:
        load(ModelConfig.from_dict(values), **options)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": [1]}, "Unknown key 'model.loader.prompts'"),
        ({"prompt": [0, "caption"]}, "model.loader.prompt"),
        ({"unconditional": []}, "model.loader.unconditional"),
        ({"unconditional": [-1]}, "model.loader.unconditional"),
        ({"codes": 0}, "model.loader.codes"),
        ({"grid": {"rows": 0, "columns": 4}}, "model.loader.grid.rows"),
        ({"grid": {"rows": 2, "columns": 4, "ending": "x"}}, "model.loader.grid.ending"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_read(change, message):
    with pytest.raises(ConfigError, match=message):
        load(entry("/nowhere"), **{**LAYOUT, **change})


def test_weights_that_are_missing_are_not_made_up(tmp_path):
    write(tmp_path)
    state = tensors()
    del state["model.layers.1.self_attn.q_norm.bias"]
    write_tensors(tmp_path, state)
    with pytest.raises(ModelError, match="lacks a weight of the model"):
        load(entry(tmp_path), **LAYOUT)


def test_weights_of_another_shape_are_named(tmp_path):
    write(tmp_path, intermediate_size=44)
    with pytest.raises(ModelError, match="does not fit its own configuration") as caught:
        load(entry(tmp_path), **LAYOUT)
    assert caught.value.why.endswith(
        "mlp.down_proj.weight is [32, 40] in its files, and its config.json makes it [32, 44]"
    )


def test_codes_elsewhere_than_the_entry_says_are_refused(folder):
    with pytest.raises(ModelError, match="not where the model entry says"):
        load(entry(folder), **{**LAYOUT, "first_code": 5})


def test_the_norms_of_the_large_model_are_refused(tmp_path):
    write(tmp_path, swin_norm=True)
    with pytest.raises(ModelError, match="behind its sublayers"):
        load(entry(tmp_path), **LAYOUT)


def layout_of(name):
    values = yaml.safe_load((conf_dir() / "model" / f"{name}.yaml").read_text())
    options = {key: value for key, value in values["loader"].items() if key != "_target_"}
    return Layout.read(options), values["sampling"]


def test_entries_hold_what_the_authors_publish():
    lumina, law = layout_of("lumina")
    assert lumina.grid.length == 48 * 49 + 2
    assert lumina.grid.forced[48] == 8803
    assert lumina.grid.forced[-2:] == (8196, 8710)
    assert (lumina.first_code, lumina.first_code + lumina.codes - 1) == (4, 8195)
    # height and width in units of 32 pixels above 8804
    assert lumina.unconditional == (8197, 8804 + 24, 8804 + 24)
    assert lumina.prompt[2:] == (8710, *lumina.unconditional)
    assert law == {"temperature": 1.0, "top_k": 2000, "cfg_scale": 3.0}
    anole, law = layout_of("anole")
    assert (anole.grid.length, anole.grid.row_end) == (1024, None)
    assert anole.image_conditional == anole.unconditional == (0, 8197)
    assert law == {"temperature": 0.7, "top_p": 0.9, "cfg_scale": 3.0, "image_scale": 1.2}
    tiny, _ = layout_of("tiny_image")
    assert tiny.grid.length == 12 * 13 + 2


def test_the_embedded_entry_reads_what_training_writes(tmp_path):
    """Ids of the entry are the world's, and an untrained model computes what its module does."""
    layout, _ = layout_of("tiny_image")
    assert layout.prompt == (
        world_words.BEGIN,
        "{caption}",
        world_words.SEPARATOR,
        *world_words.UNCONDITIONAL,
    )
    assert layout.unconditional == world_words.UNCONDITIONAL
    assert (layout.first_code, layout.codes) == (world_words.FIRST_CODE, world_words.CODES)
    assert layout.grid.row_end == world_words.ROW_END
    assert layout.grid.ending == (world_words.IMAGE_END, world_words.END)
    torch.manual_seed(0)
    tokenizer = world_words.build_tokenizer()
    module = build_model(1, tokenizer)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    save_model(module, tokenizer, tmp_path)
    module = load_model(tmp_path).double()
    (tmp_path / "vq").mkdir()
    (tmp_path / "vq" / "config.json").write_text(json.dumps(WORLD_VQ.to_params()))
    save_file(Vqgan(WORLD_VQ).state_dict(), tmp_path / "vq" / "model.safetensors")
    values = yaml.safe_load((conf_dir() / "model" / "tiny_image.yaml").read_text())
    options = {key: value for key, value in values["loader"].items() if key != "_target_"}
    pair = load(entry(tmp_path), **options)
    caption = "class 7"
    prompt = pair.image.encode(caption)
    assert prompt == world_words.prompts(tokenizer, [caption])[0]
    pair = pair.under(Law(guidance=Guidance(2.0)))
    tokens = [10, 500, 515]
    cache = pair.target.new_cache(1, 64)
    got = pair.target.forward(torch.tensor([[*prompt, *tokens]]), cache, View(last=1))[0, 0]
    codes = slice(layout.first_code, layout.first_code + layout.codes)
    with torch.inference_mode():
        full, bare = (
            module.lm_head(module.model(torch.tensor([[*row, *tokens]])).last_hidden_state)[0, -1]
            for row in (prompt, world_words.UNCONDITIONAL)
        )
    full, bare = full[codes], bare[codes]
    close(got[codes], bare + 2 * (full - bare))
    assert pair.image.pixels(tokens).shape == (48, 48, 3)
    assert pair.image.vectors("rows").shape == (512, WORLD_VQ.code_width)
