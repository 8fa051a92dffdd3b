"""Names of hardware and shapes, and the entries that ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from specbench.errors import ConfigError, SpecbenchError, UsageError
from specbench.predict.resolve import hardware_named, pair_of, shape_named
from specbench.schema import catalog
from specbench.schema.hardware import Hardware
from specbench.schema.shape import Shape
from tests.unit.predict.worlds import chain, device

CONFIG = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 100,
}


@pytest.mark.parametrize("name", catalog.names("hardware"))
def test_a_shipped_device_is_valid_and_plausible(name: str) -> None:
    hardware = Hardware.from_dict(catalog.load("hardware", name), name)
    assert 20 < hardware.ridge("bfloat16") < 600
    assert all(source.url.startswith("https://") for source in hardware.sources)
    assert hardware.flops.get("int8", 0) in (
        0,
        pytest.approx(2 * hardware.flops["bfloat16"], 0.03),
        pytest.approx(4 * hardware.flops["bfloat16"], 0.03),
    )


@pytest.mark.parametrize("name", catalog.names("shape"))
def test_a_shipped_shape_has_the_weights_that_its_publisher_counts(name: str) -> None:
    shape = Shape.from_dict(catalog.load("shape", name), name)
    assert shape.published_parameters is not None
    assert shape.parameters == pytest.approx(shape.published_parameters, rel=5e-3)


def test_no_two_entries_share_a_name() -> None:
    for group in ("hardware", "shape"):
        words = [
            word
            for name in catalog.names(group)
            for word in (name, *(catalog.load(group, name).get("aliases") or ()))
        ]
        assert len(words) == len(set(words))


def test_aliases_and_case() -> None:
    assert hardware_named("H100").name == hardware_named("h100_sxm").name == "h100_sxm"
    assert shape_named("8B").name == "llama_8b"
    assert shape_named("Qwen/Qwen3-8B").name == "qwen3_8b"


def test_an_entry_of_ones_own_may_have_capitals(tmp_path: Path) -> None:
    values = {**catalog.load("hardware", "l40s"), "name": "MyCard", "aliases": ["Lab"]}
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware" / "MyCard.yaml").write_text(json.dumps(values))
    for word in ("MyCard", "mycard", "lab"):
        assert hardware_named(word, [tmp_path]).name == "MyCard"


@pytest.mark.parametrize("size", [10**9 + 1, 10**400])
def test_a_size_beyond_belief_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**CONFIG, "vocab_size": size}))
    with pytest.raises(ConfigError, match="no usable vocab_size"):
        shape_named(str(path))


def test_a_model_entry_means_its_target_or_its_draft() -> None:
    assert shape_named("llama31_8b").name == "llama_8b"
    assert shape_named("llama31_8b", "draft").name == "llama_1b"
    assert shape_named("tiny_text").layers == 12
    assert shape_named("tiny_text", "draft").layers == 1
    with pytest.raises(ConfigError, match="names no draft"):
        shape_named("lumina2", "draft")
    with pytest.raises(ConfigError, match="names no target"):
        shape_named("hf")


@pytest.mark.parametrize(
    ("call", "near"),
    [(lambda: hardware_named("h10"), "h100"), (lambda: shape_named("lama_8b"), "llama_8b")],
)
def test_a_typo_is_told_the_nearest_name(call: Any, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        call()
    assert near in caught.value.what + caught.value.why


def test_a_config_json_by_file_or_folder(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"text_config": CONFIG, "tie_word_embeddings": True}))
    for name in (str(path), str(tmp_path)):
        shape = shape_named(name)
        assert (shape.hidden_size, shape.key_value_heads, shape.head_size) == (64, 4, 16)
        assert shape.tied
        assert shape.parameters == 2 * (4 * 64 * 64 + 3 * 64 * 128) + 6400


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        "null",
        '{"hidden_size": 64}',
        json.dumps({**CONFIG, "num_hidden_layers": -1}),
        json.dumps({**CONFIG, "vocab_size": "many"}),
        json.dumps({**CONFIG, "num_experts": 8}),
        json.dumps({**CONFIG, "num_attention_heads": True}),
        "[" * 100_000,
        b"\xff\xfe\x00",
    ],
)
def test_a_hostile_config_json_is_one_clear_error(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecbenchError) as caught:
        shape_named(str(path))
    assert caught.value.exit_code == 2
    assert caught.value.what


def test_the_measured_pair_is_the_default() -> None:
    profile = chain(target="lmsys/vicuna-7b-v1.3", draft="double7/vicuna-68m")
    target, draft = pair_of([profile], None, None)
    assert draft is not None
    assert (target.name, draft.name) == ("vicuna_7b", "vicuna_68m")
    target, draft = pair_of([profile], "70b", "8b")
    assert draft is not None
    assert (target.name, draft.name) == ("llama_70b", "llama_8b")
    lookup = chain(target="lmsys/vicuna-7b-v1.3", draft=None, drafter="lookup")
    assert pair_of([lookup], None, None)[1] is None


def test_an_unknown_or_ambiguous_pair_asks_for_a_name() -> None:
    with pytest.raises(UsageError, match="not known") as caught:
        pair_of([chain(target="somebody/something")], None, "1b")
    assert "--target" in caught.value.fix
    with pytest.raises(UsageError, match="several targets"):
        pair_of([chain(target="a"), chain(target="b")], None, "1b")


@pytest.mark.parametrize(
    "changes",
    [
        {"bandwidth": -1},
        {"bandwidth": None},
        {"flops": {}},
        {"flops": {"float7": 1.0}},
        {"sources": []},
        {"assumed": {"bandwidth_efficiency": 1.5}},
        {"assumed": {"speed": 1}},
        {"memory": 1},
    ],
)
def test_a_bad_hardware_entry_is_refused(changes: dict[str, Any]) -> None:
    entry = {**catalog.load("hardware", "h200"), **changes}
    with pytest.raises(ConfigError):
        Hardware.from_dict(entry)


def test_assumptions_can_be_changed_by_name() -> None:
    changed = device().assuming({"bandwidth_efficiency": 0.5})
    assert changed.assumed.bandwidth_efficiency == 0.5
    assert changed.assumed.compute_efficiency == 1.0
    with pytest.raises(UsageError, match="Did you mean"):
        device().assuming({"bandwith_efficiency": 0.5})
    with pytest.raises(UsageError, match="cannot be"):
        device().assuming({"bandwidth_efficiency": 0.0})
