"""Shapes and devices from anywhere, and what result files say of theirs: read, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from specbench.errors import SpecbenchError
from specbench.predict import (
    Question,
    hardware_named,
    pair_of,
    predict,
    profiles_of,
    shape_named,
    shares_of,
    warnings_of,
)
from specbench.report import predict as report
from specbench.report import predict_table
from specbench.schema import catalog
from specbench.schema.hardware import Hardware
from specbench.schema.shape import Shape
from tests.fuzz.hostile import DEEP, FUZZ, VALUES, damaged, dumped, mutated
from tests.unit.compare.factory import draft_rounds, metadata, plain_rounds, result_set, row
from tests.unit.predict.worlds import chain, device, question

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128,
    "vocab_size": 100,
    "tie_word_embeddings": False,
    "text_config": {"hidden_size": 64},
}
HARDWARE = {**catalog.load("hardware", "h100_sxm"), "assumed": {"layer_overhead_us": 4.0}}
HUGE = 10**400


def said(error: SpecbenchError) -> None:
    assert error.what and "\n" not in error.what
    error.what.encode()


def answer(asked: Question) -> None:
    """Predict, and print the answer in every way that there is."""
    predictions = (predict(chain(), asked),)
    whole = report.Report(asked, predictions, (), tuple(warnings_of(predictions, asked)))
    json.loads(report.json(whole))
    report.markdown(whole)
    predict_table.render(whole)


def shape_from(path: Any) -> None:
    try:
        shape = shape_named(str(path))
    except SpecbenchError as error:
        said(error)
        return
    assert isinstance(shape, Shape) and shape.parameters > 0
    try:
        answer(question(device(assumed=HARDWARE_SOUND.assumed), target=shape))
    except SpecbenchError as error:
        said(error)


HARDWARE_SOUND = Hardware.from_dict(HARDWARE)


@FUZZ
@given(data=st.data())
def test_a_config_json_with_hostile_values(tmp_path, data):
    path = tmp_path / "config.json"
    path.write_text(dumped(data.draw(mutated(CONFIG))))
    shape_from(path)


@FUZZ
@given(data=st.data())
def test_a_damaged_config_json(tmp_path, data):
    path = tmp_path / "config.json"
    path.write_bytes(data.draw(damaged(json.dumps(CONFIG).encode())))
    shape_from(path)


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        '{"text_config": ' + DEEP + "}",
        "9" * 10_000,
        "",
        json.dumps({**CONFIG, "hidden_size": HUGE}),
        json.dumps({**CONFIG, "num_hidden_layers": HUGE}),
        json.dumps({**CONFIG, "vocab_size": 2**62}),
        json.dumps({**CONFIG, "num_experts": [1]}),
    ],
)
def test_a_deep_or_huge_config_json(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    shape_from(path)


def hardware_from(folder: Any) -> None:
    try:
        hardware = hardware_named("mine", [folder])
    except SpecbenchError as error:
        said(error)
        return
    dtype = next(iter(hardware.flops))
    try:
        answer(question(hardware, dtype=dtype))
    except SpecbenchError as error:
        said(error)


@FUZZ
@given(data=st.data())
def test_a_device_with_hostile_values(tmp_path, data):
    folder = tmp_path / "hardware"
    folder.mkdir(exist_ok=True)
    # JSON is YAML, but for what only Python writes (NaN), which YAML reads as a text
    (folder / "mine.yaml").write_text(dumped(data.draw(mutated({**HARDWARE, "name": "mine"}))))
    hardware_from(tmp_path)


@FUZZ
@given(data=st.data())
def test_a_damaged_device(tmp_path, data):
    folder = tmp_path / "hardware"
    folder.mkdir(exist_ok=True)
    text = yaml.safe_dump({**HARDWARE, "name": "mine"}).encode()
    (folder / "mine.yaml").write_bytes(data.draw(damaged(text)))
    hardware_from(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "bandwidth: " + "9" * 400,
        f"bandwidth: {HUGE}\nflops: {{float32: {HUGE}}}",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        "x: !!python/object/apply:os.system [true]",
        "? [a, b]\n: c",
        "[" * 5000,
        "defaults: 3",
        "defaults: [mine]",
        "defaults: [{a: b}]",
    ],
)
def test_a_hostile_device(tmp_path, text):
    folder = tmp_path / "hardware"
    folder.mkdir()
    (folder / "mine.yaml").write_text(text)
    hardware_from(tmp_path)


@settings(FUZZ, max_examples=50)
@given(models=st.one_of(VALUES, mutated({"target": {"parameters": 9, "weight_bytes": 18}})))
def test_what_a_result_file_says_of_its_models(tmp_path, models):
    recorded = {
        "parameters": HARDWARE_SOUND.memory_bytes,
        "weight_bytes": 10,
        "shape": Shape.from_config(CONFIG, "x").record(),
    }
    if isinstance(models, dict):
        models = {"target": recorded, **models}
    about = {"provenance": {"models": models}, "config": {"model": {"target": "7b"}}}
    rows = [row("baseline", "s", 0, plain_rounds(9)), row("method", "s", 0, draft_rounds([4, 2]))]
    try:
        result = result_set(tmp_path, rows, metadata(**about))
    except (SpecbenchError, UnicodeEncodeError):
        return
    try:
        profiles = profiles_of([result]).profiles
        pair_of(profiles, None, "1b")
        shares_of(profiles, HARDWARE_SOUND)
    except SpecbenchError as error:
        said(error)
