"""The shipped image pair has the sizes and the quality that its page declares."""

from __future__ import annotations

import hashlib

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from specbench.models.vqgan_files import load_vqgan
from specbench.paths import weights_dir
from specbench.training.pictures import evaluate
from specbench.training.pictures.model import load_model
from specbench.training.pictures.tokenizer import CODES, build_tokenizer, grid_codes, prompts

TARGET = weights_dir() / evaluate.TARGET_FOLDER
DRAFT = weights_dir() / evaluate.DRAFT_FOLDER
_MEGABYTE = 10**6


@pytest.fixture(scope="module")
def vq():
    return load_vqgan(TARGET / evaluate.VQ_FOLDER)


@pytest.fixture(scope="module")
def picture_tokenizer():
    return AutoTokenizer.from_pretrained(TARGET)


def test_the_pair_is_small() -> None:
    files = [path for folder in (TARGET, DRAFT) for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12 * _MEGABYTE


@pytest.mark.parametrize("folder", [TARGET, DRAFT], ids=lambda folder: folder.name)
def test_digests_are_those_of_the_files(folder) -> None:
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    listed = dict(reversed(line.split("  ")) for line in lines)
    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "SHA256SUMS"
    }
    assert listed == files


@pytest.mark.parametrize(("folder", "layers"), [(TARGET, 6), (DRAFT, 1)])
def test_declared_sizes(folder, layers, picture_tokenizer) -> None:
    model = load_model(folder)
    assert model.config.num_hidden_layers == layers
    assert (model.config.hidden_size, model.config.num_attention_heads) == (128, 4)
    assert model.config.vocab_size == len(picture_tokenizer)
    weights = load_file(folder / "model.safetensors")
    assert all(weight.dtype == torch.float16 for weight in weights.values())
    assert all(weight.isfinite().all() for weight in weights.values())


def test_shipped_words_are_those_of_the_world(picture_tokenizer) -> None:
    assert picture_tokenizer.get_vocab() == build_tokenizer().get_vocab()
    assert (TARGET / "tokenizer.json").read_bytes() == (DRAFT / "tokenizer.json").read_bytes()
    captions = ["a photo of a red circle and a blue square on a dark background", "class 12"]
    assert prompts(picture_tokenizer, captions) == prompts(build_tokenizer(), captions)


def test_codes_say_what_pictures_show(vq) -> None:
    assert vq.config.codes == CODES and vq.config.factor == 4
    scores = evaluate.ceiling(vq, evaluate.validation_scenes(48))
    assert scores["all"] >= 0.97


@pytest.mark.slow
def test_the_target_draws_what_is_asked(vq, picture_tokenizer) -> None:
    scenes = evaluate.validation_scenes(96)
    captions = [scene.caption for scene in scenes]
    drawn = evaluate.draw(load_model(TARGET), picture_tokenizer, captions, draft=load_model(DRAFT))
    assert drawn.entropy >= 2.5
    assert drawn.acceptance is not None and drawn.acceptance >= 0.5
    pixels = evaluate.to_pixels(vq, grid_codes(drawn.tokens))
    right = evaluate.rule_scores(scenes, pixels)["all"]
    others = evaluate.rule_scores([*scenes[1:], scenes[0]], pixels)["all"]
    assert right >= 0.3 and right > 2 * others
