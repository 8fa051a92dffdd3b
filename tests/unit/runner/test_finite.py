"""A model whose logits are not finite is measured as nothing: every row has the error."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from specbench.compare import compare
from specbench.models.table import TableModel
from specbench.runner import run_job
from specbench.schema.config import ModelConfig, SamplingConfig, TimingConfig
from specbench.store import read_parquet
from tests.unit.models import published_checkpoints as published
from tests.unit.runner import toy, toy_image

MESSAGE = "NotFinite: logits are not finite"
HERE = "tests.unit.runner.test_finite"


def nan_table(context):
    return torch.full((toy.VOCAB,), torch.nan, dtype=torch.float64)


def nan_text(config, needs):
    models = toy.load(config, needs)
    return replace(models, target=TableModel(nan_table, toy.VOCAB))


def nan_picture(config, needs):
    models = toy_image.load(config, needs)
    table = lambda context: nan_table(context)[: toy_image.CODES]  # noqa: E731
    return replace(models, target=TableModel(table, toy_image.CODES))


def one_token(config, needs):
    models = toy.load(config, needs)
    logits = torch.zeros(toy.VOCAB, dtype=torch.float64).index_fill(0, torch.tensor([3]), 9.0)
    return replace(models, target=TableModel(lambda context: logits, toy.VOCAB))


def with_loader(config, loader, **changes):
    model = replace(config.model, loader={"_target_": f"{HERE}.{loader}"})
    return replace(config, model=model, timing=TimingConfig(1, 1), **changes)


def check_all_failed(result, samples):
    rows = read_parquet(result.path).rows
    assert result.failed == samples and len(rows) == 2 * samples
    assert set(rows["arm"]) == {"baseline", "method"}
    assert rows["error"].str.startswith(MESSAGE).all()
    assert rows["total_ns"].isna().all() and rows["new_tokens"].isna().all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nan_weights_fail_in_both_arms(tmp_path, temperature):
    config = toy.config(tmp_path, sampling=SamplingConfig(temperature=temperature))
    check_all_failed(run_job(with_loader(config, "nan_text")), 4)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_pictures_of_nan_fail_in_both_arms(tmp_path, temperature):
    config = toy_image.config(tmp_path, sampling=SamplingConfig(temperature=temperature))
    check_all_failed(run_job(with_loader(config, "nan_picture")), 4)


@pytest.mark.parametrize(("spoil", "dtype"), [("nan", "float32"), ("overflow", "float16")])
def test_checkpoints_of_nan_and_of_half_precision_that_overflows_fail(tmp_path, spoil, dtype):
    weights = published.tensors()
    if spoil == "nan":
        weights["lm_head.weight"][7, 3] = torch.nan
    else:  # every weight fits into float16, and so does the last state
        weights["model.norm.weight"] *= 1000
        weights["lm_head.weight"] *= 1000
    folder = published.write(tmp_path / "checkpoint", weights)
    model = ModelConfig(
        name="hf",
        title="t",
        target=str(folder),
        loader={"_target_": "specbench.models.load.load_pair"},
        device="cpu",
        dtype=dtype,
    )
    lookup = {
        **toy.TOKEN_SD,
        "drafter": {"_target_": "specbench.decoding.drafters.prompt_lookup.PromptLookup"},
    }
    method = toy.method("pld", lookup)
    config = toy.config(tmp_path, model=model, method=method, timing=TimingConfig(1, 0))
    check_all_failed(run_job(config), 4)


def test_answers_of_one_token_are_warned_about(tmp_path):
    for loader, warned in (("one_token", True), (None, False)):
        config = toy.config(tmp_path / str(loader), timing=TimingConfig(1, 0))
        if loader:
            config = with_loader(config, loader)
        written = read_parquet(run_job(config).path)
        said = " ".join(compare([written]).warnings)
        assert ("4 of 4 answers repeat one token in every arm" in said) is warned
