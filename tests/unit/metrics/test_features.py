"""Inception through clean-fid: resizing, crops, a file in the published format, missing weights."""

from __future__ import annotations

import io
from email.message import Message
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from specbench.errors import ConfigError, ModelError
from specbench.metrics.features import EmbeddedFeatures, InceptionFeatures
from specbench.metrics.inception import NETWORKS, PYTORCH_FILE
from specbench.metrics.inception import TORCHSCRIPT_FILE as INCEPTION_FILE
from tests.unit.metrics.pytorch_inception import Inception, resized


class Layers(nn.Module):
    """Stands for Inception's layers: 2,048 features of a picture of any size."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        means = pixels.mean(dim=[2, 3])
        return torch.cat([means, means.new_zeros(len(means), 2045)], dim=1)


class Whole(nn.Module):
    """Stands for the published TorchScript file: `layers`, and a forward that resizes inside."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()

    def forward(self, pixels: torch.Tensor, return_features: bool) -> torch.Tensor:
        return self.layers((pixels - 128) / 128) + 1


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("inception") / INCEPTION_FILE
    with pytest.warns(FutureWarning):
        torch.jit.script(Whole()).save(str(file))
    return file


def prepared(weights: Path, **options: Any) -> InceptionFeatures:
    features = InceptionFeatures(str(weights), **options)
    features.prepare("fid")
    return features


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_the_file_or_its_folder_loads(weights: Path) -> None:
    picture = noise(40, 60)
    features = prepared(weights).extract([picture])
    assert features.shape == (1, 2048) and features.dtype == np.float64
    assert np.array_equal(prepared(weights.parent).extract([picture]), features)


def test_pictures_are_resized_as_clean_fid_does(weights: Path) -> None:
    from cleanfid.resize import build_resizer

    picture = noise(40, 60)
    resized = build_resizer("clean")(picture)
    expected = ((resized - 128) / 128).mean((0, 1))
    assert prepared(weights).extract([picture])[0, :3] == pytest.approx(expected, abs=1e-5)


def test_another_mode_resizes_inside_the_network(weights: Path) -> None:
    picture = noise(40, 60)
    features = prepared(weights, mode="legacy_tensorflow").extract([picture, noise(10, 20)])
    expected = ((picture.astype(np.float64) - 128) / 128).mean((0, 1)) + 1
    assert features[0, :3] == pytest.approx(expected, abs=1e-5)


def test_the_crop_and_first_size_are_lanterns(weights: Path) -> None:
    picture = noise(40, 61)
    square = Image.fromarray(picture[:, 10:50]).resize((32, 32), Image.Resampling.LANCZOS)
    cut = prepared(weights, crop="center", size=32).extract([picture])
    whole = prepared(weights).extract([np.asarray(square)])
    assert np.array_equal(cut, whole)
    assert not np.array_equal(cut, prepared(weights).extract([picture]))


def test_pytorch_fid_is_its_network_behind_its_resize(tmp_path: Path) -> None:
    """Weights in the published layout; resize and network written down in the test."""
    released, picture = Inception(), noise(512, 640)
    torch.save(released.state, tmp_path / PYTORCH_FILE)
    features = prepared(tmp_path, mode="pytorch_fid")
    got, want = features.extract([picture])[0], released.features(picture)
    assert got.shape == (2048,)
    np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-3 * want.std())
    smooth = Image.fromarray(picture).resize((299, 299), Image.Resampling.BILINEAR)
    assert np.abs(resized(picture) - np.asarray(smooth) / 255).max() > 0.2
    assert f"({PYTORCH_FILE})" in features.protocol
    assert "pytorch_fid resize to 299 px (bilinear without antialiasing)" in features.protocol


def test_every_mode_is_another_protocol() -> None:
    modes = [InceptionFeatures(mode=mode).protocol for mode in NETWORKS]
    assert len(set(modes)) == 3
    assert "ADM" in InceptionFeatures(mode="legacy_tensorflow").protocol


def test_pytorch_fids_file_is_fetched_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECBENCH_CACHE", str(tmp_path))
    answer = io.BytesIO(b"not these weights")
    answer.info = Message  # type: ignore[attr-defined]
    monkeypatch.setattr("torch.hub.urlopen", lambda *_, **__: answer)
    with pytest.raises(ModelError, match=r"needs pt_inception.*github\.com") as caught:
        InceptionFeatures(mode="pytorch_fid").prepare("fid")
    assert "hash" in caught.value.why
    assert not list(tmp_path.rglob("*.pth"))


def test_batches_change_nothing(weights: Path) -> None:
    pictures = [noise(20, 20, seed) for seed in range(5)]
    assert prepared(weights, batch=2).extract(pictures) == pytest.approx(
        prepared(weights).extract(pictures), abs=1e-6
    )


def test_the_protocol_names_what_moves_the_number() -> None:
    plain = InceptionFeatures().protocol
    assert (
        plain == f"Inception v3 ({INCEPTION_FILE}) pool features, clean-fid clean resize to 299 px"
    )
    lantern = InceptionFeatures(crop="center", size=256).protocol
    assert "central square, 256 px lanczos, clean-fid clean" in lantern


def test_a_failed_download_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import urllib.request

    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.request.URLError("Name or service not known")  # type: ignore[attr-defined]

    monkeypatch.setenv("SPECBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(ModelError) as caught:
        InceptionFeatures().prepare("fid")
    assert INCEPTION_FILE in caught.value.what and "nvlabs" in caught.value.what
    assert "metric.fid.weights=PATH" in caught.value.fix
    assert not list(tmp_path.rglob("*.pt"))


def test_a_broken_download_leaves_nothing_behind(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import urllib.request

    class Broken(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise ConnectionResetError("reset by peer")

    monkeypatch.setenv("SPECBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Broken())
    with pytest.raises(ModelError, match="cannot be fetched"):
        InceptionFeatures().prepare("fid")
    assert not list(tmp_path.rglob("*.pt"))
    content = weights.read_bytes()
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO(content))
    features = InceptionFeatures()
    features.prepare("fid")
    assert features.extract([noise(8, 8)]).shape == (1, 2048)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        InceptionFeatures(str(tmp_path / "nowhere")).prepare("fid")
    with pytest.raises(ModelError, match=INCEPTION_FILE):
        InceptionFeatures(str(tmp_path)).prepare("fid")
    (tmp_path / INCEPTION_FILE).write_bytes(b"no network")
    with pytest.raises(ModelError, match="cannot read"):
        InceptionFeatures(str(tmp_path)).prepare("fid")
    for content in (b"no network", None):
        file = tmp_path / PYTORCH_FILE
        if content is None:
            torch.save({"fc.weight": torch.zeros(2, 2)}, file)
        else:
            file.write_bytes(content)
        with pytest.raises(ModelError, match="cannot read"):
            InceptionFeatures(str(tmp_path), mode="pytorch_fid").prepare("fid")


@pytest.mark.parametrize("options", [{"mode": "cleen"}, {"crop": "square"}, {"filter": "nearest"}])
def test_unknown_choices_are_refused_at_once(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="must be one of|is '"):
        InceptionFeatures(**options)


def test_embedded_features_are_standardised() -> None:
    from specbench.zoo.pictures.attributes import draw

    features = EmbeddedFeatures()
    features.prepare("shapes_fd")
    found = features.extract(draw("test", 512).pictures)
    assert found.shape == (512, features.width) and features.width == 64
    assert np.abs(found.mean(0)).max() < 0.35
    assert found.std(0).min() > 0.7 and found.std(0).max() < 1.4
