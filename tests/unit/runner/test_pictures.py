"""A job on an image model: pictures, measures, the contact sheet, and resuming all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from specbench import store
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.errors import ModelError
from specbench.runner import run_job
from specbench.runner.measure import Bench
from specbench.runner.pictures import _file_names
from specbench.schema.config import SamplingConfig
from specbench.store.png import read_png
from tests.unit.runner import toy_image
from tests.unit.runner.toy_image import SIDE, Brightness, Contrast, Squares, Unready, metric


@pytest.fixture(autouse=True)
def fresh_counts(monkeypatch):
    monkeypatch.setattr(toy_image.drawn, "count", 0)
    monkeypatch.setattr(Brightness, "scored", 0)
    monkeypatch.setattr(Brightness, "prepared", 0)


def pictures_of(result):
    return sorted(path for path in result.path.with_suffix("").glob("*.seed*.png"))


def test_every_sample_and_arm_has_one_picture_of_its_own_tokens(tmp_path):
    result = run_job(toy_image.config(tmp_path))
    found = store.read_parquet(result.path)
    rows = found.rows.assign(output_ids=found.outputs["output_ids"])
    first = rows[rows["repeat"] == 0]
    assert rows[rows["repeat"] == 1]["picture"].isna().all()
    assert len(pictures_of(result)) == len(first) == 8
    assert (rows["new_tokens"] == Squares.grid.length).all()
    assert set(rows["stop_reason"]) == {"length"}
    for _, row in first.iterrows():
        name = row["sample_id"].replace("/", "-")
        assert row["picture"] == f"{result.path.stem}/{name}.{row['arm']}.seed3.png"
        pixels = read_png(result.path.parent / row["picture"])
        assert np.array_equal(pixels, Squares().pixels(row["output_ids"][0]))


def test_values_of_pictures_and_of_arms_are_those_of_the_files(tmp_path):
    found = store.read_parquet(run_job(toy_image.config(tmp_path)).path)
    first = found.rows[found.rows["repeat"] == 0]
    for _, row in first.iterrows():
        pixels = read_png(found.path.parent / row["picture"])
        assert row["quality"] == {"brightness": pixels.mean() / 255}
    for arm, group in first.groupby("arm"):
        pixels = [read_png(found.path.parent / name) for name in group["picture"]]
        value = found.metadata.corpus[arm]["contrast"]
        assert value["value"] == pytest.approx(np.stack(pixels).std())
        assert (value["n"], value["floor"], value["version"]) == (4, 500.0, 2)
        assert value["detail"] == {"mean": pytest.approx(np.stack(pixels).mean())}
    about = found.metadata.metrics
    assert about["brightness"]["kind"] == "picture" and about["contrast"]["kind"] == "corpus"
    assert about["contrast"]["protocol"] == "standard deviation of pixels"


def test_the_contact_sheet_shows_every_pair(tmp_path):
    result = run_job(toy_image.config(tmp_path))
    with Image.open(result.path.with_suffix("") / "contact_sheet.png") as sheet:
        pixels = np.asarray(sheet)
    tile = 12 * SIDE * 3  # pictures of 12 x 8 are magnified twelve times
    assert tile == 144
    assert pixels.shape[1] == 2 * 16 + 4 * (2 * tile + 4) + 3 * 20
    rows = store.read_parquet(result.path).rows
    first = rows[(rows["repeat"] == 0) & (rows["sample_id"] == "pictures/0")]
    for place, arm in enumerate(["baseline", "method"]):
        name = first[first["arm"] == arm]["picture"].item()
        shown = read_png(result.path.parent / name).repeat(12, 0).repeat(12, 1)
        left, top = 16 + place * (tile + 4), 16 + 21 + 17 + 4
        assert np.array_equal(pixels[top : top + shown.shape[0], left : left + tile], shown)


def test_nothing_is_drawn_while_a_generation_is_timed(tmp_path, monkeypatch):
    original = Bench._timed

    def spy(self, entry, request):
        before = toy_image.drawn.count
        generation = original(self, entry, request)
        assert toy_image.drawn.count == before
        return generation

    monkeypatch.setattr(Bench, "_timed", spy)
    run_job(toy_image.config(tmp_path))
    assert toy_image.drawn.count == 1 + 8  # one to see whether the model can draw


class Interrupting(Autoregressive):
    """Stops the program in the middle of the first repeat."""

    calls = 0

    def generate(self, models, request, clock):
        type(self).calls += 1
        if type(self).calls == 4:
            raise KeyboardInterrupt
        return super().generate(models, request, clock)


def test_an_interrupted_job_draws_only_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(Interrupting, "calls", 0)
    node = {"_target_": f"{__name__}.Interrupting"}
    config = toy_image.config(tmp_path)
    config = replace(config, baseline=replace(config.baseline, decoder=node))
    with pytest.raises(KeyboardInterrupt):
        run_job(config)
    (folder,) = [path for path in (tmp_path / "results").iterdir() if path.name[0] != "."]
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(before) == 4  # two whole pairs
    (lost, torn, *_) = sorted(before)
    (folder / lost).unlink()
    (folder / torn).write_bytes((folder / torn).read_bytes()[:40])
    toy_image.drawn.count = 0
    result = run_job(config)
    assert toy_image.drawn.count == 1 + 4 + 2
    assert len(pictures_of(result)) == 8
    kept = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert all(kept[name] == before[name] for name in sorted(before)[2:])


def test_a_finished_job_gets_further_measures_without_measuring_again(tmp_path):
    config = toy_image.config(tmp_path, metric=(metric(Brightness),))
    first = run_job(config)
    plain = store.read_parquet(first.path)
    assert Brightness.scored == 8 and plain.metadata.corpus == {} and len(plain.rows)
    more = run_job(replace(config, metric=(metric(Brightness), metric(Contrast))))
    assert more.reused and more.path == first.path
    assert Brightness.scored == 8  # an equal measure is not asked twice
    found = store.read_parquet(first.path)
    assert found.metadata.corpus["method"]["contrast"]["n"] == 4
    assert found.rows["total_ns"].tolist() == plain.rows["total_ns"].tolist()
    assert found.rows["quality"].tolist() == plain.rows["quality"].tolist()
    changed = run_job(replace(config, metric=(metric(Brightness, scale=2.0),)))
    again = store.read_parquet(changed.path)
    assert Brightness.scored == 16
    for old, new in zip(plain.rows["quality"], again.rows["quality"], strict=True):
        assert new is None or new["brightness"] == pytest.approx(2 * old["brightness"])


def test_a_finished_job_without_pictures_gets_them_from_its_tokens(tmp_path):
    config = toy_image.config(tmp_path)
    first = run_job(replace(config, pictures=False))
    rows = store.read_parquet(first.path).rows
    assert rows["picture"].isna().all() and rows["quality"].isna().all()
    assert not first.path.with_suffix("").exists() and Brightness.prepared == 0
    again = run_job(config)
    assert again.reused and len(pictures_of(again)) == 8
    assert store.read_parquet(again.path).rows["picture"].notna().sum() == 8


def test_a_fresh_run_keeps_the_earlier_pictures(tmp_path):
    config = toy_image.config(tmp_path)
    first = run_job(config)
    fresh = run_job(replace(config, resume=False))
    assert fresh.path != first.path
    assert len(pictures_of(first)) == len(pictures_of(fresh)) == 8
    rows = store.read_parquet(fresh.path).rows
    assert rows["picture"].dropna().str.startswith(f"{fresh.path.stem}/").all()


def test_without_scores_pictures_are_drawn_and_not_measured(tmp_path):
    result = run_job(toy_image.config(tmp_path, score=False))
    found = store.read_parquet(result.path)
    assert len(pictures_of(result)) == 8
    assert found.rows["quality"].isna().all() and found.metadata.metrics == {}
    assert Brightness.prepared == 0


def test_a_measure_that_lacks_a_file_stops_the_run_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(Bench, "run", None)
    with pytest.raises(ModelError, match=r"weights\.pt"):
        run_job(toy_image.config(tmp_path, metric=(metric(Unready),)))


def test_a_model_that_cannot_draw_stops_the_run_before_it_begins(tmp_path, monkeypatch):
    config = toy_image.config(tmp_path)
    loader = {**config.model.loader, "can_draw": False}
    config = replace(config, model=replace(config.model, loader=loader))
    with monkeypatch.context() as patch:
        patch.setattr(Bench, "run", None)
        with pytest.raises(ModelError, match="cannot turn its tokens into pictures") as caught:
            run_job(config)
        assert caught.value.why == "'vq.pt' is not loaded: its pickle can run code"
        assert caught.value.fix == "Use another. Or measure speed alone with pictures=false."
    assert run_job(replace(config, pictures=False)).failed == 0


def test_a_failed_sample_has_no_picture_and_is_left_out_of_both_arms(tmp_path, monkeypatch):
    original = Bench._timed

    def fail(self, entry, request):
        if entry.arm.name == "method" and request.streams.request.startswith("pictures/1#"):
            raise RuntimeError("boom")
        return original(self, entry, request)

    monkeypatch.setattr(Bench, "_timed", fail)
    result = run_job(toy_image.config(tmp_path))
    found = store.read_parquet(result.path)
    assert result.failed == 1 and len(pictures_of(result)) == 7
    assert found.metadata.corpus["baseline"]["contrast"]["n"] == 3
    assert found.metadata.corpus["method"]["contrast"]["n"] == 3


def test_pictures_of_one_prompt_differ_and_keep_the_first_ones_id(tmp_path):
    config = toy_image.config(tmp_path, task=toy_image.task(tmp_path, images=3))
    rows = store.read_parquet(run_job(config).path).outputs
    plain = rows[(rows["arm"] == "baseline") & (rows["repeat"] == 0)]
    assert plain["sample_id"].tolist()[:5] == [
        "pictures/0", "pictures/1", "pictures/2", "pictures/3", "pictures/0#1",
    ]  # fmt: skip
    assert len({tuple(ids[0]) for ids in plain["output_ids"]}) > 6
    one = store.read_parquet(run_job(toy_image.config(tmp_path / "one")).path)
    alone = one.outputs[(one.outputs["arm"] == "baseline") & (one.outputs["repeat"] == 0)]
    assert [list(ids[0]) for ids in alone["output_ids"]] == [
        list(ids[0]) for ids in plain["output_ids"][:4]
    ]


def test_greedy_pictures_are_compared_token_by_token(tmp_path):
    config = toy_image.config(tmp_path, sampling=SamplingConfig(temperature=0.0))
    rows = store.read_parquet(run_job(config).path).rows
    assert set(rows[rows["arm"] == "method"]["fidelity"]) == {"identical"}


def test_file_names_are_safe_and_differ():
    ids = ["a/1", "a-1", "A-1", "../..", "a" * 300, "a" * 301, "geneval/17#2"]
    names = _file_names(ids)
    assert len({name.lower() for name in names.values()}) == len(ids)
    assert all(len(name) < 140 and "/" not in name and name[0] != "." for name in names.values())
    assert names["geneval/17#2"] == "geneval-17-2"
