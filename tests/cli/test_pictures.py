"""The command line of pictures: choosing metrics, the model's own task, samples of a task."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from specbench.hosting import HostRequest, compose_jobs
from specbench.schema.config import RunConfig
from tests.cli.conftest import FakeRunner

Call = Callable[..., Result]
IMAGE = ("model=tiny_image", "method=ar")


def composed(*words: str, folder: Path | None = None, multirun: bool = False) -> list[RunConfig]:
    request = HostRequest(words, multirun=multirun, config_dir=folder)
    return [config for _, config in compose_jobs(request)]


def names(*words: str) -> list[str]:
    (config,) = composed(*IMAGE, *words)
    return [metric.name for metric in config.metric]


def test_an_image_model_brings_its_own_task_and_the_task_its_metrics() -> None:
    (config,) = composed(*IMAGE)
    assert config.task.name == "shapes"
    assert [metric.name for metric in config.metric] == list(config.task.metrics)
    (other,) = composed(*IMAGE, "task=coco_captions", "task.limit=3")
    assert (other.task.name, other.task.limit) == ("coco_captions", 3)
    (limited,) = composed(*IMAGE, "task.limit=7")
    assert (limited.task.name, limited.task.limit) == ("shapes", 7)


def test_a_sweep_has_the_task_that_its_models_share() -> None:
    words = ("model=lumina,anole", "method=ar", "task.limit=2")
    jobs = composed(*words, multirun=True)
    assert {config.task.name for config in jobs} == {"geneval"}


def test_metrics_are_chosen_by_name_by_list_and_not_at_all() -> None:
    assert names("metric=fid") == ["fid"]
    assert names("metric=[shapes_rules,clip_score]") == ["shapes_rules", "clip_score"]
    assert names("metric=[]") == []


def test_a_metrics_own_keys_reach_its_class() -> None:
    words = ("metric=[fid,clip_score]", "metric.fid.reference=/real", "metric.clip_score.scale=1")
    (config,) = composed(*IMAGE, *words)
    fid, clip = config.metric
    assert fid.metric["reference"] == "/real" and fid.parameters["reference"] == "/real"
    assert clip.metric["scale"] == 1


def test_the_choice_reaches_the_runner(specbench: Call, fake_runner: FakeRunner) -> None:
    assert specbench("run", *IMAGE, "metric=[kid]", "pictures=false").exit_code == 0
    assert specbench("run", *IMAGE, "metric=[]").exit_code == 0
    assert specbench("run", *IMAGE).exit_code == 0
    chosen, none, own = fake_runner.configs
    assert [metric.name for metric in chosen.metric] == ["kid"] and not chosen.pictures
    assert none.metric == () and len(own.metric) == 4


def test_what_is_measured_of_pictures_is_no_part_of_the_job() -> None:
    (one,) = composed(*IMAGE, "metric=kid")
    (two,) = composed(*IMAGE, "metric=[]", "pictures=false")
    (other,) = composed(*IMAGE, "task.images=2")
    assert one.identity() == two.identity() != other.identity()


def test_a_metric_of_ones_own_stands_in_another_folder(tmp_path: Path) -> None:
    (tmp_path / "metric").mkdir()
    path = tmp_path / "metric" / "mine.yaml"
    text = (
        "name: mine\ntitle: Mine\nunit: x\nbetter: higher\ndefinition: d\n"
        "metric: {_target_: builtins.dict}\n"
    )
    path.write_text(f"# @package metric.mine\n{text}")
    (config,) = composed(*IMAGE, "metric=[mine,kid]", folder=tmp_path)
    assert [metric.name for metric in config.metric] == ["mine", "kid"]
    path.write_text(text)
    with pytest.raises(Exception, match="lacks its first line"):
        composed(*IMAGE, "metric=mine", folder=tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*IMAGE, "metric=fit"), "Did you mean 'fid'?"),
        ((*IMAGE, "metric=mal"), "The metric 'mal' measures no pictures"),
        ((*IMAGE, "metric=[fid,mal]"), "The metric 'mal' measures no pictures"),
        ((*IMAGE, "metric=null"), "Write metric=[]"),
        ((*IMAGE, "metric.fid.reference=/x"), "Add metric=fid"),
        ((*IMAGE, "metric=fid", "metric.fid.referense=/x"), "metric.fid.reference"),
        (("metric=fid",), "The metric 'fid' measures pictures"),
        (("task=shapes",), "The task 'shapes' asks for pictures"),
        ((*IMAGE, "task=tiny_math"), "The task 'tiny_math' asks for text"),
        (("model=tiny_image", "method=gcd"), "decodes text"),
        (("method=zipar",), "decodes image"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(
    specbench: Call, fake_runner: FakeRunner, words: tuple[str, ...], message: str
) -> None:
    result = specbench("run", *words)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert fake_runner.configs == []


def test_samples_of_pictures_are_drawn(
    specbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = specbench("show", "task", "shapes", "--sample", "--count", "3")
    assert result.exit_code == 0, result.output
    assert "shapes/2  counting" in result.stdout and "shapes/3" not in result.stdout
    assert result.stdout.splitlines()[-1] == "results/samples/shapes.png"
    with Image.open("results/samples/shapes.png") as sheet:
        assert sheet.width == 2 * 16 + 3 * 144 + 2 * 20
        assert np.asarray(sheet).std() > 10
    chosen = specbench("show", "task", "shapes", "--sample", "--json", "-o", "mine.png")
    values = json.loads(chosen.stdout)
    assert len(values["samples"]) == 6 and values["picture"] == "mine.png"
    assert (tmp_path / "mine.png").is_file()


def test_samples_of_text_are_printed(specbench: Call) -> None:
    result = specbench("show", "task", "tiny_math", "--sample", "--count", "2")
    assert result.exit_code == 0, result.output
    assert "tiny_math/1" in result.stdout and "reference: " in result.stdout
    wrong = specbench("show", "model", "tiny_text", "--sample")
    assert wrong.exit_code == 2


def test_what_is_shown_of_an_image_model_and_of_a_metric(specbench: Call) -> None:
    model = " ".join(specbench("show", "model", "lumina").stdout.split())
    assert "48 x 48 codes" in model and "cfg_scale 3" in model and "about 14.4 GB" in model
    metric = " ".join(specbench("show", "metric", "fid").stdout.split())
    assert "measures pictures" in metric and "metric.fid.reference=null" in metric
    assert "derived from every run" in specbench("show", "metric", "mal").stdout
    assert "image" in specbench("list", "tasks").stdout
