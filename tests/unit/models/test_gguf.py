"""GGUF files become the checkpoints that they were made from, or are refused by name."""

from __future__ import annotations

import json

import gguf.quants
import numpy as np
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from specbench.errors import ModelError
from specbench.models import checkpoint, load
from specbench.models.gguf.convert import convert
from specbench.models.gguf.header import read_header
from specbench.schema.model import ModelConfig
from tests.unit.models import gguf_files as files
from tests.unit.models.gguf_files import BLOCKS, FEED, GROUPS, HEADS, HIDDEN, Raw, plain


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def of(tmp_path, architecture="llama", tensors=None, **changes):
    """Write a small file, with some of its fields changed."""
    stored = files.model(architecture)[0] | (tensors or {})
    stored = {name: raw for name, raw in stored.items() if raw is not None}
    return files.written(tmp_path / "small.gguf", files.metadata(architecture, **changes), stored)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_the_published_weights_come_back_bit_for_bit(tmp_path, architecture):
    folder = convert(of(tmp_path, architecture))
    found = load_file(folder / "model.safetensors")
    published = files.model(architecture)[1]
    assert found.keys() == published.keys()
    for name, values in published.items():
        assert found[name].dtype == torch.float32
        assert np.array_equal(found[name].numpy(), values), name


def test_the_model_computes_what_the_published_one_does(tmp_path):
    folder = convert(of(tmp_path))
    config = LlamaConfig(
        vocab_size=len(files.vocabulary()), hidden_size=HIDDEN, intermediate_size=FEED,
        num_hidden_layers=BLOCKS, num_attention_heads=HEADS, num_key_value_heads=GROUPS,
        max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    )  # fmt: skip
    expected = LlamaForCausalLM(config)
    weights = {name: torch.tensor(values) for name, values in files.model()[1].items()}
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    expected.load_state_dict(weights)
    found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(found(ids).logits, expected.eval()(ids).logits)
    assert json.loads((folder / "config.json").read_text())["rms_norm_eps"] == 1e-5


@pytest.mark.parametrize("kind", [kind.name for kind in GGMLQuantizationType])
def test_every_type_is_what_the_library_dequantises_or_is_refused(tmp_path, kind):
    number = GGMLQuantizationType[kind]
    block, size = GGML_QUANT_SIZES[number]
    rows, width = 6, 256 if block <= 256 else block
    random = np.random.default_rng(1)
    data = random.integers(0, 256, (rows, width // block * size), dtype=np.uint8)
    if kind in ("F32", "F16", "F64"):
        data = random.standard_normal((rows, width)).astype(f"<f{size}").view(np.uint8)
    try:
        with np.errstate(all="ignore"):
            meant = gguf.quants.dequantize(data, number)
    except NotImplementedError:
        meant = None
    changes = {"llama__embedding_length": width, "llama__block_count": 1}
    changes |= {"llama__feed_forward_length": rows}
    changes |= {"llama__attention__head_count": 1, "llama__attention__head_count_kv": 1}
    ones = plain(np.ones(width, np.float32))
    square = plain(np.eye(width, dtype=np.float32), "F16")
    wide = plain(np.ones((width, rows), np.float32))
    stored = {"token_embd.weight": plain(np.ones((len(files.vocabulary()), width), np.float32))}
    stored |= {f"blk.0.{n}.weight": ones for n in ("attn_norm", "ffn_norm")}
    stored |= {f"blk.0.attn_{n}.weight": square for n in ("q", "k", "v", "output")}
    stored |= {"output_norm.weight": ones, "blk.0.ffn_down.weight": wide}
    stored |= {"blk.0.ffn_gate.weight": plain(np.ones((rows, width), np.float32))}
    stored["blk.0.ffn_up.weight"] = Raw(int(number), (rows, width), data.tobytes())
    path = files.written(tmp_path / "a.gguf", files.metadata(**changes), stored)
    if meant is None:
        with pytest.raises(ModelError, match="for certain") as refused:
            convert(path)
        assert kind in refused.value.why
        return
    found = load_file(convert(path) / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    kept = {"F16": torch.float16, "BF16": torch.bfloat16}.get(kind, torch.float32)
    assert found.dtype == kept
    assert found.float().numpy().tobytes() == meant.astype(np.float32).tobytes()


def test_a_tensor_larger_than_a_slice_keeps_the_order_of_its_rows(tmp_path, monkeypatch):
    whole = convert(of(tmp_path))
    expected = (whole / "model.safetensors").read_bytes()
    for file in whole.iterdir():
        file.unlink()
    whole.rmdir()
    monkeypatch.setattr("specbench.models.gguf.convert._SLICE", 4 * HIDDEN * 5)
    assert (convert(of(tmp_path)) / "model.safetensors").read_bytes() == expected


def test_a_file_is_converted_once_and_names_what_its_weights_went_through(tmp_path):
    path = of(tmp_path)
    files_found = checkpoint.find(str(path), None)
    weights = checkpoint.folder_of(files_found) / "model.safetensors"
    stamp = weights.stat().st_mtime_ns
    assert checkpoint.find(str(path), None) == files_found
    assert weights.stat().st_mtime_ns == stamp
    config = ModelConfig(name="hf", title="t", target=str(path), device="cpu")
    pair = load.load_pair(config, needs=frozenset())
    assert pair.provenance["target"]["weights"] == "Q4_1 weights, dequantised"
    assert pair.name == "small.gguf" and pair.stop_ids == {2}


def test_half_a_conversion_leaves_nothing(tmp_path, cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gguf.quants.dequantize", full)
    with pytest.raises(ModelError, match="cannot be written") as refused:
        convert(of(tmp_path))
    assert "No space left" in refused.value.why
    assert list((cache / "gguf").iterdir()) == []


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, cache, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(ModelError, match="cannot be written") as refused:
        convert(of(tmp_path))
    assert "GB free" in refused.value.why and list((cache / "gguf").iterdir()) == []


ODD = {
    "its architecture": {"general__architecture": "gemma2"},
    "keys that are not known: expert_count": {"llama__expert_count": 8},
    "keys that are not known: rope.scaling.type": {"llama__rope__scaling__type": "yarn"},
    "llama.block_count is None": {"llama__block_count": None},
    "llama.block_count is 0": {"llama__block_count": 0},
    "head_count_kv is [2, 2]": {"llama__attention__head_count_kv": [2, 2]},
    "do not fit": {"llama__attention__head_count_kv": 3},
    "claims 4,000,000": {"llama__block_count": 4_000_000},
    "it lacks 'blk.2.attn_k.weight' and 8 more": {"llama__block_count": 3},
    "a tensor that is not known": {"llama__block_count": 1},
    "and its keys make it [97, 64]": {"llama__feed_forward_length": 97},
    "rope.dimension_count": {"llama__rope__dimension_count": 8},
    "'gpt2' with the pre-tokenizer 'falcon'": {"tokenizer__ggml__pre": "falcon"},
    "'llama' with the pre-tokenizer": {"tokenizer__ggml__model": "llama"},
    "'a b c' is not of its tokens": {"tokenizer__ggml__merges": ["a b c"]},
    "'1 zz' is not of its tokens": {"tokenizer__ggml__merges": ["1 zz"]},
    "differ in number": {"tokenizer__ggml__token_type": [1, 1]},
    "its eos token is 99999": {"tokenizer__ggml__eos_token_id": 99999},
    "template is no text": {"tokenizer__chat_template": 7},
    "no list of texts": {"tokenizer__ggml__tokens": 7},
    "layer_norm_rms_epsilon is nan": {"llama__attention__layer_norm_rms_epsilon": float("nan")},
}


@pytest.mark.parametrize("why", ODD)
def test_what_is_not_known_for_certain_is_refused_by_name(tmp_path, why):
    with pytest.raises(ModelError) as refused:
        convert(of(tmp_path, **ODD[why]))
    assert "for certain" in refused.value.what
    assert why in refused.value.why


def test_the_rotary_table_of_llama_3_is_recognised_and_another_refused(tmp_path):
    # transformers' own table of the published settings is the reference
    scaling = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0,
               "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}  # fmt: skip
    shape = dict(hidden_size=HIDDEN, num_attention_heads=HEADS, num_key_value_heads=GROUPS)
    config = LlamaConfig(**shape, max_position_embeddings=131072, rope_parameters=scaling)
    frequencies = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].numpy()
    plain_ones = 1 / 500000.0 ** (np.arange(0, 16, 2) / 16)
    table = (plain_ones / frequencies).astype(np.float32)
    assert table.max() > 7
    changes = {"llama__rope__freq_base": 500000.0}
    path = of(tmp_path, tensors={"rope_freqs.weight": plain(table)}, **changes)
    settings = checkpoint.read_settings_file(checkpoint.find(str(path), None), "config.json")
    assert settings["rope_scaling"] == {k: v for k, v in scaling.items() if k != "rope_theta"}
    with pytest.raises(ModelError) as refused:
        convert(of(tmp_path, tensors={"rope_freqs.weight": plain(table * 1.01)}, **changes))
    assert "rope_freqs" in refused.value.why


def test_a_file_with_a_head_of_its_own_keeps_it(tmp_path):
    head = np.random.default_rng(3).standard_normal((len(files.vocabulary()), HIDDEN))
    folder = convert(of(tmp_path, tensors={"output.weight": plain(head.astype(np.float32))}))
    found = load_file(folder / "model.safetensors")["lm_head.weight"]
    assert np.array_equal(found.numpy(), head.astype(np.float32))
    assert not json.loads((folder / "config.json").read_text())["tie_word_embeddings"]


def test_the_header_of_the_smallest_file(tmp_path):
    path = files.written(tmp_path / "a.gguf", {"a": [1, -2], "b": True}, {})
    assert read_header(path)[1:] == ({"a": [1, -2], "b": True}, {})
