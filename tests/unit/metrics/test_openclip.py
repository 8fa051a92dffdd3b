"""CLIP through open_clip: the embedded model, a random checkpoint on disk, and missing weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from specbench.errors import ConfigError, ModelError
from specbench.metrics import weights
from specbench.metrics.base import CorpusMetric, Picture, PictureMetric
from specbench.metrics.clip_colors import GREY, ClipColors, crop
from specbench.metrics.clip_score import ClipScore
from specbench.metrics.framing import Framing
from specbench.metrics.geneval import COLORS, Detection
from specbench.metrics.openclip import OpenClip
from specbench.zoo.pictures.rows import Renders
from tests.unit.metrics.toy_pictures import gallery

CAPTIONS = [
    "a photo of a red circle",
    "a photo of three squares",
    "a photo of a blue cross on a dark background",
    "a photo of a yellow triangle and a purple ring",
]


@pytest.fixture(scope="module")
def shapes() -> ClipScore:
    metric = ClipScore("shapes_clip", "embedded:tiny_clip", None)
    metric.prepare()
    return metric


def renders(captions: list[str], seed: int = 0) -> list[Picture]:
    return gallery(list(Renders().pictures(captions, seed)), captions)


def test_own_captions_score_above_those_of_others(shapes: ClipScore) -> None:
    own = renders(CAPTIONS * 6)
    shuffled = gallery([p.pixels for p in own], (CAPTIONS[1:] + CAPTIONS[:1]) * 6)
    right = np.array(shapes.score(own), dtype=float)
    wrong = np.array(shapes.score(shuffled), dtype=float)
    assert right.mean() > 50 > wrong.mean() + 20
    assert (right > wrong).mean() > 0.9


def test_a_score_is_100_times_the_cosine(shapes: ClipScore) -> None:
    one = renders(CAPTIONS[:1])
    clip = OpenClip("m", "embedded:tiny_clip", None, None)
    clip.prepare()
    image, text = clip.pictures([one[0].pixels]), clip.texts(CAPTIONS[:1])
    assert image.norm().item() == pytest.approx(1.0, abs=1e-5)
    cosine = (image @ text.T).item()
    assert shapes.score(one) == [pytest.approx(100 * cosine, abs=1e-4)]
    plain = ClipScore("m", "embedded:tiny_clip", None, scale=1.0)
    plain.prepare()
    assert plain.score(one) == [pytest.approx(cosine, abs=1e-6)]


def test_batches_and_repeated_captions_change_nothing(shapes: ClipScore) -> None:
    many = renders((CAPTIONS * 2)[:7])
    narrow = ClipScore("m", "embedded:tiny_clip", None, batch=2)
    narrow.prepare()
    assert narrow.score(many) == pytest.approx(shapes.score(many), abs=1e-3)
    singly = [shapes.score([one])[0] for one in many]
    assert singly == pytest.approx(shapes.score(many), abs=1e-3)


def test_a_picture_without_a_caption_has_no_score(shapes: ClipScore) -> None:
    pictures = renders(CAPTIONS[:2])
    blank = Picture("x", "", "", None, pictures[0].pixels)
    scores = shapes.score([pictures[0], blank, pictures[1]])
    assert scores[1] is None
    assert [scores[0], scores[2]] == pytest.approx(shapes.score(pictures), abs=1e-3)
    assert shapes.score([blank]) == [None]


def test_the_prefix_is_put_before_the_caption() -> None:
    prefixed = ClipScore("m", "embedded:tiny_clip", None, prefix="a photo of")
    prefixed.prepare()
    whole = ClipScore("m", "embedded:tiny_clip", None)
    whole.prepare()
    (one,) = renders(CAPTIONS[:1])
    short = Picture("x", "", "a red circle", None, one.pixels)
    assert prefixed.score([short]) == pytest.approx(whole.score([one]), abs=1e-4)
    assert "prefix 'a photo of'" in prefixed.protocol


def test_protocols_name_what_moves_the_number() -> None:
    lantern = ClipScore(prefix="A photo depicts", scale=1)
    assert lantern.protocol == "open_clip ViT-B-32 (openai), prefix 'A photo depicts', 1 x cosine"
    jacobi = ClipScore(model="ViT-B-16")
    assert jacobi.protocol == "open_clip ViT-B-16 (openai), no prefix, 100 x cosine"
    local = ClipScore(checkpoint="/tmp/b32.safetensors")
    assert local.protocol.startswith("open_clip ViT-B-32 (b32.safetensors)")


def test_it_is_a_metric_of_pictures(shapes: ClipScore) -> None:
    assert isinstance(shapes, PictureMetric) and not isinstance(shapes, CorpusMetric)


def test_a_local_checkpoint_of_a_builtin_model_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_clip: Any = pytest.importorskip("open_clip")
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 32,
            "head_width": 16,
            "patch_size": 16,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
        },
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-Tiny", config)
    model = open_clip.create_model("ViT-Tiny", load_weights=False)
    file = tmp_path / "open_clip_model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, file)
    metric = ClipScore(model="ViT-Tiny", pretrained=None, checkpoint=str(file))
    metric.prepare()
    (score,) = metric.score(renders(CAPTIONS[:1]))
    assert score is not None and -100 <= score <= 100
    file.write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match="cannot load"):
        ClipScore(model="ViT-Tiny", pretrained=None, checkpoint=str(file)).prepare()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"model": "ViT-B-33"}, "no model 'ViT-B-33'"),
        ({"pretrained": "opennai"}, "no weights 'opennai'"),
        ({"pretrained": None}, "names no weights"),
    ],
)
def test_unknown_names_are_refused(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        ClipScore(**arguments).prepare()


def test_weights_that_cannot_be_fetched_are_one_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(repository: str, revision: str | None, file: str) -> None:
        raise ModelError("no", "ConnectError: no network, or offline mode is set")

    monkeypatch.setattr(weights, "ask_hub", refuse)
    with pytest.raises(ModelError) as caught:
        ClipScore().prepare()
    error = caught.value
    assert "open_clip_model.safetensors" in error.what
    assert "timm/vit_base_patch32_clip_224.openai" in error.what
    assert "no network" in error.why
    assert "metric.clip_score.checkpoint=PATH" in error.fix
    assert all("\n" not in part for part in (error.what, error.why, error.fix))


def test_a_missing_local_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing.pt") as caught:
        ClipScore(checkpoint=str(tmp_path / "nothing.pt")).prepare()
    assert "metric.clip_score.checkpoint" in caught.value.fix


def test_crops_are_grey_outside_the_mask() -> None:
    pixels = np.full((10, 12, 3), 200, dtype=np.uint8)
    mask = np.zeros((10, 12), dtype=bool)
    mask[3:5, 2:6] = True
    cut = crop(pixels, Detection("cat", 0.9, (1.0, 2.0, 8.0, 7.0), mask))
    assert cut.shape == (5, 7, 3)
    assert (cut[1:3, 1:5] == 200).all()
    assert (cut[0] == GREY).all() and (cut[:, 0] == GREY).all()
    bare = crop(pixels, Detection("cat", 0.9, (1.0, 2.0, 8.0, 7.0), None))
    assert (bare == 200).all() and bare.shape == (5, 7, 3)


class WordClip:
    """A CLIP whose embeddings are colour channels, of texts by the colour that they name."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def texts(self, texts: list[str]) -> torch.Tensor:
        self.asked += texts
        axes = {"red": 0, "green": 1, "blue": 2}
        rows = torch.full((len(texts), 4), 0.0)
        for row, text in enumerate(texts):
            named = next(color for color in COLORS if f" {color}" in text)
            rows[row, axes.get(named, 3)] = 1.0
        return rows

    def pictures(self, pictures: list[np.ndarray]) -> torch.Tensor:
        means = torch.tensor(np.array([one.reshape(-1, 3).mean(0) for one in pictures]))
        return torch.cat([means - 0x99, torch.zeros(len(pictures), 1)], 1).float()


def test_colours_are_the_nearest_of_ten_by_three_wordings() -> None:
    reader = ClipColors()
    clip = WordClip()
    reader._clip = clip  # type: ignore[assignment]
    pixels = np.full((8, 16, 3), 0x99, dtype=np.uint8)
    pixels[:, :8] = (250, 60, 60)
    pixels[:, 8:] = (60, 60, 250)
    left, right = (0.0, 0.0, 8.0, 8.0), (8.0, 0.0, 16.0, 8.0)
    found = [Detection("cat", 0.9, left, None), Detection("cat", 0.8, right, None)]
    assert reader.read(pixels, found, "cat") == ["red", "blue"]
    assert reader.read(pixels, found[1:], "cat") == ["blue"]
    assert len(clip.asked) == 3 * len(COLORS)  # once for a class
    assert clip.asked[:3] == [
        "a photo of a red cat",
        "a photo of a red-colored cat",
        "a photo of a red object",
    ]


def test_lanterns_crop_and_size_come_before_clips_own_resize(shapes: ClipScore) -> None:
    wide = [np.concatenate([p.pixels, 255 - p.pixels], axis=1) for p in renders(CAPTIONS)]
    metric = ClipScore("m", "embedded:tiny_clip", None, crop="center", size=40)
    metric.prepare()
    framed = [Framing("center", 40)(pixels) for pixels in wide]
    assert framed[0].shape == (40, 40, 3)
    scores = metric.score(gallery(wide, CAPTIONS))
    assert scores == pytest.approx(shapes.score(gallery(framed, CAPTIONS)), abs=1e-4)
    assert scores != pytest.approx(shapes.score(gallery(wide, CAPTIONS)), abs=1e-1)
    assert "central square, 40 px lanczos, no prefix" in metric.protocol
    assert "px" not in shapes.protocol
