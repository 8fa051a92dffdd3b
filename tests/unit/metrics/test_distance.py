"""Frechet and kernel metrics: references, floors, the cache, and errors before anything is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from specbench.errors import ConfigError, ModelError
from specbench.metrics.base import CorpusMetric, Picture, PictureMetric
from specbench.metrics.distance import FrechetDistance, KernelDistance
from specbench.metrics.features import EmbeddedFeatures
from specbench.metrics.frechet import fit, frechet_distance
from specbench.metrics.references import splits
from specbench.zoo.pictures.rows import Renders
from tests.unit.metrics import toy_pictures as parts

PROMPTS = ["a photo of a red circle", "a photo of two rings", "class 7", "a photo of a square"]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECBENCH_CACHE", str(tmp_path / "cache"))


def noise(n: int, seed: int, level: float = 128.0) -> list[np.ndarray]:
    source = np.random.default_rng(seed)
    means = level + 30 * source.standard_normal((n, 1, 1, 3))
    pixels = means + 20 * source.standard_normal((n, 8, 8, 3))
    return list(np.clip(pixels, 0, 255).astype(np.uint8))


def folder_of(path: Path, pixels: list[np.ndarray]) -> Path:
    (path / "sub").mkdir(parents=True)
    for index, one in enumerate(pixels):
        place = path / "sub" if index % 2 else path
        Image.fromarray(one).save(place / f"{index:03}.png")
    (path / "notes.txt").write_text("not a picture")
    return path


def frechet(reference: str | None, **more: object) -> FrechetDistance:
    return FrechetDistance("fid", parts.MeanColors(), reference, **more)


def test_a_folder_is_read_whole_and_once(tmp_path: Path) -> None:
    real, made = noise(40, 0), parts.gallery(noise(15, 1, 140))
    metric = frechet(str(folder_of(tmp_path / "real", real)))
    metric.prepare()
    value = metric.measure(made)
    features = parts.MeanColors().extract
    expected = frechet_distance(fit(features(p.pixels for p in made)), fit(features(real)))
    assert value.value == pytest.approx(expected, rel=1e-9)
    assert value.n == 15 and value.reference.startswith("40 pictures of ")
    again = parts.MeanColors()
    metric = FrechetDistance("fid", again, str(tmp_path / "real"))
    metric.prepare()
    assert metric.measure(made) == value
    assert again.extracted == 15  # the reference came from the cache


def test_a_changed_picture_is_noticed(tmp_path: Path) -> None:
    metric = frechet(str(folder_of(tmp_path / "real", noise(20, 0))))
    made = parts.gallery(noise(15, 1))
    metric.prepare()
    before = metric.measure(made)
    Image.fromarray(noise(1, 9, 250)[0]).save(tmp_path / "real" / "000.png")
    assert metric.measure(made).value != before.value


def test_a_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    metric = frechet(str(folder_of(tmp_path / "real", noise(20, 0))))
    made = parts.gallery(noise(15, 1))
    metric.prepare()
    value = metric.measure(made)
    files = list((tmp_path / "cache" / "metrics").glob("*.npy"))
    assert files
    for file in files:
        file.write_bytes(b"broken")
    assert metric.measure(made) == value


def test_the_floor_shrinks_as_the_number_grows(tmp_path: Path) -> None:
    metric = frechet(str(folder_of(tmp_path / "real", noise(120, 0))))
    metric.prepare()
    floors = [metric.measure(parts.gallery(noise(n, 1))).floor for n in (8, 20, 60)]
    assert floors[0] is not None and floors[1] is not None and floors[2] is not None
    assert floors[0] > floors[1] > floors[2] > 0


def test_real_pictures_reach_their_floor(tmp_path: Path) -> None:
    metric = frechet(str(folder_of(tmp_path / "real", noise(200, 0))))
    metric.prepare()
    values = [metric.measure(parts.gallery(noise(30, seed))) for seed in range(1, 13)]
    floor = values[0].floor
    assert floor is not None
    assert np.mean([value.value for value in values]) == pytest.approx(floor, rel=0.35)
    moved = metric.measure(parts.gallery(noise(30, 1, 160)))
    assert moved.value > 3 * floor


def test_a_split_never_shares_a_picture() -> None:
    features = np.arange(40.0).reshape(20, 2)
    for trial in splits(features, 6, "0" * 64):
        assert trial.features is not None
        rows = {tuple(row) for row in trial.real} | {tuple(row) for row in trial.features}
        assert len(trial.real) == 6 and len(trial.features) == 14 and len(rows) == 20
    assert len(next(splits(features, 19, "0" * 64)).real) == 10


def test_a_small_reference_says_at_which_number_its_floor_stands(tmp_path: Path) -> None:
    metric = frechet(str(folder_of(tmp_path / "real", noise(20, 0))))
    metric.prepare()
    value = metric.measure(parts.gallery(noise(15, 1)))
    assert value.detail["floor_n"] == 10


def test_statistics_are_read_and_have_a_floor(tmp_path: Path) -> None:
    features = parts.MeanColors().extract(noise(300, 0))
    file = tmp_path / "real.npz"
    np.savez(file, mu=features.mean(0), sigma=np.cov(features, rowvar=False))
    metric = frechet(str(file))
    metric.prepare()
    made = parts.gallery(noise(25, 1))
    value = metric.measure(made)
    own = parts.MeanColors().extract(p.pixels for p in made)
    assert value.value == pytest.approx(frechet_distance(fit(own), fit(features)), rel=1e-9)
    assert value.floor is not None and value.floor > 0
    wide = metric.measure(parts.gallery(noise(150, 1)))
    assert wide.floor is not None and wide.floor < value.floor


def test_pickled_statistics_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "real.npz"
    np.savez(file, mu=np.array([object()], dtype=object), sigma=np.eye(1))
    with pytest.raises(ModelError, match="cannot read the statistics") as caught:
        frechet(str(file)).prepare()
    assert "allow_pickle=False" in caught.value.why


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"mu": np.zeros(6)}, "holds no statistics"),
        ({"mu": np.zeros(6), "sigma": np.eye(5)}, "holds no statistics"),
        ({"other": np.zeros(3)}, "holds no statistics"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], what: str) -> None:
    np.savez(tmp_path / "real.npz", **arrays)
    with pytest.raises(ModelError, match=what):
        frechet(str(tmp_path / "real.npz")).prepare()


def test_statistics_of_another_network_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "real.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    metric = frechet(str(tmp_path / "real.npz"))
    metric.prepare()
    with pytest.raises(ModelError, match="2048 features"):
        metric.measure(parts.gallery(noise(5, 0)))


@pytest.mark.parametrize("place", ["nowhere", "nowhere.npz", None])
def test_a_missing_reference_is_one_clear_error(tmp_path: Path, place: str | None) -> None:
    reference = None if place is None else str(tmp_path / place)
    with pytest.raises((ModelError, ConfigError)) as caught:
        frechet(reference).prepare()
    assert "metric.fid.reference" in caught.value.fix
    assert place is None or place in caught.value.what


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds 0 pictures"):
        frechet(str(tmp_path)).prepare()


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "real", noise(4, 0))
    (folder / "bad.png").write_bytes(b"no picture")
    metric = frechet(str(folder))
    metric.prepare()
    with pytest.raises(ModelError, match="bad.png"):
        metric.measure(parts.gallery(noise(5, 0)))


def test_one_picture_has_no_distance() -> None:
    value = frechet("world").measure(parts.gallery(noise(1, 0)))
    assert np.isnan(value.value) and value.n == 1 and value.floor is None


def test_few_pictures_carry_a_warning(tmp_path: Path) -> None:
    metric = frechet(str(folder_of(tmp_path / "real", noise(20, 0))))
    metric.prepare()
    assert "singular" in metric.measure(parts.gallery(noise(5, 1))).detail["warning"]
    assert "warning" not in metric.measure(parts.gallery(noise(9, 1))).detail


def test_the_kernel_metric_has_error_and_floor(tmp_path: Path) -> None:
    metric = KernelDistance("kid", parts.MeanColors(), str(folder_of(tmp_path / "r", noise(60, 0))))
    metric.prepare()
    near, far = (metric.measure(parts.gallery(noise(20, 1, level))) for level in (128, 200))
    assert near.floor is not None and near.error is not None and far.error is not None
    assert far.value > 5 * near.floor and far.value > 3 * far.error
    assert "root mean square" in near.detail["floor"]


def test_the_kernel_metric_needs_features(tmp_path: Path) -> None:
    np.savez(tmp_path / "real.npz", mu=np.zeros(6), sigma=np.eye(6))
    metric = KernelDistance("kid", parts.MeanColors(), str(tmp_path / "real.npz"))
    metric.prepare()
    with pytest.raises(ConfigError, match="features of the reference"):
        metric.measure(parts.gallery(noise(5, 0)))
    np.savez(tmp_path / "real.npz", feats=parts.MeanColors().extract(noise(30, 0)))
    metric = KernelDistance("kid", parts.MeanColors(), str(tmp_path / "real.npz"))
    metric.prepare()
    assert np.isfinite(metric.measure(parts.gallery(noise(5, 0))).value)


def world(n: int, seed: int) -> list[Picture]:
    prompts = (PROMPTS * n)[:n]
    return parts.gallery(list(Renders().pictures(prompts, seed)), prompts)


def test_the_world_is_its_own_reference() -> None:
    metric = FrechetDistance("shapes_fd", EmbeddedFeatures(), "world", 128)
    metric.prepare()
    value = metric.measure(world(32, 5))
    assert value.reference == "128 renders of the same prompts, 4 of each"
    assert value.floor is not None
    assert value.value == pytest.approx(value.floor, rel=0.5)
    broken = [
        Picture(p.sample_id, p.category, p.prompt, p.reference, 255 - p.pixels)
        for p in world(32, 5)
    ]
    assert metric.measure(broken).value > 3 * value.floor


def test_trials_of_the_world_are_new_pictures() -> None:
    from specbench.metrics.references import WorldReference

    extractor = parts.MeanColors()
    pool = WorldReference(64).pool(extractor, world(16, 3))
    assert pool.features is not None and len(pool.features) == 64
    rows = [tuple(row) for row in pool.features]
    for trial in pool.trials(16):
        rows += [tuple(row) for row in trial.real]
    assert len(set(rows)) == len(rows) == 64 + 8 * 16


def test_the_world_knows_its_captions_only() -> None:
    metric = frechet("world")
    metric.prepare()
    with pytest.raises(ConfigError, match="embedded world only"):
        metric.measure(parts.gallery(noise(4, 0), ["a photo of a bench"] * 4))


def test_other_sizes_are_refused_by_the_embedded_features() -> None:
    features = EmbeddedFeatures()
    features.prepare("shapes_fd")
    with pytest.raises(ConfigError, match="48 x 48"):
        features.extract(noise(3, 0))


def test_missing_embedded_weights_are_named() -> None:
    with pytest.raises(ModelError, match="no_such"):
        EmbeddedFeatures("embedded:no_such").prepare("shapes_fd")


def test_a_reference_of_no_pictures_is_refused() -> None:
    with pytest.raises(ConfigError, match="reference_count"):
        frechet("world", reference_count=1)


def test_it_is_a_metric_of_a_corpus() -> None:
    assert isinstance(frechet("world"), CorpusMetric)
    assert not isinstance(frechet("world"), PictureMetric)
    assert frechet("world").protocol == "Frechet distance of mean colours; reference world"
