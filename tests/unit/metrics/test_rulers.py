"""The world's own rulers: their targets, their folders, and that the shipped ones measure."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from specbench.paths import weights_dir
from specbench.training.pictures import clip, features
from specbench.training.saving import write_checksums
from specbench.zoo.pictures.attribute_net import AttributeNet
from specbench.zoo.pictures.attributes import as_input, attributes, draw, meanings
from specbench.zoo.pictures.scene import CLASSES, COLORS, SHAPES, vocabulary


def test_attributes_are_those_of_the_scene() -> None:
    drawn = draw("test", 64)
    truth = attributes(drawn)
    for row, scene in enumerate(drawn.scenes):
        for index, shape in enumerate(SHAPES):
            things = [thing for thing in scene.things if thing.shape == shape]
            assert truth.shapes[row, index] == len(things)
            if things:
                mean = np.mean([thing.x for thing in things]) / 48
                assert truth.places[row, index, 0].item() == pytest.approx(mean, abs=1e-5)
        assert truth.colors[row].sum() == len(scene.things)
        present = {CLASSES[i] for i in truth.classes[row].nonzero().flatten().tolist()}
        assert present == {f"{thing.color} {thing.shape}" for thing in scene.things}
    assert truth.colors.shape == (64, len(COLORS))


def test_equal_meanings_have_equal_names() -> None:
    drawn = draw("test", 400)
    named = meanings(drawn.scenes)
    for one, name in zip(drawn.scenes, named, strict=True):
        for other, second in zip(drawn.scenes[:40], named[:40], strict=True):
            same = dict(one.wanted) == dict(other.wanted) and one.background == other.background
            assert (name == second) is same


def test_pictures_of_one_meaning_are_no_negatives() -> None:
    images, texts = torch.eye(3), torch.eye(3)
    texts[1] = texts[0]
    scale = torch.tensor(10.0)
    apart = clip._loss(images, texts, scale, torch.tensor([0, 1, 2]))
    together = clip._loss(images, texts, scale, torch.tensor([0, 0, 2]))
    assert together < apart


def test_the_end_token_has_the_largest_id() -> None:
    tokenizer = clip.build_tokenizer()
    ids = tokenizer("a photo of a red circle")["input_ids"]
    assert ids[-1] == len(tokenizer) - 1 == max(ids)
    assert tokenizer.unk_token_id not in tokenizer(" ".join(vocabulary()))["input_ids"]


def test_a_network_is_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = AttributeNet(widths=(8, 8, 16), features=8)
    pixels = as_input(draw("test", 32).pictures)
    net.standardise(pixels)
    net.save(tmp_path)
    write_checksums(tmp_path)
    loaded = AttributeNet.load(tmp_path)
    with torch.inference_mode():
        found = loaded.features(pixels)
        assert found == pytest.approx(net.features(pixels), abs=0.05)
    assert found.mean(0).abs().max() < 0.1 and (found.std(0) - 1).abs().max() < 0.1
    lines = (tmp_path / "SHA256SUMS").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["tiny_features", "tiny_clip"])
def test_shipped_files_are_what_they_were(name: str) -> None:
    folder = weights_dir() / name
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert lines
    for line in lines:
        digest, file = line.split("  ")
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == digest
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000_000


@pytest.mark.slow
def test_the_shipped_features_read_pictures() -> None:
    read = features.evaluate(AttributeNet.load(weights_dir() / "tiny_features"))
    assert read.shapes > 0.96 and read.colors > 0.9 and read.place_error < 2.0


@pytest.mark.slow
def test_the_shipped_captions_find_their_pictures() -> None:
    import open_clip

    place = f"local-dir:{weights_dir() / 'tiny_clip'}"
    model = open_clip.create_model(place).eval()
    found = clip.evaluate(model, open_clip.get_tokenizer(place))
    assert found.matched > 0.6 and found.shuffled < 0.2 and found.retrieval > 0.75
